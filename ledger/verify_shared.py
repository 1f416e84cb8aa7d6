"""The verification recipe of a shared log, pure: as `ledger.verify` has it, with the members' state machine beside it.

Of the log, entry by entry (`SharedLogCheck`), steps 1 to 6 of `ledger.verify`, where
 1. the key is the one that the entry's member had then, which the genesis and the log itself tell
 3. each member's entries are a chain of their own; and what an entry states is its member's to state
 4. no two entries of one member are over the same records, as far as it is this one
 5. checkpoints are signed by this member, or for an outsider by any
Of its blocks:
 a. each record is of the entries, the tree and the state after it, and continues the record before it
 b. every entry is in a block; the last record's hash is the app hash
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile

from ledger import entry, keys
from ledger.checkpoint import Checkpoint, Verifier
from ledger.entry import Entry
from ledger.errors import LedgerError, SignatureInvalid
from ledger.finding import Finding
from ledger.members import Chain, State
from ledger.policy import Policy
from ledger.replay import BlockRow, Replay, SharedTrust
from ledger.run_shared import own_root
from ledger.verify import LogCheck, LogReport, Sound, Stretch, Visitor, read_head


class SharedLogCheck(LogCheck):
    """Steps 1 to 6 over a shared log: `entry` or `sound`, and `checkpoint` in order; then `end`.

    Without `signatures`, envelopes are hashed alone. `known` is a state whose members' keys count for checkpoints; by
    default those of the members as far as the log was read. `blocks` are all of the log, in order, as far as they are
    known. `committed`: the size up to which the log was committed, when what is behind it is of a state that is being
    taken over: no checkpoint of this member is of that yet, and nothing says which block is the last.
    """

    def __init__(
        self,
        trust: SharedTrust,
        signatures: bool = True,
        known: State | None = None,
        blocks: Iterable[BlockRow] = (),
        committed: int | None = None,
    ) -> None:
        super().__init__(signatures=signatures)
        self.replay = Replay(trust)
        self._shared, self._committed = trust, committed
        self._policy = None if known is None else trust.policy(known)
        self._blocks, self._coming = iter(blocks), deque[BlockRow]()

    @property
    def state(self) -> State:
        """The members, keys and chains as far as the log was read."""
        return self.replay.state

    def opened(self, index: int, envelope: bytes) -> Entry | None:
        """Steps 1 to 3 of the next entry; None when it does not verify, or is not to be."""
        if not self._signatures:
            return None
        said, faults = self.replay.open(envelope, self._height())
        self.report.findings += [Finding(f"entry {index}", what) for what in faults]
        if said is not None and said.node == self._shared.own and said.type == "study.erase" and said.study is not None:
            self.report.erased.add(said.study)
        return said

    def entry(self, envelope: bytes) -> Entry | None:
        """The next entry; None when it does not verify, or is not to be."""
        self._pass_blocks()
        return super().entry(envelope)

    def root(self, said: Entry) -> bytes:
        """Roots are compared among this member's own entries, for anybody may sign one that another chose."""
        return own_root(said, self._shared.own)

    def head(self, size: int, note: str) -> Checkpoint | None:
        """The tree head of a stored checkpoint, signed and of this log; None when it is not."""
        policy = self._policy or self._shared.policy(self.replay.state)
        found, head = read_head(note, size, lambda signed: policy.accept(signed).head)
        self.report.findings += found
        return head

    def end(self, beyond: int | None) -> LogReport:
        """Step 6, and the whole report; a log without entries needs no checkpoint."""
        self._pass_blocks(all=True)
        arriving = self._committed is not None and max(self._newest, 0) == self._committed
        return self.report if beyond is None and (arriving or not self.report.frontier.size) else super().end(beyond)

    def _continues(self, run: Sound) -> bool:
        return run.first == self.report.frontier.size

    def _takes(self, run: Sound) -> bool:
        """Replay the steps of a run, and the blocks that end in it; nothing is changed when anything does not hold."""
        if not self._signatures:
            return True
        self._pass_blocks()
        end = run.first + run.size
        blocks = deque(self._blocks_until(end))
        behind = self._height(len(blocks))
        roots = {head.size: head.root for head, _ in run.heads}
        replay, at = self.replay.copy(), run.first
        for step in run.steps:
            due = blocks[0].size if blocks else end
            if at + step.size > due:
                return False
            if isinstance(step, Stretch):
                if not replay.go_on(step):
                    return False
            else:
                height = blocks[0].height if blocks else behind
                said, faults = replay.open(step.envelope, height, step.key)
                if said is None or faults:
                    return False
            at += step.size
            while blocks and blocks[0].size <= at:
                block = blocks.popleft()
                if block.size not in roots or any(replay.block(block, roots[block.size])):
                    return False
        if at != end:
            return False
        self.replay = replay
        while self._coming and self._coming[0].size <= end:
            self._coming.popleft()
        return True

    def _blocks_until(self, size: int) -> list[BlockRow]:
        """The coming blocks up to a size of the log; the one behind them is at hand, too."""
        while not self._coming or self._coming[-1].size <= size:
            block = next(self._blocks, None)
            if block is None:
                break
            self._coming.append(block)
        return list(takewhile(lambda block: block.size <= size, self._coming))

    def _height(self, number: int = 0) -> int:
        """The height of the next block but so many; 0 when it is not known."""
        return self._coming[number].height if len(self._coming) > number else 0

    def _pass_blocks(self, all: bool = False) -> None:
        """The blocks that the log has grown to (a); at its end `all` that are left."""
        size = self.report.frontier.size
        self._blocks_until(2**63 if all else size)
        while self._coming and (all or self._coming[0].size <= size):
            row = self._coming.popleft()
            if self._signatures:
                faults = self.replay.block(row, self.report.frontier.root())
                self.report.findings += [Finding(f"block {row.height}", what) for what in faults]

    def blocks_end(self, height: int, app_hash: bytes) -> None:
        """What was committed last, against the blocks (b)."""
        if not self._signatures:
            return
        if self.replay.size != self.report.frontier.size:
            self._found("block", f"the blocks have {self.replay.size} of {self.report.frontier.size} entries")
        if self._committed is None and self.replay.tip != (height, app_hash):
            self._found("block", "the last one is not the one that was committed last")


