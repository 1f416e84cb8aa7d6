"""The ledger of this node, verified whole: the recipe of `ledger.verify` over the files it lies in.

Besides the recipe's steps: the database's pages are as the ledger wrote them, its structure is sound, its columns say
what the envelopes say. What the database or a file answers with an error is a finding, too.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from itertools import chain, count
from pathlib import Path

from ledger import entry, journal, wal
from ledger.engine.solo import DATABASE, JOURNAL
from ledger.entry import Entry, leaf_hash
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.keys import PublicKey
from ledger.page_digests import PageDigests
from ledger.run_reader import Bounds, Reader, Reading, RunReaders, SoundRows, bounds, column_faults, result
from ledger.source import Cursor, RecordSource
from ledger.store import LedgerStore, StoredEntry, digests_path, lock, wal_path
from ledger.tile_files import CHECKPOINT, TileFiles
from ledger.verify import LogCheck, LogReader, LogReport, Trust, verify_records, verify_tiles

#: Told how many entries are verified, of how many.
Progress = Callable[[int, int], None]

RUN = 2048  # entries that a process reads at a time
_ALONE = 8 * 1024 * 1024  # bytes of database up to which starting processes would take longer than they save


def audit(
    home: Path,
    public_key: PublicKey,
    origin: str,
    source: RecordSource | None = None,
    progress: Progress | None = None,
    trust: Trust | None = None,
    now_us: int | None = None,
    signatures: bool = True,
    processes: int | None = None,
    run: int = RUN,
    progress_of_records: Progress | None = None,
) -> list[Finding]:
    """Every finding about the ledger below `home`; empty when all of it holds. Changes nothing.

    Parameters
    ----------
    source
        The records, which are checked against the entries when they are given. What it raises goes through, but for
        RecordUnreadable.
    progress, progress_of_records
        Told how many entries, and the records of how many entries, are checked, of how many.
    trust
        For a node whose ledger or node id do not follow from key and origin.
    now_us
        The clock's microseconds unless given.
    signatures
        False: hashes alone. Each envelope is hashed into the tree, and that is compared with its signed checkpoints,
        but entries' own signatures, the columns and the records are left out.
    processes, run
        How many processes read runs of so many entries; unless given, as many as there are processors, and for a log
        of a few runs none but this. What is found does not depend on it.

    Writers wait while the files are read, not while they are checked.
    """
    now = time.time_ns() // 1000 if now_us is None else now_us
    log = LogAudit(home, trust or Trust.solo(public_key, origin), progress, signatures)
    with ExitStack() as held:
        store = log.read(held, processes, run)
        if store is not None and source is not None and signatures:
            current = log.current(source.epoch())
            verified = log.verified(store, counted(progress_of_records, len(log.report.roots)))
            log.findings += verify_records(source, log.cursor, log.report, verified, current, now)
    return log.findings


def counted(progress: Progress | None, total: int) -> Callable[[], None]:
    """Tells a progress how often it was called, of how many times."""
    done = count(1)
    return lambda: progress(next(done), total) if progress else None


# What a damaged database makes of reading it: its own errors, and values of another type than the schema's.
_UNREADABLE = (LedgerError, OSError, TypeError, ValueError)


class LogAudit:
    """The checks of one ledger's files, and what they leave for the check of the records."""

    def __init__(self, home: Path, trust: Trust, progress: Progress | None, signatures: bool) -> None:
        self._home, self._trust, self._progress, self._signatures = home, trust, progress, signatures
        self.database = home / DATABASE
        self.findings: list[Finding] = []
        self.report = LogReport()
        self.cursor = Cursor(b"", 0)
        self._unverified: set[int] = set()
        self._digested: bytes | None = None
        self._published: str | None = None
        self._commits = 0
        self._tiles: list[tuple[str, bytes]] = []
        self._epochs: dict[bytes, list[range]] = {}

    def read(self, held: ExitStack, processes: int | None, run: int) -> LedgerStore | None:
        """Check all but the records; the database as it was checked, open while `held` is, None when it cannot be."""
        if not self.database.is_file():
            self.findings.append(Finding(DATABASE, "it is missing"))
            return None
        readers = self._readers(held, processes, run)
        try:
            with _writers_waiting(self.database):
                self.read_files()
                store = held.enter_context(closing(self._open()))
                held.enter_context(store.snapshot())
            self._check(store, readers, run)
        except _UNREADABLE as error:
            self.findings.append(Finding(DATABASE, f"it cannot be read: {error}"))
            return None
        return store

    def _open(self) -> LedgerStore:
        return LedgerStore(self.database, readonly=True)

    def _readers(self, held: ExitStack, processes: int | None, run: int) -> RunReaders | None:
        if processes is None:
            processes = len(os.sched_getaffinity(0)) if self.database.stat().st_size > _ALONE else 1
        if processes == 1:
            return None
        return held.enter_context(closing(RunReaders(self.database, self._reading(run), processes)))

    def _reading(self, run: int) -> Reading:
        return Reading(self._trust, self._signatures, run)

    def current(self, epoch: bytes) -> Iterator[int]:
        """The indices of the entries made under an epoch of the source."""
        return chain.from_iterable(self._epochs.get(epoch, []))

    def verified(self, store: LedgerStore, told: Callable[[], None]) -> Callable[[int], Entry | None]:
        """A reader of entries by index, None for those that did not verify; it tells of each that it reads."""

        def read(index: int) -> Entry | None:
            told()
            stored = None if index in self._unverified else store.entry(index)
            try:
                return entry.read(stored.envelope) if stored else None
            except LedgerError:  # found with the log, under the index that its neighbours leave it
                return None

        return read

    def read_files(self) -> None:
        """The write-ahead log against its checksums, the pages against their digests; digests of the published files.

        No more than reading, since writers wait.
        """
        database = self.database
        log = wal_path(database)
        held = wal.read(log.read_bytes() if log.exists() else b"")
        if held.fault:
            self.findings.append(Finding(log.name, held.fault))
        self._commits = held.commits
        wrong = journal.fault(database.with_name(JOURNAL))
        if wrong:
            self.findings.append(Finding(JOURNAL, wrong))
        digests = PageDigests(digests_path(database))
        self.findings += [Finding(DATABASE, what) for what in digests.mismatches(database, held.pages)]
        if not held.pages:
            self._digested = digests.state()
        files = TileFiles(self._home)
        self._tiles = [(path, hashlib.sha256(file.read_bytes()).digest()) for path, file in files.files()]
        try:
            self._published = files.checkpoint()
        except UnicodeDecodeError:
            self._published = ""

    def _check(self, store: LedgerStore, readers: RunReaders | None, run: int) -> None:
        """Structure, rows, the recipe's steps 1 to 7; the structure not of hashes alone, where pages are enough."""
        asked = readers.structure() if readers is not None and self._signatures else None
        check = self._begun(store)
        try:
            self._read_all(store, check, readers, run)
        finally:
            # First, for what is wrong with the structure explains the rest.
            structure = None if asked is None else result(asked)
            if structure is None:
                structure = store.integrity() if self._signatures else []
            self.findings += self._structure(store, structure) + check.report.findings
        self.report = check.report
        self._check_state(store)
        self._check_files(store)

    def _begun(self, store: LedgerStore) -> LogCheck:
        return LogCheck(self._trust, self._signatures)

    def _read_all(self, store: LedgerStore, check: LogCheck, readers: RunReaders | None, run: int) -> None:
        total = store.size()
        runs = bounds(total, run)
        alone = Reader(store, self._reading(run))
        found = readers.read(runs[:-1]) if readers else map(alone.read, runs[:-1])
        # The last by this connection: others see what was added meanwhile.
        self._read_log(store, check, zip(runs, chain(found, map(alone.read, runs[-1:])), strict=True), total)

    def _structure(self, store: LedgerStore, lines: list[str]) -> list[Finding]:
        findings = [Finding(DATABASE, line) for line in lines]
        if self._digested not in (None, store.state_digest()):
            findings.append(Finding(DATABASE, "the page digests are of another state"))
        if sorted(store.schema()) != sorted(one for one in store.statements() if one.startswith("CREATE")):
            findings.append(Finding(DATABASE, "its tables are not those of a ledger"))
        return findings

    def _read_log(
        self, store: LedgerStore, check: LogCheck, runs: Iterable[tuple[Bounds, SoundRows | None]], total: int
    ) -> None:
        """Steps 1 to 6: a run that a process found sound is taken over, any other is read here, entry by entry."""
        # Closed before the database is, also when this stops before its end.
        with closing(store.checkpoints()) as checkpoints:
            due = Due(checkpoints)
            due.checked(check)
            for of, found in runs:
                if found is not None and check.sound(found.run):
                    due.passed(check.report.frontier.size)
                    self._accept(found, check.report.frontier.size, total)
                    continue
                with closing(store.all_entries(*of)) as rows:
                    for stored in rows:
                        envelope = stored.envelope if type(stored.envelope) is bytes else b""
                        said = check.entry(envelope)
                        due.checked(check)
                        self.visit(check, stored, total, envelope, said)
            check.end(due.size)

    def _accept(self, found: SoundRows, size: int, total: int) -> None:
        at = size - found.run.size
        if self._progress:
            for done in range(at, size):
                self._progress(done + 1, total)
        for epoch, made in found.epochs:
            self._made_under(epoch, at, made)
            at += made

    def visit(self, check: LogCheck, stored: StoredEntry, total: int, envelope: bytes, said: Entry | None) -> None:
        """A row beside its envelope, as it was read into the check."""
        index = check.report.frontier.size - 1
        if said is None:
            self._unverified.add(index)
            if stored.leaf != leaf_hash(envelope) and not self._signatures:
                check.report.findings.append(Finding(f"entry {index}", _COLUMN.format("leaf")))
        else:
            for name in column_faults(stored, index, envelope, said):
                check.report.findings.append(Finding(f"entry {index}", _COLUMN.format(name)))
        self._made_under(stored.epoch, index, 1)
        if self._progress:
            self._progress(index + 1, total)

    def _made_under(self, epoch: bytes, index: int, count: int) -> None:
        stretches = self._epochs.setdefault(epoch, [])
        if stretches and stretches[-1].stop == index:
            stretches[-1] = range(stretches[-1].start, index + count)
        else:
            stretches.append(range(index, index + count))

    def _check_state(self, store: LedgerStore) -> None:
        state = store.state()
        self.cursor = state.cursor
        if (state.frontier.size, state.frontier.hashes) != (self.report.frontier.size, self.report.frontier.hashes):
            self.findings.append(Finding("frontier", "it is not that of the entries"))
        for last in store.entries(limit=1, descending=True):
            if last.epoch == state.cursor.epoch and last.batch > state.cursor.id:
                self.findings.append(Finding("cursor", f"it is before the last entry's batch {last.batch}"))

    def _check_files(self, store: LedgerStore) -> None:
        size = self.report.frontier.size
        # The file follows the commits, but is no older than the write-ahead log: it is written before that is emptied.
        known = {note: at for at, note in store.last_checkpoints(self._commits + 1)}
        if self._published is None and not self._tiles and len(known) <= self._commits:
            return  # all of the log is in the write-ahead log: its first files follow in a moment
        size_of_file = self._size_published(store, known)
        if size_of_file is None:
            what = "it is missing" if self._published is None else "it is not the checkpoint that the log ends with"
            self.findings.append(Finding(CHECKPOINT, what))
        reader = LogReader(size, store.leaves, store.envelopes, self.report.nodes, self.report.digests)
        self.findings += verify_tiles(reader, size if size_of_file is None else size_of_file, self._tiles)

    def _size_published(self, store: LedgerStore, known: Mapping[str, int]) -> int | None:
        """The size of the published checkpoint; None when it is none of those that may be published now."""
        return known.get(self._published or "")


class Due:
    """Stored checkpoints in order, each to be taken when the log has grown to its size."""

    def __init__(self, checkpoints: Iterator[tuple[int, str]]) -> None:
        self._checkpoints = checkpoints
        self._next = next(checkpoints, None)

    @property
    def size(self) -> int | None:
        """The size of the next one; None when there is none left."""
        return None if self._next is None else self._next[0]

    def checked(self, check: LogCheck) -> None:
        """Check those that the log has reached."""
        while self._next is not None and self._next[0] <= check.report.frontier.size:
            check.checkpoint(*self._next)
            self._next = next(self._checkpoints, None)

    def passed(self, size: int) -> None:
        """Leave out those up to a size: they were checked with the run that led there."""
        while self._next is not None and self._next[0] <= size:
            self._next = next(self._checkpoints, None)


_COLUMN = "column {} is not what its envelope says"


def _writers_waiting(database: Path) -> AbstractContextManager[None]:
    """The writers' lock; none where the files cannot be written, for there is no writer either."""
    return lock(database) if os.access(database.parent, os.W_OK) else nullcontext()
