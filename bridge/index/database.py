"""The index's SQLite database: connections, the writers' lock between processes, creation, faults in our own words.

WAL, synchronous=FULL, secure_delete=ON. Statements are made with SQLAlchemy Core and compiled once (`sql`): the hot
ones run as text on the driver's cursor, since building and compiling a construct costs more than running it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ClauseElement, Connection, Table, create_engine, func, insert, select, update
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from bridge.errors import Busy, CairnError, ConfigError, StorageFault, StorageFull
from bridge.index import migration, schema

log = logging.getLogger(__name__)
_DIALECT: Final = SQLiteDialect_pysqlite(paramstyle="named")
_WAIT_S: Final = 20.0
_EPOCH, _VERSION = "epoch", "schema version"


def sql(statement: ClauseElement, columns: Iterable[str] | None = None) -> str:
    """The statement's text, its parameters named (":study"), for a driver's cursor.

    `columns` are those that an INSERT or UPDATE sets from parameters of their names (an INSERT: all, by default).
    A constant in the statement would become a parameter that nobody gives, so it is refused: write it as a literal.
    """
    compiled: Any = statement.compile(dialect=_DIALECT, column_keys=None if columns is None else list(columns))
    constants = [name for name, bound in compiled.binds.items() if not bound.required]
    if constants:
        raise ValueError(f"constants among the parameters: {constants}")
    return str(compiled)


def columns_but_id(table: Table) -> list[str]:
    """The columns of a row whose id the database gives."""
    return [column.name for column in table.columns if column.name != "id"]


def translate(error: Exception) -> CairnError:
    """A driver's error as ours: StorageFull, Busy or StorageFault; names no path and no value."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = getattr(cause, "sqlite_errorname", "") or type(cause).__name__
    if name == "SQLITE_FULL":
        return StorageFull("the index database cannot grow")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy("the index database is locked by another program")
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


def check(database: Database) -> list[str]:
    """What SQLite's integrity and foreign key checks find; empty for a sound database. Reads all of it."""
    try:
        found = [str(problem) for (problem,) in database.rows("PRAGMA integrity_check", {}) if problem != "ok"]
        broken = database.rows("PRAGMA foreign_key_check", {})
        unserved = database.rows(
            "SELECT count(*) FROM (SELECT 1 FROM instance GROUP BY series, sop HAVING sum(served) <> 1)", {}
        )[0][0]
        homeless = database.rows("SELECT count(*) FROM instance WHERE tree IS NULL", {})[0][0]
    except CairnError as error:
        return [error.detail]
    if homeless:
        found.append(f"{homeless} instances belong to no tree")
    if unserved:
        found.append(f"{unserved} instances have not exactly one version that is served")
    return found + [f"a row of {table} refers to a missing row of {parent}" for table, _, parent, _ in broken]


class Database:
    """One SQLite file, made on first use. Thread-safe; open it after a fork, not before.

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
            with faults(), self.writing():
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

    @contextmanager
    def writing(self, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the writers' lock: wait for it as long as it takes, fairly, where SQLite's own waiting stalls.

        When another process holds it, `meanwhile` is called before waiting; what it raises is raised.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            meanwhile()
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction of its own: one consistent state, the newest committed. Raises StorageFault."""
        with faults(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def rows(self, text: str, parameters: dict[str, Any]) -> list[Any]:
        """The rows of one compiled statement, each in a transaction of its own. Raises StorageFault.

        Its connections are kept apart from the engine's pool, whose checking out and resetting cost more than most
        lookups: they never hold a transaction, so there is nothing to reset.
        """
        with self._borrowed() as connection:
            return connection.execute(text, parameters).fetchall()

    @contextmanager
    def moment(self) -> Iterator[Callable[[str, dict[str, Any]], list[Any]]]:
        """Several compiled statements in one read transaction, each called as `rows`. Raises StorageFault."""
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

    def renew_epoch_below(self, batch: int) -> bool:
        """Begin a new epoch when batches up to `batch` were closed once and are gone; whether that was so.

        Numbers that are given again would otherwise be taken for sealed. Raises StorageFault.
        """
        with faults(), self.writing(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            last = connection.execute(select(func.max(schema.batch.c.closed_seq))).scalar() or 0
            if last >= batch:
                return False
            self.epoch = os.urandom(16)
            connection.execute(update(schema.meta).where(schema.meta.c.name == _EPOCH).values(value=self.epoch))
            connection.commit()
            return True

    def close(self) -> None:
        """Close all pooled connections and the lock."""
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
            values = {_VERSION: str(schema.VERSION).encode(), _EPOCH: os.urandom(16)}
            connection.execute(insert(schema.meta), [{"name": name, "value": value} for name, value in values.items()])
            connection.commit()

    def _migrate(self, connection: Connection) -> None:
        """Bring the tables to this version, all or nothing. Raises ConfigError for a version that is not known."""
        row = schema.meta.c.name == _VERSION
        found = connection.execute(select(schema.meta.c.value).where(row)).scalar() or b""
        if found == str(schema.VERSION).encode():
            return
        version = int(found) if found.isdigit() else 0
        if version not in migration.STEPS:
            raise ConfigError("the index database was made by another version of Cairn")
        log.warning("the index database is brought to this version of Cairn", extra={"version": version})
        while version < schema.VERSION:
            migration.STEPS[version](connection)
            version += 1
        connection.execute(update(schema.meta).where(row).values(value=str(version).encode()))
        connection.commit()

    def _read_epoch(self) -> bytes:
        with self.reading() as connection:
            epoch: bytes = connection.execute(
                select(schema.meta.c.value).where(schema.meta.c.name == _EPOCH)
            ).scalar_one()
            return epoch
