"""What the index asks of its database, SQLite (`bridge.index.sqlite`) or PostgreSQL (`bridge.index.postgresql`).

Statements are made with SQLAlchemy Core and compiled once (`sql`): the hot ones run as text on the driver's cursor,
since building and compiling a construct costs more than running it. The text is SQLite's; PostgreSQL looks up the
construct that it was made from, and compiles that for itself. Which of the two it is, is decided when a database is
opened and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import ClauseElement, Connection, Table, func, select, update
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from bridge.errors import CairnError, ConfigError
from bridge.index import schema

Rows = Callable[[str, dict[str, Any]], list[Any]]
"""(compiled statement, parameters) -> its rows."""
Construct = tuple[ClauseElement, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class PostgresqlPlace:
    """Where the index of a node lies: a libpq connection URI, never to be shown, and the node's CAIRN_HOME."""

    url: str = field(repr=False)
    home: Path


ID_FILE: Final = "index.id"
"""Beside CAIRN_HOME's packs when the index is in PostgreSQL: which one it is; the same is written in the database."""

Place = Path | PostgresqlPlace
"""SQLite's file, or a database of PostgreSQL."""

_DIALECT: Final = SQLiteDialect_pysqlite(paramstyle="named")
_CONSTRUCTS: Final[dict[str, Construct]] = {}


def sql(statement: ClauseElement, columns: Iterable[str] | None = None) -> str:
    """The statement's text, its parameters named (":study"), as SQLite runs it and as its name for PostgreSQL.

    `columns` are those that an INSERT or UPDATE sets from parameters of their names (an INSERT: all, by default).
    A constant in the statement would become a parameter that nobody gives, so it is refused: write it as a literal.
    """
    keys = None if columns is None else tuple(columns)
    compiled: Any = statement.compile(dialect=_DIALECT, column_keys=None if keys is None else list(keys))
    constants = [name for name, bound in compiled.binds.items() if not bound.required]
    if constants:
        raise ValueError(f"constants among the parameters: {constants}")
    text = str(compiled)
    _CONSTRUCTS[text] = (statement, keys)
    return text


def construct_of(text: str) -> Construct:
    """What `sql` made a text of, and the columns that were given."""
    return _CONSTRUCTS[text]


def columns_but_id(table: Table) -> list[str]:
    """The columns of a row whose id the database gives."""
    return [column.name for column in table.columns if column.name != "id"]


class Cursor(Protocol):
    """A cursor of the open transaction: PEP 249, as far as the index needs it."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""

    @property
    def lastrowid(self) -> int | None:
        """The id of the row that the last INSERT added; to be asked once."""

    def execute(self, text: str, parameters: Any = ..., /) -> Cursor:
        """Run a statement."""

    def executemany(self, text: str, parameters: Any, /) -> Cursor:
        """Run a statement for each of many parameters."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Writing(Protocol):
    """The connection of the one thread per process that writes: `begin`, statements, `commit`; `end` in any case."""

    @property
    def cursor(self) -> Cursor:
        """Of the transaction that is open."""

    @property
    def is_intact(self) -> bool:
        """Whether the transaction is still open: some failures end all of it, not one statement."""

    def begin(self, meanwhile: Callable[[], None]) -> bool:
        """Take the lock between processes, begin; whether anybody else has written since the last time.

        When another process holds the lock, `meanwhile` is called before waiting; what it raises is raised.
        """

    def commit(self, refuse: Callable[[CairnError], bool]) -> None:
        """Make all of it durable and visible.

        When the answer is lost with the connection, it is waited for until it is known whether that came to pass;
        meanwhile `refuse` is called now and then, to be told why; it says whether to wait any longer.
        """

    def end(self) -> None:
        """Undo what was not committed, and release the lock."""

    def told(self, error: Exception) -> Exception:
        """A driver's operational error as one of ours; any other is a bug, and passes."""

    def close(self) -> None:
        """Release the connection."""


class Watch(Protocol):
    """Tells whether anything was committed, by any process."""

    def version(self) -> int:
        """A number that any commit changes. Raises StorageFault."""

    def close(self) -> None:
        """Release what it holds."""


class Database(Protocol):
    """An open database. Thread-safe; opened after a fork, not before. Every method may raise StorageFault or Busy."""

    epoch: bytes
    """Begun anew when numbers of batches are given a second time."""

    def rows(self, text: str, parameters: dict[str, Any]) -> list[Any]:
        """The rows of one compiled statement, in a transaction of its own."""

    def moment(self) -> AbstractContextManager[Rows]:
        """Several compiled statements in one read transaction, each called as `rows`."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A read transaction of its own: one consistent state, the newest committed."""

    def writing(self) -> Writing:
        """A connection for the thread that writes."""

    def watch(self) -> Watch:
        """What caches are kept by."""

    def renew_epoch_below(self, batch: int) -> bool:
        """Begin a new epoch when batches up to `batch` were closed once and are gone; whether that was so.

        Numbers that are given again would otherwise be taken for sealed.
        """

    def empty_log(self) -> None:
        """Have what was deleted leave what the database keeps beside its tables, as far as it can be had.

        SQLite's write-ahead log is cut; PostgreSQL's rows are vacuumed, and its own log and old files are its
        administrator's. Raises Busy while it is read: to be done again.
        """

    def problems(self) -> list[str]:
        """What the database itself finds wrong with its files and references. Reads all of it."""

    def close(self) -> None:
        """Close all connections."""


def open_database(place: Place) -> Database:
    """Open an index's database, which is made when there is none.

    Raises ConfigError when it is of another version, or of another node, StorageFault or StorageFull when it cannot be
    opened.
    """
    if isinstance(place, Path):
        from bridge.index.sqlite import SqliteDatabase

        if place.with_name(ID_FILE).exists() and not place.exists():
            raise ConfigError(f"this node's index is in PostgreSQL ({ID_FILE} is there): index.url must say where")
        return SqliteDatabase(place)
    try:
        from bridge.index.postgresql import PostgresqlDatabase
    except ImportError as error:
        raise ConfigError("index.url: for PostgreSQL install cairn-pacs[postgresql]") from error
    return PostgresqlDatabase(place)


def renewed_epoch(connection: Connection, batch: int) -> bytes | None:
    """Within a transaction: the new epoch, when batches up to `batch` were closed once and are gone; else None."""
    last = connection.execute(select(func.max(schema.batch.c.closed_seq))).scalar() or 0
    if last >= batch:
        return None
    epoch = os.urandom(16)
    connection.execute(update(schema.meta).where(schema.meta.c.name == schema.EPOCH).values(value=epoch))
    return epoch


def former_version(found: bytes, known: Iterable[int]) -> int | None:
    """The version that the tables are of when that is not this one. Raises ConfigError for one that is not known."""
    if found == str(schema.VERSION).encode():
        return None
    version = int(found) if found.isdigit() else 0
    if version not in known:
        raise ConfigError("the index database was made by another version of Cairn")
    return version
