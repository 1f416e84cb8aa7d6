"""The ledger of this node, verified whole: the recipe of `ledger.verify` over the files it lies in.

Besides the recipe's steps: the database's pages are as the ledger wrote them, its structure is sound, its columns say
what the envelopes say. What the database or a file answers with an error is a finding, too.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path

from ledger import entry, wal
from ledger.engine.solo import DATABASE
from ledger.entry import Entry
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.keys import PublicKey
from ledger.page_digests import PageDigests
from ledger.source import Cursor, RecordSource
from ledger.store import SCHEMA, LedgerStore, StoredEntry, digests_path, lock, row, wal_path
from ledger.tile_files import CHECKPOINT, TileFiles
from ledger.verify import LogReader, LogReport, Trust, verify_log, verify_records, verify_tiles

#: Told how many entries are verified, of how many.
Progress = Callable[[int, int], None]


def audit(
    home: Path,
    public_key: PublicKey,
    origin: str,
    source: RecordSource | None = None,
    progress: Progress | None = None,
    trust: Trust | None = None,
    now_us: int | None = None,
) -> list[Finding]:
    """Every finding about the ledger below `home`; empty when all of it holds. Changes nothing.

    `trust` is for a node whose ledger or node id do not follow from key and origin; `now_us` is the clock's
    microseconds unless given. Writers wait while the files are read, not while they are checked. What `source` raises
    goes through, but for RecordUnreadable.
    """
    known = trust or Trust.solo(public_key, origin)
    now = time.time_ns() // 1000 if now_us is None else now_us
    database = home / DATABASE
    if not database.is_file():
        return [Finding(DATABASE, "it is missing")]
    log = _Log(home, known, progress)
    with ExitStack() as held:
        try:
            with _writers_waiting(database):
                log.read_files()
                store = held.enter_context(closing(LedgerStore(database, readonly=True)))
                held.enter_context(store.snapshot())
            log.check(store)
        except _UNREADABLE as error:
            return [*log.findings, Finding(DATABASE, f"it cannot be read: {error}")]
        if source is not None:
            current = log.current(source.epoch())
            log.findings += verify_records(source, log.cursor, log.report, log.verified(store), current, now)
    return log.findings


# What a damaged database makes of reading it: its own errors, and values of another type than the schema's.
_UNREADABLE = (LedgerError, OSError, TypeError, ValueError)


class _Log:
    """The checks of one ledger's files, and what they leave for the check of the records."""

    def __init__(self, home: Path, trust: Trust, progress: Progress | None) -> None:
        self._home, self._trust, self._progress = home, trust, progress
        self.findings: list[Finding] = []
        self.report = LogReport()
        self.cursor = Cursor(b"", 0)
        self._unverified: set[int] = set()
        self._digested: bytes | None = None
        self._published: str | None = None
        self._commits = 0
        self._tiles: list[tuple[str, bytes]] = []
        self._epochs: dict[bytes, list[int]] = {}

    def current(self, epoch: bytes) -> list[int]:
        """The indices of the entries made under an epoch of the source."""
        return self._epochs.get(epoch, [])

    def verified(self, store: LedgerStore) -> Callable[[int], Entry | None]:
        """A reader of entries by index that gives None for those that did not verify."""

        def read(index: int) -> Entry | None:
            stored = None if index in self._unverified else store.entry(index)
            return entry.read(stored.envelope) if stored else None

        return read

    def read_files(self) -> None:
        """The write-ahead log against its checksums, the pages against their digests; digests of the published files.

        No more than reading, since writers wait.
        """
        database = self._home / DATABASE
        log = wal_path(database)
        held = wal.read(log.read_bytes() if log.exists() else b"")
        if held.fault:
            self.findings.append(Finding(log.name, held.fault))
        self._commits = held.commits
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

    def check(self, store: LedgerStore) -> None:
        """Structure, rows, the recipe's steps 1 to 7."""
        self.findings += [Finding(DATABASE, line) for line in store.integrity()]
        if self._digested not in (None, store.state_digest()):
            self.findings.append(Finding(DATABASE, "the page digests are of another state"))
        if store.schema() != [statement for statement in SCHEMA if statement.startswith("CREATE")]:
            self.findings.append(Finding(DATABASE, "its tables are not those of a ledger"))
        total = store.size()
        # Closed before the database is, also when the recipe stops before their ends.
        with closing(store.all_entries()) as entries, closing(store.checkpoints()) as checkpoints:
            rows = _Rows(entries)
            self.report = verify_log(
                rows.envelopes(), checkpoints, self._trust, lambda *seen: self._visit(rows.last, total, *seen)
            )
        self.findings += self.report.findings
        self._check_state(store)
        self._check_files(store)

    def _visit(self, stored: StoredEntry, total: int, index: int, envelope: bytes, said: Entry | None) -> None:
        if said is None:
            self._unverified.add(index)
        else:
            expected = row(index, envelope, said, Cursor(stored.epoch, stored.batch), stored.records)
            for name, value, wanted in zip(StoredEntry._fields, stored, expected, strict=True):
                if type(value) is not type(wanted) or value != wanted:
                    self.findings.append(Finding(f"entry {index}", f"column {name} is not what its envelope says"))
        self._epochs.setdefault(stored.epoch, []).append(index)
        if self._progress:
            self._progress(index + 1, total)

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
        if self._published not in known:
            what = "it is missing" if self._published is None else "it is not the checkpoint that the log ends with"
            self.findings.append(Finding(CHECKPOINT, what))
        reader = LogReader(size, store.leaves, store.envelopes, self.report.nodes)
        self.findings += verify_tiles(reader, known.get(self._published or "", size), self._tiles)


class _Rows:
    """Stored rows in order, remembering the one whose envelope was handed out last."""

    def __init__(self, rows: Iterator[StoredEntry]) -> None:
        self._rows = rows
        self.last: StoredEntry

    def envelopes(self) -> Iterator[bytes]:
        for stored in self._rows:
            self.last = stored
            yield stored.envelope if type(stored.envelope) is bytes else b""


def _writers_waiting(database: Path) -> AbstractContextManager[None]:
    """The writers' lock; none where the files cannot be written, for there is no writer either."""
    return lock(database) if os.access(database.parent, os.W_OK) else nullcontext()
