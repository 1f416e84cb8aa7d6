"""The index's SQLite database: connections, the writers' lock between processes, creation, faults in our own words.

WAL, synchronous=FULL, secure_delete=ON.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, create_engine, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from bridge.errors import Busy, CairnError, DatabaseDamaged, StorageFault, StorageFull
from bridge.index import migration, schema
from bridge.index.database import Rows, Writing, former_version, renewed_epoch

log = logging.getLogger(__name__)
_WAIT_S: Final = 20.0
_READERS_MS: Final = 1000
_NEVER: Final = -1


def translate(error: Exception) -> CairnError:
    """A driver's error as ours: StorageFull, Busy, DatabaseDamaged, StorageFault; names no path and no value."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "") or type(cause).__name__
    if name == "SQLITE_FULL":
        return StorageFull("the index database cannot grow")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy("the index database is locked by another program")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseDamaged(f"the index database is damaged ({name})")
    return StorageFault(f"the index database failed ({name})")


@contextmanager
def faults() -> Iterator[None]:
    """Let no driver's operational error out untranslated; a broken constraint or statement is a bug and passes."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        raise translate(error) from error
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise translate(error) from error


def remove(path: Path, *, file: bool = True) -> None:
    """Remove a database that nobody has open; with `file` False what lies beside it alone."""
    for suffix in ("", "-wal", "-shm", ".lock") if file else ("-wal", "-shm", ".lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class SqliteDatabase:
    """`bridge.index.database.Database` in one SQLite file, made on first use.

    Parameters
    ----------
    path
        The database's file; `<path>.lock` beside it is the writers' lock.
    trace
        Called with each SQL text that a connection runs (for counting in tests).
    """

    def __init__(self, path: Path, trace: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._trace = trace
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # SQLite gives its journals the database's mode: make it before SQLite does, with the umask's default.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._idle: deque[sqlite3.Connection] = deque()
        self.engine = create_engine(
            "sqlite://", creator=self.connect, poolclass=QueuePool, pool_size=8, max_overflow=64, paramstyle="named"
        )
        try:
            with faults(), self._locked():
                self._create()
            self.epoch = self._read_epoch()
        except BaseException:
            self.close()
            raise

    def connect(self) -> sqlite3.Connection:
        """A new connection that begins no transaction by itself."""
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        if self._trace is not None:
            connection.set_trace_callback(self._trace)
        return connection

    def lock(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Take the writers' lock: wait for it as long as it takes, fairly, where SQLite's own waiting stalls.

        When another process holds it, `meanwhile` is called before waiting; what it raises is raised.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            meanwhile()
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let others write."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """As the protocol."""
        with faults(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def rows(self, text: str, parameters: dict[str, Any]) -> list[Any]:
        """As the protocol.

        Its connections are kept apart from the engine's pool, whose checking out and resetting cost more than most
        lookups: they never hold a transaction, so there is nothing to reset.
        """
        with self._borrowed() as connection:
            return connection.execute(text, parameters).fetchall()

    @contextmanager
    def moment(self) -> Iterator[Rows]:
        """As the protocol."""
        with self._borrowed() as connection:
            connection.execute("BEGIN")
            yield lambda text, parameters: connection.execute(text, parameters).fetchall()
            connection.execute("COMMIT")

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with faults():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self.connect()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)

    def writing(self) -> Writing:
        """As the protocol."""
        return _SqliteWriting(self)

    def watch(self) -> _SqliteWatch:
        """As the protocol."""
        return _SqliteWatch(self.connect())

    def renew_epoch_below(self, batch: int) -> bool:
        """As the protocol."""
        with faults(), self._locked(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            epoch = renewed_epoch(connection, batch)
            if epoch is None:
                return False
            connection.commit()
            self.epoch = epoch
            return True

    def empty_log(self) -> None:
        """As the protocol."""
        with faults(), closing(self.connect()) as connection, self._locked():
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")  # nobody can write meanwhile
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Busy("the index database is being read; its log could not be emptied")

    def problems(self) -> list[str]:
        """As the protocol: SQLite's integrity and foreign key checks."""
        found = [str(problem) for (problem,) in self.rows("PRAGMA integrity_check", {}) if problem != "ok"]
        broken = self.rows("PRAGMA foreign_key_check", {})
        return found + [f"a row of {table} refers to a missing row of {parent}" for table, _, parent, _ in broken]

    def as_one_file(self) -> None:
        """Write everything into the file itself, so that it can be copied alone; nobody else has it open."""
        self.engine.dispose()
        with faults(), closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()

    def close(self) -> None:
        """As the protocol; and the lock."""
        self.engine.dispose()
        while self._idle:
            self._idle.pop().close()
        os.close(self._lock)

    def _create(self) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema WHERE name = 'meta'").scalar_one()
            if tables:
                self._migrate(connection)
                return
            schema.metadata.create_all(connection, checkfirst=False)
            connection.execute(insert(schema.meta), schema.first_rows())
            connection.commit()

    def _migrate(self, connection: Connection) -> None:
        """Bring the tables to this version, all or nothing. Raises ConfigError for a version that is not known."""
        row = schema.meta.c.name == schema.SCHEMA_VERSION
        found = connection.execute(select(schema.meta.c.value).where(row)).scalar() or b""
        version = former_version(found, migration.STEPS)
        if version is None:
            return
        log.warning("the index database is brought to this version of Cairn", extra={"version": version})
        while version < schema.VERSION:
            migration.STEPS[version](connection)
            version += 1
        connection.execute(update(schema.meta).where(row).values(value=str(version).encode()))
        connection.commit()

    def _read_epoch(self) -> bytes:
        with self.reading() as connection:
            epoch: bytes = connection.execute(
                select(schema.meta.c.value).where(schema.meta.c.name == schema.EPOCH)
            ).scalar_one()
            return epoch


