"""A member's ledgers, verified whole: the log that it kept before it joined, the shared log, its outbox, its records.

What waits in the outbox continues this member's chain and is pending, which is no finding: consensus may be away for as
long as it takes. An outsider with a copy of the shared log's folder and the genesis verifies all but the records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from ledger import entry, keys, members
from ledger.audit import RUN, LogAudit, Progress, counted
from ledger.block_store import BlockStore, Consensus, Proved, Waiting
from ledger.checkpoint import Checkpoint
from ledger.engine.solo import DATABASE
from ledger.entry import Entry, leaf_hash
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.genesis import Genesis
from ledger.members import Chain, Evidence, State
from ledger.publication import cosigned_size
from ledger.published import SharedCopy
from ledger.replay import BlockRow, SharedTrust
from ledger.run import Run
from ledger.run_reader import Reading, RunReaders
from ledger.run_shared import Known, SharedRunCheck
from ledger.shared_policy import quorum_policy
from ledger.source import RecordSource
from ledger.store import LedgerStore
from ledger.verify import LogCheck, LogReport, Trust, verify_records
from ledger.verify_shared import SharedLogCheck

KINDS: Final = {"double-sign": 1, "light-client-attack": 2}
"""Lies of validators, as they are stored, by ABCI's number."""


@dataclass(slots=True)
class SharedReport:
    """What auditing gave: findings, how many entries there are, how many of this member's wait, members and keys.

    `arriving` of the entries are of a state that is being taken over, and are the node's own log when all of it is.
    """

    findings: list[Finding] = field(default_factory=list)
    entries: int = 0
    waiting: int = 0
    arriving: int = 0
    state: State | None = None


@dataclass(frozen=True)
class SharedReading(Reading):
    """How runs of a shared log are read: by the state that its database holds, which the replay has to bear out."""

    own: bytes | None = None
    key: bytes | None = None

    def open(self, database: Path) -> LedgerStore:
        """The database, for reading."""
        return BlockStore(database, readonly=True)

    def checks(self, store: LedgerStore) -> Callable[[Run], LogCheck] | None:
        """As `Reading.checks`; None before the first block."""
        assert isinstance(store, BlockStore)
        state = store.consensus().state()
        if state is None:
            return None
        known = Known.of(state, self.trust.origin, self.own, self.key)
        return lambda run: SharedRunCheck(known, run, self.signatures)


class SharedLogAudit(LogAudit):
    """The checks of the shared log's files below `home`."""

    def __init__(self, home: Path, trust: SharedTrust, progress: Progress | None, signatures: bool) -> None:
        # What is said of the one key of a solo log is not asked here.
        super().__init__(home, Trust.solo(trust.genesis.cards[0].key, trust.genesis.origin), progress, signatures)
        self._shared = trust
        self.state: State | None = None
        self.committed: int | None = None  # up to which size, while a state is being taken over
        self.outbox: list[Waiting] = []
        self.pending: dict[int, Entry] = {}  # by place in the outbox, as far as they verify

    def _open(self) -> LedgerStore:
        return BlockStore(self.database, readonly=True)

    def _reading(self, run: int) -> Reading:
        return SharedReading(self._trust, self._signatures, run, self._shared.own, self._shared.key)

    def _begun(self, store: LedgerStore) -> LogCheck:
        assert isinstance(store, BlockStore)
        lies = [row for row in store.evidence() if row.kind in KINDS]
        trust = self._shared._replace(evidence=tuple(_lie(row) for row in lies))
        consensus = store.consensus()
        # A copy of blocks that others decided is signed with keys that may have been accepted later.
        known = None
        with suppress(LedgerError):  # a damaged state is told in the end
            known = consensus.state()
        self.committed = None if self._shared.own is None else _committed(store, consensus)
        return SharedLogCheck(trust, self._signatures, known, _blocks(store), self.committed)

    def _read_all(self, store: LedgerStore, check: LogCheck, readers: RunReaders | None, run: int) -> None:
        assert isinstance(store, BlockStore) and isinstance(check, SharedLogCheck)
        super()._read_all(store, check, readers, run)
        consensus = store.consensus()
        check.blocks_end(consensus.height, consensus.app_hash)
        self.state = state = check.state
        if self.committed is not None:
            state = consensus.state() or members.initial(self._shared.genesis)
        elif self._signatures and consensus.height and consensus.rows != members.rows(state):
            check.report.findings.append(Finding("consensus state", "it is not what the entries lead to"))
        if self._shared.own is not None and self._signatures:
            check.report.findings += self._waiting(store, state, self._shared.own)

    def _check_files(self, store: LedgerStore) -> None:
        if store.size():  # nothing is published before the first block
            super()._check_files(store)

    def _size_published(self, store: LedgerStore, known: Mapping[str, int]) -> int | None:
        """One that members cosigned may be older, for they take their time; its lines are those that are held."""
        assert isinstance(store, BlockStore)
        size = cosigned_size(self._published, store.checkpoint)
        note = store.checkpoint(size) if size else None
        if note is None or self._published is None:
            return super()._size_published(store, known)
        lines = self._published[len(note) :].splitlines(keepends=True)
        return size if set(lines) <= set(store.cosignatures(size).values()) else None

    def _waiting(self, store: BlockStore, state: State, own: bytes) -> Iterator[Finding]:
        """The outbox: signed by this member, in its one encoding, and continuing its chain."""
        at = state.chain(own)
        member = state.members.get(own)
        # A node that is not taken in yet has its chain and its key all the same.
        signing = member.usable() if member is not None else tuple(filter(None, [self._shared.key]))
        usable = {keys.key_id(key): key for key in signing}
        self.outbox = store.outbox()
        for number, held in enumerate(self.outbox):
            place = f"outbox {number}"
            try:
                key = usable.get(entry.unwrap(held.envelope)[0][-8:])
                said = entry.read(held.envelope) if key is None else entry.open(held.envelope, key)
            except LedgerError as error:
                yield Finding(place, error.detail)
                continue
            if key is None and usable:
                yield Finding(place, "it is signed with a key that is not this member's")
            if (said.node, said.ledger) != (own, state.ledger):
                yield Finding(place, "it names another node or ledger")
            if (said.sequence, said.previous) != at:
                yield Finding(place, "it does not continue this member's chain")
            if (held.sequence, held.leaf, held.root) != (said.sequence, leaf_hash(held.envelope), said.records_root):
                yield Finding(place, "its columns are not what its envelope says")
            at = Chain(said.sequence + 1, entry.envelope_hash(held.envelope))
            self.pending[number] = said


