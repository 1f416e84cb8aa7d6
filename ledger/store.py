"""The ledger's database: entries, frontier, cursor and checkpoints in SQLite, committed together.

One process writes (it takes `<db>.lock` before each transaction); any number read. Nothing is ever deleted or changed
but the one state row. The write-ahead log is checkpointed by `settle` alone (see `ledger.page_digests`), so nobody else
may open the database for writing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from ledger import wal
from ledger.entry import Entry, leaf_hash
from ledger.errors import LedgerError, NotMadeYet, TreeMismatch, store_fault
from ledger.merkle import HASH_SIZE, Frontier
from ledger.page_digests import PAGE_SIZE, PageDigests
from ledger.source import Cursor

APPLICATION_ID = 0x4361524C  # "CaRL", in the header of the file
_CACHE_KIB = 32 * 1024  # of the writer: what is new goes to pages all over the two indexes
_BUSY_MS = 10_000  # how long a lock of SQLite's own is waited for

# Hashes are looked up segment by segment, so that new ones go to the few pages of the newest: in an index over all of
# them each would change a page of its own, and a transaction write 4 KiB for each.
SEGMENT = "idx / 16384"
_INDEXES = (
    f"CREATE UNIQUE INDEX entries_leaf ON entries ({SEGMENT}, leaf)",
    f"CREATE UNIQUE INDEX entries_root ON entries ({SEGMENT}, root)",
    "CREATE UNIQUE INDEX entries_batch ON entries (epoch, batch)",
)
SEGMENTS = f"""WITH RECURSIVE segment (number) AS (
    SELECT {SEGMENT} FROM entries WHERE idx = (SELECT max(idx) FROM entries)
    UNION ALL SELECT number - 1 FROM segment WHERE number > 0)"""

SCHEMA = (
    """CREATE TABLE entries (
        idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, envelope BLOB NOT NULL, node BLOB NOT NULL, seq INTEGER NOT NULL,
        type TEXT NOT NULL, time INTEGER NOT NULL, purpose TEXT NOT NULL, outcome INTEGER NOT NULL, study BLOB,
        actor BLOB NOT NULL, root BLOB NOT NULL, epoch BLOB NOT NULL, batch INTEGER NOT NULL,
        records INTEGER NOT NULL)""",
    *_INDEXES,
    "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL)",
    """CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, frontier BLOB NOT NULL,
        epoch BLOB NOT NULL, batch INTEGER NOT NULL)""",
    "INSERT INTO state VALUES (1, 0, x'', x'', 0)",
)
_COLUMNS = "idx, leaf, envelope, node, seq, type, time, purpose, outcome, study, actor, root, epoch, batch, records"


_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * 15)})"


class StoredEntry(NamedTuple):
    """A row: `idx`, its index in the log, leaf, envelope, and what the envelope says in columns for searching.

    `root` is the records root; `epoch` and `batch` say which closed batch it is of, `records` how many records that has
    (neither is in the envelope).
    """

    idx: int
    leaf: bytes
    envelope: bytes
    node: bytes
    sequence: int
    type: str
    time_us: int
    purpose: str
    outcome: int
    study: bytes | None
    actor: bytes
    root: bytes
    epoch: bytes
    batch: int
    records: int


FOREIGN = Cursor(b"", 0)
"""The batch of an entry that is of no batch of this node: another member's in the shared log, or the engine's own."""


class State(NamedTuple):
    """The frontier of the tree and the cursor in the source."""

    frontier: Frontier
    cursor: Cursor


def row(idx: int, envelope: bytes, said: Entry, batch: Cursor, records: int) -> StoredEntry:
    """The row of an envelope, its columns taken from the entry in it."""
    return StoredEntry(
        idx,
        leaf_hash(envelope),
        envelope,
        said.node,
        said.sequence,
        said.type,
        said.time_us,
        said.purpose,
        said.outcome,
        said.study,
        said.who.tag,
        said.records_root,
        batch.epoch,
        batch.id,
        records,
    )


class LedgerStore:
    """The database at `path`, created when it is not there (unless `readonly`).

    Every method raises StoreFault when the database fails or is damaged, OSError when a file beside it does. One thread
    at a time.
    """

    #: of the tables and indexes, in the header of the file, and those that have the tables read here
    VERSION, READ = 3, frozenset({3, 4})

    def __init__(self, path: Path, readonly: bool = False) -> None:
        self._path = path
        self._digested = b"", 0  # header and length of the write-ahead log whose pages are digested
        self._log = wal_path(path)
        self._digests = PageDigests(digests_path(path))
        #: how many transactions the write-ahead log held when it was opened for writing: more than none after a crash
        self.left = 0
        self._lock: int | None = None
        self._name = os.urandom(16)  # who held the writers' lock last writes it there
        self._others_held = True
        self._seen: int | None = None  # the version of the data when `changed` was asked last
        self._stamp: tuple[int, int] | None = None  # of the write-ahead log when `touched` was asked last
        # Read-only connections must be so for SQLite too: one that could write would checkpoint when it closes.
        mode = "mode=ro" if readonly else "mode=rwc"
        if readonly and not os.access(path.parent, os.W_OK) and not self.log_size():
            mode += "&immutable=1"  # a copy on a medium where SQLite cannot make its shared memory
        if not readonly:
            self.left = self._refuse_damaged_log().commits
        address = f"{path.absolute().as_uri()}?{mode}"
        with _faults(path):
            self._connection = sqlite3.connect(
                address, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000
            )
        try:
            if readonly:
                self._check_identity()
            else:
                self._open_for_writing()
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Release the connection; `settle` first, so that nothing is left for SQLite to checkpoint on its own."""
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def size(self) -> int:
        """How many entries the log holds."""
        return int(self._one("SELECT size FROM state")[0])

    def checkpoint(self, size: int | None = None) -> str | None:
        """The signed checkpoint of that size, the newest when none is given; None when there is none."""
        if size is None:
            found = self._one("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")
        else:
            found = self._one("SELECT note FROM checkpoints WHERE size = ?", size)
        return str(found[0]) if found else None

    def checkpoints(self, after: int | None = None, until: int | None = None) -> Generator[tuple[int, str]]:
        """Every checkpoint that was signed, by size; of sizes above `after`, up to `until`."""
        where = _between("size > ?", after, "size <= ?", until)
        yield from self._rows(f"SELECT size, note FROM checkpoints {where} ORDER BY size", *_given(after, until))

    def last_checkpoints(self, count: int) -> list[tuple[int, str]]:
        """The newest checkpoints with their sizes, newest first."""
        return list(self._rows("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT ?", count))

    def state(self) -> State:
        """Frontier and cursor. Raises TreeMismatch when the frontier is not one of the size."""
        size, packed, epoch, batch = self._one("SELECT size, frontier, epoch, batch FROM state")
        hashes = [packed[at : at + HASH_SIZE] for at in range(0, len(packed), HASH_SIZE)]
        return State(Frontier(size, hashes), Cursor(epoch, batch))

    def entries(self, after: int | None = None, limit: int = 100, descending: bool = False) -> list[StoredEntry]:
        """At most `limit` entries behind index `after` in the order asked for (None: from the start)."""
        where = "" if after is None else f"WHERE idx {'<' if descending else '>'} ?"
        order = "DESC" if descending else "ASC"
        sql = f"SELECT {_COLUMNS} FROM entries {where} ORDER BY idx {order} LIMIT ?"
        return [StoredEntry(*found) for found in self._rows(sql, *([] if after is None else [after]), limit)]

    def first_hashes(
        self, start: int | None, end: int | None, limit: int
    ) -> tuple[list[int], list[bytes], list[bytes]]:
        """Indices, leaves and envelopes of the first entries of indices [start, end), in order, at most `limit`."""
        where = _between("idx >= ?", start, "idx < ?", end)
        found = self._all(
            f"SELECT idx, leaf, envelope FROM entries {where} ORDER BY idx LIMIT ?", *_given(start, end), limit
        )
        return [row[0] for row in found], [row[1] for row in found], [row[2] for row in found]

    def tip(self) -> tuple[int, bytes] | None:
        """Sequence and envelope of the last entry; None when there is none."""
        found = self._one("SELECT seq, envelope FROM entries ORDER BY idx DESC LIMIT 1")
        return (found[0], found[1]) if found else None

    def all_entries(self, start: int | None = None, end: int | None = None) -> Generator[StoredEntry]:
        """Every entry in order, without holding them all; of indices [start, end)."""
        where = _between("idx >= ?", start, "idx < ?", end)
        sql = f"SELECT {_COLUMNS} FROM entries {where} ORDER BY idx"
        yield from map(StoredEntry._make, self._rows(sql, *_given(start, end)))

    def first_of(self, start: int | None, end: int | None, limit: int) -> list[StoredEntry]:
        """The first entries of indices [start, end), in order, at most `limit`."""
        where = _between("idx >= ?", start, "idx < ?", end)
        sql = f"SELECT {_COLUMNS} FROM entries {where} ORDER BY idx LIMIT ?"
        return list(map(StoredEntry._make, self._all(sql, *_given(start, end), limit)))

    def entry(self, index: int) -> StoredEntry | None:
        """The entry at an index of the log."""
        found = self._one(f"SELECT {_COLUMNS} FROM entries WHERE idx = ?", index)
        return StoredEntry(*found) if found else None

    def find(self, *, leaf: bytes | None = None, root: bytes | None = None) -> StoredEntry | None:
        """The entry with this leaf hash (its id), or over this records root."""
        column, value = ("leaf", leaf) if leaf is not None else ("root", root)
        found = self._one(
            f"{SEGMENTS} SELECT {_COLUMNS} FROM segment CROSS JOIN entries ON {SEGMENT} = number AND {column} = ?",
            value,
        )
        return StoredEntry(*found) if found else None

    def made_under(self, epoch: bytes) -> bool:
        """Whether all entries were made under this epoch."""
        sql = "SELECT 1 FROM entries WHERE epoch < ? UNION ALL SELECT 1 FROM entries WHERE epoch > ?"
        return not self._one(sql, epoch, epoch)

    def sealed(self, roots: Sequence[bytes]) -> set[bytes]:
        """Those of the records roots that there is an entry over; at most some thousands."""
        marks = ", ".join("?" * len(roots))
        sql = f"{SEGMENTS} SELECT root FROM segment CROSS JOIN entries ON {SEGMENT} = number AND root IN ({marks})"
        return {root for (root,) in self._rows(sql, *roots)}

    def leaves(self, start: int, end: int) -> list[bytes]:
        """The leaf hashes of indices [start, end)."""
        sql = "SELECT leaf FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [leaf for (leaf,) in self._all(sql, start, end)]

    def envelopes(self, start: int, end: int) -> list[bytes]:
        """The envelopes of indices [start, end)."""
        sql = "SELECT envelope FROM entries WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [envelope for (envelope,) in self._all(sql, start, end)]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writers' lock: whoever holds it finds database, log and files at rest."""
        if self._lock is None:
            self._lock = os.open(lock_path(self._path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            if os.pread(self._lock, len(self._name), 0) != self._name:
                self._others_held = True
                os.pwrite(self._lock, self._name, 0)
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def commit(self, rows: Sequence[StoredEntry], frontier: Frontier, cursor: Cursor, note: str | None) -> None:
        """ONE transaction: entries, frontier, cursor and (when given) the checkpoint; durable when it returns.

        Raises TreeMismatch when the rows do not continue the log up to the frontier's size.
        """
        with self._transaction() as execute:
            self._grow(execute, rows, frontier, note)
            execute("UPDATE state SET epoch = ?, batch = ?", (*cursor,))

    def _grow(
        self, execute: Callable[..., sqlite3.Cursor], rows: Sequence[StoredEntry], frontier: Frontier, note: str | None
    ) -> None:
        """Within a transaction: entries, frontier and checkpoint."""
        if self.size() + len(rows) != frontier.size:
            raise TreeMismatch(f"{len(rows)} entries do not lead from {self.size()} to {frontier.size}")
        self._connection.executemany(_INSERT, rows)
        if note is not None:
            execute("INSERT INTO checkpoints VALUES (?, ?)", (frontier.size, note))
        execute("UPDATE state SET size = ?, frontier = ?", (frontier.size, b"".join(frontier.hashes)))

    def others_held(self) -> bool:
        """Within `writing`: whether others had the writers' lock since this was asked last, or it was not asked before.

        A tenth of the time of `changed`, and tells too of what is written beside the database.
        """
        before, self._others_held = self._others_held, False
        return before

    def changed(self) -> bool:
        """Whether another connection has committed since this was asked last, or it was not asked before."""
        seen, self._seen = self._seen, self._one("PRAGMA data_version")[0]
        return seen != self._seen

    def touched(self) -> bool:
        """Whether the write-ahead log was written to since this was asked last, by this connection or another.

        A tenth of the time of `changed`; but two writes within one tick of the file system's clock may look like one.
        """
        try:
            status = self._log.stat()
            stamp = status.st_size, status.st_mtime_ns
        except FileNotFoundError:
            stamp = None
        before, self._stamp = self._stamp, stamp
        return before != stamp

    def log_size(self) -> int:
        """Bytes in the write-ahead log."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def settle(self) -> bool:
        """Digest what the write-ahead log holds, then move it into the database; under the writers' lock.

        False when a reader keeps the log from being truncated: try again later. Raises TreeMismatch when committed
        parts of the log do not match their checksums.
        """
        size = self.log_size()
        if not size:
            return True
        with wal_path(self._path).open("rb") as log:
            generation = log.read(wal.HEADER_SIZE), size
        if generation != self._digested:
            held = self._refuse_damaged_log()
            newest = {number: versions[-1] for number, versions in held.pages.items()}
            self._digests.update(newest, self.state_digest())
            self._digested = generation
        # Without waiting for readers: whoever seals should not wait for whoever reads.
        self._one("PRAGMA busy_timeout = 0")
        busy, _, _ = self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        self._one(f"PRAGMA busy_timeout = {_BUSY_MS}")
        return not busy

    def integrity(self) -> list[str]:
        """What SQLite's own check of structure, order and indexes says; empty when all is well."""
        lines = [str(line) for (line,) in self._rows("PRAGMA integrity_check")]
        return [] if lines == ["ok"] else lines

    @classmethod
    def statements(cls) -> tuple[str, ...]:
        """What makes the tables and indexes of a new database."""
        return SCHEMA

    def schema(self) -> list[str]:
        """The statements that made the tables and indexes."""
        return [sql for (sql,) in self._rows("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read one state of the database throughout."""
        self._one("BEGIN")
        self.size()  # the state is fixed by the first read
        try:
            yield
        finally:
            # Of a damaged database even this fails; closing ends the transaction as well.
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        execute = self._connection.execute
        with _faults(self._path):
            execute("BEGIN IMMEDIATE")
            try:
                yield execute
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise

    def _one(self, sql: str, *values: object) -> Any:
        with _faults(self._path):
            return self._connection.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: object) -> list[Any]:
        with _faults(self._path):
            return self._connection.execute(sql, values).fetchall()

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        with _faults(self._path):
            yield from self._connection.execute(sql, values)

    def state_digest(self) -> bytes:
        """SHA-256 of the state row, as the page digests name the state they are of."""
        return hashlib.sha256(repr(self._one("SELECT size, frontier, epoch, batch FROM state")).encode()).digest()

    def _refuse_damaged_log(self) -> wal.WriteAheadLog:
        # SQLite would end its reading there in silence, and what was committed behind it would be gone.
        log = wal_path(self._path)
        held = wal.read(log.read_bytes() if log.exists() else b"")
        if held.fault and held.certain:
            raise TreeMismatch(held.fault, log.name)
        return held

    def _check_identity(self) -> None:
        empty = not self._one("SELECT count(*) FROM sqlite_schema")[0]  # first: it may be made between the two reads
        if self._one("PRAGMA application_id")[0] != APPLICATION_ID:
            if empty:
                raise NotMadeYet("nothing is in it yet", self._path.name)
            raise LedgerError("not a ledger database", self._path.name)
        if self._one("PRAGMA user_version")[0] not in self.READ:
            raise LedgerError("a ledger database of another version", self._path.name)

    def _open_for_writing(self) -> None:
        with lock(self._path), _faults(self._path):
            execute = self._connection.execute
            execute(f"PRAGMA page_size = {PAGE_SIZE}")
            execute("PRAGMA synchronous = FULL")
            execute("PRAGMA secure_delete = ON")
            execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            execute("PRAGMA wal_autocheckpoint = 0")
            execute("PRAGMA journal_size_limit = 0")  # no frames of a former generation behind those of this one
            fresh = not self._one("SELECT count(*) FROM sqlite_schema")[0]
            if fresh:
                execute("PRAGMA journal_mode = WAL")
                self._create()
                self._one("PRAGMA wal_checkpoint(TRUNCATE)")
            elif self.VERSION == LedgerStore.VERSION > self._one("PRAGMA user_version")[0] > 0:
                self._renew_indexes()
            self._check_identity()
            if not self.log_size() and self._digests.state() != self.state_digest():
                # New, or the log was checkpointed by other hands (a connection not closed in order): digest anew.
                self._digests.rebuild(self._path, self.state_digest())

    def _renew_indexes(self) -> None:
        """Former versions differ in nothing but their indexes."""
        with self._transaction() as execute:
            for (name,) in self._all("SELECT name FROM sqlite_schema WHERE type = 'index'"):
                execute(f"DROP INDEX {name}")
            for statement in _INDEXES:
                execute(statement)
            execute(f"PRAGMA user_version = {self.VERSION}")

    def _create(self) -> None:
        with self._transaction() as execute:
            for statement in self.statements():
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {self.VERSION}")


def _between(above: str, low: int | None, below: str, high: int | None) -> str:
    """A WHERE of the bounds that are given."""
    conditions = [text for text, bound in ((above, low), (below, high)) if bound is not None]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _given(*bounds: int | None) -> list[int]:
    return [bound for bound in bounds if bound is not None]


@contextmanager
def _faults(database: Path) -> Iterator[None]:
    """SQLite's errors as the ledger's."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_fault(error, database.name) from error


def wal_path(database: Path) -> Path:
    """Where SQLite keeps the write-ahead log."""
    return database.with_name(database.name + "-wal")


def digests_path(database: Path) -> Path:
    """Where the page digests lie."""
    return database.with_name(database.name + "-digests")


def lock_path(database: Path) -> Path:
    """The file that writers lock."""
    return database.with_name(database.name + ".lock")


@contextmanager
def lock(database: Path) -> Iterator[None]:
    """The writers' lock: a blocking flock on `<db>.lock`."""
    with lock_path(database).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