class _SqliteWriting:
    """`bridge.index.database.Writing` in WAL: the lock file, then BEGIN IMMEDIATE."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._connection = database.connect()
        # Every commit touches pages all over the indexes: room for those of a large archive, and fewer checkpoints.
        self._connection.execute("PRAGMA cache_size = -16384")
        self._connection.execute("PRAGMA wal_autocheckpoint = 4000")
        self._version = _NEVER
        self.cursor = self._connection.cursor()

    @property
    def is_intact(self) -> bool:
        """As the protocol: SQLite rolls the whole transaction back when the disk is full or fails."""
        return self._connection.in_transaction

    def begin(self, meanwhile: Callable[[], None]) -> bool:
        """As the protocol."""
        self._database.lock(meanwhile)
        self.cursor = self._connection.cursor()
        self.cursor.execute("BEGIN IMMEDIATE")
        version = self.cursor.execute("PRAGMA data_version").fetchone()[0]
        others: bool = version != self._version
        self._version = version
        return others

    def commit(self, refuse: Callable[[CairnError], bool]) -> None:
        """As the protocol; nothing is ever lost on the way to a file."""
        self.cursor.execute("COMMIT")

    def end(self) -> None:
        """As the protocol."""
        self.cursor.close()
        try:
            if self._connection.in_transaction:
                self._connection.rollback()
        finally:
            self._database.unlock()

    def told(self, error: Exception) -> Exception:
        """As the protocol."""
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
        ):
            told = translate(error)
            told.__cause__ = error
            return told
        return error

    def close(self) -> None:
        """As the protocol."""
        self._connection.close()


class _SqliteWatch:
    """`bridge.index.database.Watch`: PRAGMA data_version, which any commit by another connection moves."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def version(self) -> int:
        """As the protocol."""
        try:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise translate(error) from error
        return version

    def close(self) -> None:
        """As the protocol."""
        self._connection.close()