def verify_shared(
    envelopes: Iterable[bytes], notes: Iterable[tuple[int, str]], trust: SharedTrust, visit: Visitor | None = None
) -> tuple[LogReport, State]:
    """Steps 1 to 6 over a copy of a shared log without its blocks, and the state that it leads to.

    As of `ledger.verify.verify_log`: every envelope in order, and (size, checkpoint), ascending.
    """
    check = SharedLogCheck(trust)
    waiting = list(notes)[::-1]
    for index, envelope in enumerate(envelopes):
        said = check.entry(envelope)
        while waiting and waiting[-1][0] <= check.report.frontier.size:
            check.checkpoint(*waiting.pop())
        if visit:
            visit(index, envelope, said)
    return check.end(waiting[-1][0] if waiting else None), check.state


class MembersLogCheck(LogCheck):
    """Steps 1 to 6 over a copy of a shared log, for who has a policy and not the genesis.

    An entry is signed with a key of one of the policy's logs, each node's entries are a chain of their own, and the
    ledger is that of the origin. Which of its keys a member had in a place, and what it might state, is not known.
    """

    def __init__(self, logs: Sequence[Verifier], head: Checkpoint, policy: Policy) -> None:
        super().__init__()
        self._keys = {keys.key_id(log.key): keys.raw(log.key) for log in logs if log.name == head.origin}
        self._origin, self._policy = head.origin, policy
        self._chains: dict[bytes, Chain] = {}

    def opened(self, index: int, envelope: bytes) -> Entry | None:
        """Steps 1 to 3 of the next entry; None when it does not verify."""
        try:
            kid = entry.unwrap(envelope)[0][-keys.KID_SIZE :]
            if kid not in self._keys:
                raise SignatureInvalid("it is signed with a key that the policy does not name")
            said = entry.open(envelope, self._keys[kid], kid)
        except LedgerError as error:
            self.report.findings.append(Finding(f"entry {index}", error.detail))
            return None
        faults = []
        if not of_origin(said, self._origin):
            faults.append("it names another ledger")
        if (said.sequence, said.previous) != self._chains.get(said.node, Chain()):
            faults.append("it does not continue its node's chain")
        self.report.findings += [Finding(f"entry {index}", what) for what in faults]
        self._chains[said.node] = Chain(said.sequence + 1, entry.envelope_hash(envelope))
        return said

    def root(self, said: Entry) -> bytes:
        """Not compared: anybody may sign a root that another chose."""
        return b""

    def head(self, size: int, note: str) -> Checkpoint | None:
        """The tree head of the checkpoint, as the policy accepts it."""
        found, head = read_head(note, size, lambda signed: self._policy.accept(signed).head)
        self.report.findings += found
        return head


def of_origin(said: Entry, origin: str) -> bool:
    """Whether an entry is of the consortium whose shared log has this origin, which ends with the ledger's id."""
    return origin.endswith(f"-{said.ledger.hex()}")
