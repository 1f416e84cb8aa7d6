"""The application that CometBFT drives: the pure state machine of `ledger.state`, its decisions kept in a `BlockStore`.

FinalizeBlock executes in memory; Commit makes what it gave durable in ONE transaction: entries, tree, checkpoint, block
record, state, and the outbox without what was taken. So after a kill at any point CometBFT replays the blocks behind
the last commit, and they give the same app hash, for it depends on the block and the committed state alone. A block
without accepted entries and without evidence writes nothing and keeps the app hash; else CometBFT would make blocks for
ever. Its height is not kept either: it is executed again after a restart, to the same end.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from ledger import block, checkpoint, cosignature, entry, genesis, keys, members, state, transaction
from ledger.abci import messages
from ledger.abci.admission import Admission
from ledger.abci.messages import Answer, Checked, Finalized, InitChain, Misbehavior, Proposal, Snapshot, ValidatorUpdate
from ledger.abci.snapshots import EVERY, Restoring, Snapshots
from ledger.block_store import BlockStore, Commit, Proved, StoredBlock
from ledger.errors import CodecError, LedgerError, TreeMismatch
from ledger.genesis import Genesis
from ledger.merkle import Frontier
from ledger.state import Code, Grant, Lookup, Opened, OpenedEntry, Refused, State
from ledger.store import FOREIGN, StoredEntry, row

VERSION: Final = "1"
KEPT: Final = 256
"""Transactions whose signatures were verified, and need not be again when they come in a block."""
AHEAD: Final = 4 * transaction.MAX_ENTRIES
"""How far ahead of a node's chain a transaction may be to enter the mempool: this node may be a block behind."""
KINDS: Final = {messages.DUPLICATE_VOTE: "double-sign", messages.LIGHT_CLIENT_ATTACK: "light-client-attack"}
Step = Callable[[str], None]


class Signers(NamedTuple):
    """This member: its node id, what signs its checkpoints and its cosignatures, and the name of the latter."""

    node: bytes
    log: keys.Signer
    cosigner: keys.Signer
    name: str


class _Executed(NamedTuple):
    """What executing a block gave; `commit` is None when it changes nothing."""

    height: int
    commit: Commit | None
    state: State
    app_hash: bytes