def audit_shared(
    home: Path,
    genesis: Genesis,
    own: bytes | None = None,
    key: bytes | None = None,
    solo: tuple[Path, Trust] | None = None,
    source: RecordSource | None = None,
    progress: Progress | None = None,
    now_us: int | None = None,
    signatures: bool = True,
    progress_of_records: Progress | None = None,
    processes: int | None = None,
    run: int = RUN,
) -> SharedReport:
    """Every finding about the shared log below `home`, and about what belongs to it. Changes nothing.

    Parameters
    ----------
    genesis
        How the consortium began.
    own
        The id of the node whose copy it is; None for an outsider, who has neither outbox nor records to compare.
    key
        The ledger key (32 bytes) that this node signs with, which counts before the log has accepted it.
    solo
        The log that this node kept before it joined, with the trust in it.
    source, progress, now_us, signatures, progress_of_records, processes, run
        As `ledger.audit.audit`.
    """
    now = time.time_ns() // 1000 if now_us is None else now_us
    report = SharedReport()
    with ExitStack() as held:
        former, shared = None, SharedLogAudit(home, SharedTrust(genesis, own, key=key), progress, signatures)
        logs: list[tuple[LogAudit, LedgerStore]] = []
        if solo is not None and (solo[0] / DATABASE).is_file():
            former = LogAudit(*solo, progress, signatures)
            store = former.read(held, processes, run)
            report.findings += [Finding(f"own log, {found.place}", found.what) for found in former.findings]
            if store is not None:
                logs.append((former, store))
        store = shared.read(held, processes, run)
        report.findings += shared.findings
        report.state, report.waiting = shared.state, len(shared.outbox)
        if shared.committed is not None:
            report.arriving = shared.report.frontier.size - shared.committed
        if store is not None:
            logs.append((shared, store))
            report.entries = sum(one.report.frontier.size for one, _ in logs)
            if own is not None and signatures:
                report.findings += _join_faults(former, shared, store, own, solo)
        if store is not None and source is not None and signatures:
            sealed = _Sealed(logs, shared, progress_of_records)
            report.findings += sealed.doubles
            current = sealed.current(source.epoch())
            report.findings += verify_records(
                source, shared.cursor, sealed.report, sealed.entry, current, now, sealed.place
            )
    return report


def verify_database(home: Path, genesis: Genesis, progress: Progress | None = None) -> SharedCopy:
    """Every finding about a copy of a member's shared log, database and blocks included, for who has the genesis alone.

    More than two thirds of the members must have cosigned one of its checkpoints; entries behind it are told by `size`.
    """
    report = audit_shared(home, genesis, progress=progress)
    if report.state is None:
        return SharedCopy(report.entries, None, None, report.findings)
    accepted, trust = None, quorum_policy(report.state, genesis.origin)
    try:
        with closing(BlockStore(home / DATABASE, readonly=True)) as store:
            for size, _ in store.cosigned_sizes(1):
                lines = "".join(store.cosignatures(size).values())
                note = store.checkpoint(size)
                with suppress(LedgerError):
                    accepted = trust.accept(_once(note, lines)) if note is not None else None
                if accepted is not None:
                    break
    except LedgerError as error:
        report.findings.append(Finding(DATABASE, f"it cannot be read: {error}"))
    if accepted is None and report.entries:
        what = f"no checkpoint is cosigned by {report.state.quorum} members"
        report.findings.append(Finding("witnesses", what))
    return SharedCopy(report.entries, report.state, accepted, report.findings)


