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

from collections.abc import Iterable

from ledger import entry
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry
from ledger.finding import Finding
from ledger.members import State
from ledger.replay import BlockRow, Replay, SharedTrust
from ledger.shared_policy import log_policy
from ledger.verify import LogCheck, LogReport, Visitor, read_head


class SharedLogCheck(LogCheck):
    """Steps 1 to 6 over a shared log: `entry`, `checkpoint` and `block` in order; then `end`.

    Without `signatures`, envelopes are hashed alone. `known` is a state whose members' keys count for checkpoints; by
    default those of the members as far as the log was read.
    """

    def __init__(self, trust: SharedTrust, signatures: bool = True, known: State | None = None) -> None:
        super().__init__(signatures=signatures)
        self.replay = Replay(trust)
        self.height = 0
        self._shared, self._known = trust, known

    @property
    def state(self) -> State:
        """The members, keys and chains as far as the log was read."""
        return self.replay.state

    def opened(self, index: int, envelope: bytes) -> Entry | None:
        """Steps 1 to 3 of the next entry; None when it does not verify, or is not to be."""
        if not self._signatures:
            return None
        said, faults = self.replay.open(envelope, self.height)
        self.report.findings += [Finding(f"entry {index}", what) for what in faults]
        if said is not None and said.node == self._shared.own and said.type == "study.erase" and said.study is not None:
            self.report.erased.add(said.study)
        return said

    def entry(self, envelope: bytes) -> Entry | None:
        """The next entry; None when it does not verify, or is not to be."""
        said = self.opened(self.report.frontier.size, envelope)
        own = said is not None and said.node == self._shared.own and said.type != "ledger.join"
        self._grow(entry.leaf_hash(envelope), said.records_root if said is not None and own else b"")
        return said

    def head(self, size: int, note: str) -> Checkpoint | None:
        """The tree head of a stored checkpoint, signed and of this log; None when it is not."""
        origin, own = self._shared.genesis.origin, self._shared.own
        at = self.replay.state if self._known is None else self._known
        found, head = read_head(note, size, lambda signed: log_policy(at, origin, own).accept(signed).head)
        self.report.findings += found
        return head

    def end(self, beyond: int | None) -> LogReport:
        """Step 6, and the whole report; a log without entries needs no checkpoint."""
        return self.report if beyond is None and not self.report.frontier.size else super().end(beyond)

    def block(self, row: BlockRow) -> None:
        """A block, given when the log has grown to its size (a); `height` must have been set before its entries."""
        if self._signatures:
            faults = self.replay.block(row, self.report.frontier.root())
            self.report.findings += [Finding(f"block {row.height}", what) for what in faults]

    def blocks_end(self, height: int, app_hash: bytes) -> None:
        """What was committed last, against the blocks (b)."""
        if not self._signatures:
            return
        if self.replay.size != self.report.frontier.size:
            self._found("block", f"the blocks have {self.replay.size} of {self.report.frontier.size} entries")
        if self.replay.tip != (height, app_hash):
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