class ConsortiumApplication:
    """`ledger.abci.messages.Application` over the shared log in `store`.

    Parameters
    ----------
    genesis
        What the consortium began with; CometBFT's own genesis must hold it, too.
    signers
        This member, who signs a checkpoint after each block that has entries.
    clock_s
        POSIX time in seconds, for cosignatures alone: nothing that is decided depends on it.
    committed
        Called after each commit that left something.
    strayed
        Called after a block that held a transaction of this node which came too early, and was not taken.
    admitted
        Further CometBFT ids (40 hex digits) that may connect beside those of members.
    keep_from
        Asked after each commit: the height from which CometBFT is to keep its blocks; 0: it keeps all.
    snapshot_every
        Heights between two states that others may start from.
    step
        Called with the name of each step that a crash may come at, for tests.

    Methods of the four connections may be called at once; those that execute come one after another.
    """

    def __init__(
        self,
        store: BlockStore,
        genesis: Genesis,
        signers: Signers,
        clock_s: Callable[[], int],
        committed: Callable[[], None] = lambda: None,
        strayed: Callable[[], None] = lambda: None,
        admitted: Callable[[], frozenset[str]] = frozenset,
        keep_from: Callable[[], int] = lambda: 0,
        snapshot_every: int = EVERY,
        step: Step = lambda name: None,
    ) -> None:
        self._store, self._genesis, self._signers = store, genesis, signers
        self._clock_s, self._told, self._admitted, self._step = clock_s, committed, admitted, step
        self._keep_from, self._tell_strayed, self._strayed = keep_from, strayed, False
        self._opened: OrderedDict[bytes, Opened] = OrderedDict()
        self._lock = threading.Lock()  # of what was opened
        self._verifying = threading.Lock()
        self._admission = Admission()
        self._executed: _Executed | None = None
        self.height = 0
        """The newest height that was executed and committed, whether it left something or not."""
        with store.writing():
            store.drop_unfinished()
        self._load()
        self._snapshots = Snapshots(store, snapshot_every)
        self._restoring = Restoring(store, self._note, signers.node)

    def _load(self) -> None:
        """Take up what was committed last."""
        held = self._store.consensus()
        self._state = held.state() or state.initial(self._genesis)
        self._last = held.height, held.app_hash
        self.height = max(self.height, held.height)
        self._frontier = self._store.state().frontier

    @property
    def state(self) -> State:
        """The state after the last commit."""
        return self._state

    def info(self) -> messages.Info:
        """Height and app hash of the last block that left something; CometBFT executes those behind it again."""
        height, app_hash = self._last
        return messages.Info(height, app_hash, "cairn", VERSION)

    def init_chain(self, request: InitChain) -> bytes:
        """No app hash yet; nothing is written, so it may come again. Raises TreeMismatch for another consortium."""
        self._step("init_chain")
        if genesis.encode(genesis.from_json(request.app_state.decode())) != genesis.encode(self._genesis):
            raise TreeMismatch("CometBFT's genesis is of another consortium", "genesis")
        if request.chain_id != self._genesis.chain_id:
            raise TreeMismatch("CometBFT's chain is of another name", "genesis")
        if self._last[0]:
            raise TreeMismatch("CometBFT begins anew where the shared log has blocks: restore its home, or both", "")
        return b""

    def check_tx(self, tx: bytes, recheck: bool) -> Checked:
        """Taken when it could be executed now, or soon: a transaction may come before the block that it follows."""
        at, ahead = self._state, False
        try:
            opened = self._open(at, tx)
            state.check(at, tx, self._lookup({}), opened)
        except Refused as refused:
            ahead = refused.code == Code.AHEAD
            if not ahead or opened.entries[0].entry.sequence > at.chain(opened.node).sequence + AHEAD:
                return Checked(int(refused.code), refused.detail)
        if not self._admission.admit(opened.node, sha256(tx).digest(), ahead):
            return Checked(int(Code.AHEAD if ahead else Code.FULL), "enough of this node's transactions wait")
        return Checked(messages.OK)

    def prepare_proposal(self, proposal: Proposal) -> Sequence[bytes]:
        """One transaction of each node, within the block's limits: one that can be executed before any other.

        What can not is proposed all the same when its node has nothing better, for a block alone takes it out of the
        mempools.
        """
        limit = self._state.parameters
        chosen: dict[bytes, tuple[bool, int]] = {}
        for at, tx in enumerate(proposal.txs):
            try:
                opened = self._open(self._state, tx)
                state.check(self._state, tx, self._lookup({}), opened)
                node, good = opened.node, True
            except Refused:
                node, good = _node_of(tx) or sha256(tx).digest(), False
            if node not in chosen or (good and not chosen[node][0]):
                chosen[node] = good, at
        proposed: list[bytes] = []
        left, entries = min(proposal.max_tx_bytes, limit.block_bytes), limit.block_entries
        for _, at in sorted(chosen.values(), key=lambda one: one[1]):
            tx = proposal.txs[at]
            count = _entries_in(tx)
            # CometBFT counts a transaction with its field's head in the block.
            if len(tx) + 8 <= left and 0 < count <= entries:
                proposed.append(tx)
                left, entries = left - len(tx) - 8, entries - count
        return proposed

    def process_proposal(self, proposal: Proposal) -> bool:
        """Whether every transaction is one, of a node of its own, all within the block's limits."""
        self._step("process_proposal")
        limit = self._state.parameters
        nodes = [_node_of(tx) for tx in proposal.txs]
        return (
            None not in nodes
            and len(set(nodes)) == len(nodes)
            and sum(map(len, proposal.txs)) <= limit.block_bytes
            and sum(map(_entries_in, proposal.txs)) <= limit.block_entries
        )

    def finalize_block(self, block: messages.Block) -> Finalized:
        """Execute a decided block in memory."""
        self._step("finalize_block.1")
        run = _Run(self._state, self._frontier.size, block.height)
        results = [self._execute(run, tx) for tx in block.txs]
        after = run.state
        for lie in block.misbehavior:
            after = state.note_evidence(after, lie.kind, lie.address, lie.height, lie.time_ns // 1000)
        commit, app_hash = None, self._last[1]
        if run.taken or block.misbehavior:
            commit = self._commit_of(block, run, after)
            app_hash = commit.block.hash
        self._executed = _Executed(block.height, commit, after, app_hash)
        updates = [ValidatorUpdate(key, power) for key, power in state.validator_updates(self._state, after)]
        self._step("finalize_block.2")
        return Finalized(results, updates, app_hash)

    def commit(self) -> int:
        """(1) the checkpoint, signed; (2) one transaction; (3) what is held in memory; (4) the engine is told.

        The height from which CometBFT keeps its blocks is at most that of the oldest snapshot, whose header a new
        member reads. 0: nothing is forgotten now.
        """
        executed, self._executed = self._executed, None
        if executed is None:
            raise TreeMismatch("CometBFT commits what was not executed", "commit")
        self.height = max(self.height, executed.height)
        self._admission.committed()
        if self._strayed:
            self._strayed = False
            self._tell_strayed()
        if executed.commit is None:
            return 0
        self._step("commit.1")
        frontier = executed.commit.frontier
        note = self._note(frontier) if executed.commit.rows else None  # (1)
        self._step("commit.2")
        with self._store.writing():
            self._store.commit_block(executed.commit, note)  # (2)
        self._step("commit.3")
        self._state, self._frontier = executed.state, frontier  # (3)
        self._last = executed.height, executed.app_hash
        self._told()  # (4)
        self._step("commit.4")
        return max(0, min(self._keep_from(), self._store.oldest_snapshot()))

    def query(self, path: str, data: bytes, height: int) -> Answer:
        """Only whether a peer may connect: any address, and the CometBFT ids of members."""
        if path.startswith("/p2p/filter/addr/"):
            return Answer(messages.OK)
        if path.startswith("/p2p/filter/id/"):
            peer = path.rpartition("/")[2].lower()
            known = peer in self._admitted() or any(
                member.card.address.partition("@")[0] == peer for member in self._state.active
            )
            return Answer(messages.OK if known else 1, log="" if known else "not a member's node")
        return Answer(1, log="no such query", height=self._last[0])

    def list_snapshots(self) -> Sequence[Snapshot]:
        """Those that CometBFT's light client can verify by now: two blocks behind the newest."""
        return self._snapshots.offered(self.height - 2)

    def load_snapshot_chunk(self, height: int, format: int, chunk: int) -> bytes:
        """As `Snapshots.chunk`."""
        return self._snapshots.chunk(height, format, chunk)

    def offer_snapshot(self, snapshot: Snapshot, app_hash: bytes) -> int:
        """As `Restoring.offer`."""
        return self._restoring.offer(snapshot, app_hash)

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> int:
        """As `Restoring.apply`."""
        self._step("apply_snapshot_chunk")
        verdict, whole = self._restoring.apply(index, chunk)
        if whole:
            self._load()
            self._told()
        return verdict

    def _note(self, frontier: Frontier) -> str:
        """The checkpoint with this member's two lines: of the log's key, and as a cosigner."""
        signers = self._signers
        note = checkpoint.make(self._genesis.origin, frontier.size, frontier.root(), signers.log)
        return cosignature.sign(note, signers.name, signers.cosigner, self._clock_s())

    def _open(self, at: State, tx: bytes) -> Opened:
        """The transaction, its signatures verified once. Raises Refused, always alike for one state.

        By one thread at a time: each signature lets go of the interpreter, and two threads that verify would hand it to
        and fro for every one, which on a busy machine takes far longer than the signatures. The other mostly finds that
        what it waited for is verified.
        """
        id = sha256(tx).digest()
        known = self._known(at, id)
        if known is None:
            with self._verifying:
                known = self._known(at, id) or state.verify(at, tx)
                with self._lock:
                    self._opened[id] = known
                    while len(self._opened) > KEPT:
                        self._opened.popitem(last=False)
        return known

    def _known(self, at: State, id: bytes) -> Opened | None:
        """What was verified before, when its keys are still its member's."""
        with self._lock:
            known = self._opened.get(id)
        if known is None:
            return None
        member = at.members.get(known.node)
        usable = member is not None and member.active and {item.key for item in known.entries} <= set(member.usable())
        return known if usable else None

    def _lookup(self, fresh: dict[bytes, Grant]) -> Lookup:
        """Grants of the log, and those of the block under way."""

        def look(id: bytes) -> Grant | None:
            if id in fresh:
                return fresh[id]
            with self._store.mutex:
                stored = self._store.find(leaf=id)
            if stored is None:
                return None
            held = OpenedEntry(stored.envelope, stored.leaf, entry.read(stored.envelope), b"")
            return state.grants_of([held]).get(id)

        return look

    def _execute(self, run: _Run, tx: bytes) -> Checked:
        limit = run.state.parameters
        try:
            opened = self._open(run.state, tx)
            state.check(run.state, tx, self._lookup(run.grants), opened)
            if opened.node in run.nodes or len(run.taken) + len(opened.entries) > limit.block_entries:
                raise Refused(Code.FULL, "the block holds one transaction of a node, and no more entries than agreed")
        except Refused as refused:
            node = _node_of(tx) if refused.code == Code.AHEAD else None  # whose signatures verified
            if node is not None and node not in run.nodes:
                self._admission.executed(node, ahead=True)
                self._strayed |= node == self._signers.node
            return Checked(int(refused.code), refused.detail)
        self._admission.executed(opened.node, ahead=False)
        run.state = state.apply(run.state, opened, run.height)
        run.nodes.add(opened.node)
        run.taken.extend(opened.entries)
        run.grants.update(state.grants_of(opened.entries))
        return Checked(messages.OK)

    def _commit_of(self, decided: messages.Block, run: _Run, after: State) -> Commit:
        frontier, first = self._frontier.copy(), self._frontier.size
        for item in run.taken:
            frontier.append(item.leaf)
        height, app_hash = self._last
        record = block.encode(
            block.BlockRecord(
                ledger=self._genesis.ledger,
                height=decided.height,
                previous=app_hash if height else block.FIRST,
                first=first,
                size=frontier.size,
                root=frontier.root(),
                state=members.state_hash(after),
                time_us=decided.time_ns // 1000,
                proposer=decided.proposer,
                hash=decided.hash,
            )
        )
        stored = StoredBlock(
            decided.height, first, frontier.size, decided.time_ns // 1000 * 1000, block.app_hash(record), record
        )
        rows, superseded = self._rows(run.taken, first)
        return Commit(
            stored,
            rows,
            frontier,
            members.changed_rows(self._state if height else None, after),
            [_proved(lie, after) for lie in decided.misbehavior],
            superseded,
            members.encode(after) if self._snapshots.due(decided.height) else None,
        )

    def _rows(self, taken: Sequence[OpenedEntry], first: int) -> tuple[list[StoredEntry], bool]:
        """The entries' rows, own ones with their batch; whether own ones are others than those in the outbox."""
        own = sum(item.entry.node == self._signers.node for item in taken)
        waiting = {item.sequence: item for item in self._store.outbox(own)} if own else {}
        rows, superseded = [], False
        for idx, item in enumerate(taken, first):
            of, records = FOREIGN, 0
            if item.entry.node == self._signers.node:
                mine = waiting.get(item.entry.sequence)
                if mine is not None and mine.leaf == item.leaf:
                    of, records = mine.of, mine.records
                elif waiting:
                    superseded = True
            rows.append(row(idx, item.envelope, item.entry, of, records))
        return rows, superseded


class _Run:
    """The execution of one block so far."""

    def __init__(self, before: State, size: int, height: int) -> None:
        self.state, self.size, self.height = before, size, height
        self.taken: list[OpenedEntry] = []
        self.nodes: set[bytes] = set()
        self.grants: dict[bytes, Grant] = {}


def _proved(lie: Misbehavior, after: State) -> Proved:
    node = next((member.node for member in after.members.values() if member.card.validator == lie.address), b"")
    return Proved(KINDS.get(lie.kind, "misbehavior"), node, lie.height, lie.time_ns, lie.address)


def _node_of(tx: bytes) -> bytes | None:
    """Whose transaction it is, unverified; None when it is none."""
    try:
        return entry.read(transaction.decode(tx)[0]).node
    except LedgerError:
        return None


def _entries_in(tx: bytes) -> int:
    try:
        return len(transaction.decode(tx))
    except CodecError:
        return 0