def _once(note: str, lines: str) -> str:
    """The note with these lines, each once: the member's own cosignature is in its note."""
    return note + "".join(line for line in lines.splitlines(keepends=True) if line not in note)


class _Sealed:
    """This node's entries in all its logs, and behind these in its outbox, under one numbering."""

    def __init__(
        self, logs: list[tuple[LogAudit, LedgerStore]], shared: SharedLogAudit, progress: Progress | None
    ) -> None:
        self.report, self.doubles = LogReport(), list[Finding]()
        self._logs, self._shared = logs, shared
        told = counted(progress, sum(len(log.report.roots) for log, _ in logs) + len(shared.outbox))
        self._readers = [log.verified(store, told) for log, store in logs]
        self._starts = [0]
        for log, _ in logs:
            self._take((root, self._starts[-1] + index) for root, index in log.report.roots.items())
            self.report.erased |= log.report.erased
            self._starts.append(self._starts[-1] + log.report.frontier.size)
        own = ((said, number) for number, said in shared.pending.items() if said.type != "ledger.join")
        self._take((said.records_root, self._starts[-1] + number) for said, number in own)
        self.report.erased |= {
            said.study for said in shared.pending.values() if said.type == "study.erase" and said.study
        }

    def _take(self, roots: Iterator[tuple[bytes, int]]) -> None:
        for root, index in roots:
            other = self.report.roots.setdefault(root, index)
            if other != index:
                self.doubles.append(Finding(self.place(index), f"it is over the same records as {self.place(other)}"))

    def current(self, epoch: bytes) -> Iterator[int]:
        """The indices of entries over batches of an epoch."""
        for (log, _), start in zip(self._logs, self._starts, strict=False):
            yield from (start + index for index in log.current(epoch))
        for number, held in enumerate(self._shared.outbox):
            if held.epoch == epoch:
                yield self._starts[-1] + number

    def entry(self, index: int) -> Entry | None:
        """The verified entry at an index; None when it did not verify."""
        number = self._number(index)
        at = index - self._starts[number]
        return self._shared.pending.get(at) if number == len(self._logs) else self._readers[number](at)

    def place(self, index: int) -> str:
        """Where an entry is, in words."""
        number = self._number(index)
        at = index - self._starts[number]
        if number == len(self._starts) - 1 and number == len(self._logs):
            return f"outbox {at}"
        return f"entry {at}" if self._logs[number][0] is self._shared else f"own log, entry {at}"

    def _number(self, index: int) -> int:
        return max(number for number, start in enumerate(self._starts) if start <= index)


def _blocks(store: BlockStore) -> Iterator[BlockRow]:
    after = 0
    while rows := store.blocks(after):
        yield from (BlockRow(*row) for row in rows)
        after = rows[-1].height


def _committed(store: BlockStore, consensus: Consensus) -> int | None:
    """The size of the log at the last commit, when there is more of it: blocks of a state that is being taken over.

    Of what was taken over no checkpoint is signed before all of it is there.
    """
    last = store.block_at(consensus.height) if consensus.height else None
    if consensus.height and (last is None or last.hash != consensus.app_hash):
        return None
    size = 0 if last is None else last.size
    signed = max((at for at, _ in store.last_checkpoints(1)), default=0)
    return size if signed <= size < store.size() else None


def _lie(row: Proved) -> Evidence:
    return Evidence(KINDS[row.kind], row.detail, row.node, row.height, row.time_ns // 1000)


def _join_faults(
    former: LogAudit | None, shared: SharedLogAudit, store: LedgerStore, own: bytes, solo: tuple[Path, Trust] | None
) -> Iterator[Finding]:
    """Whether what this member stated of its own log when it joined is what that log holds."""
    joined = _join(shared, store, own)
    if joined is None:
        return
    stated = joined.terms
    tree = former.report.frontier if former is not None else None
    size, root = (tree.size, tree.root()) if tree is not None else (0, sha256().digest())
    said = Checkpoint(str(stated["o"]), int(str(stated["s"])), bytes(stated["r"]))  # type: ignore[arg-type]
    if (said.size, said.root) != (size, root) or (solo is not None and size and said.origin != solo[1].origin):
        what = f"it holds {size} entries and is not the log of {said.size} with which this node joined"
        yield Finding("own log", what)


def _join(shared: SharedLogAudit, store: LedgerStore, own: bytes) -> Entry | None:
    """This member's ledger.join: its first entry, in the log or still waiting."""
    assert isinstance(store, BlockStore)
    first = store.entry_of(own, 0)
    if first is None:
        return next((said for said in shared.pending.values() if said.type == "ledger.join"), None)
    try:
        return entry.read(first.envelope)
    except LedgerError:
        return None
