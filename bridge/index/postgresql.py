"""The index's PostgreSQL database: creation, reading, the writers' lock, and what became of a commit without an answer.

Writers take turns as they do over SQLite, by a row of `writing` that each transaction changes first: so numbers of rows
and of closed batches are seen in the order in which they were given. Nothing weaker than synchronous_commit=on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import Connection as Session
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.pool import QueuePool

from bridge.errors import ConfigError
from bridge.index import schema
from bridge.index.database import ID_FILE, PostgresqlPlace, Rows, Watch, Writing, renewed_epoch
from bridge.index.postgresql_connection import (
    SCHEMA,
    Connection,
    Pool,
    connect,
    faults,
)
from bridge.index.postgresql_statements import compiled
from bridge.index.postgresql_writing import LOCK, TABLE, PostgresqlWatch, PostgresqlWriting
from bridge.index.replica_schema import metadata

_HOME: Final = "home"
_HAS_INDEX: Final = f"SELECT to_regclass('{SCHEMA}.meta')"
_ANOTHERS: Final = f"index.url: this database holds the index of another CAIRN_HOME (see its {ID_FILE})"
_LONG_S: Final = 6 * 3600.0
_CREATION_LOCK: Final = 0x636169726E  # "cairn"


class PostgresqlDatabase:
    """`bridge.index.database.Database` in the schema "cairn" of a PostgreSQL database, made when it is not there.

    One database belongs to one CAIRN_HOME, which holds its keys and packs.
    """

    def __init__(self, place: PostgresqlPlace) -> None:
        self._place = place
        self._pool = Pool(place.url)
        self.engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(place.url),
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=2,
            pool_timeout=20,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            hide_parameters=True,
            use_native_hstore=False,
        )
        try:
            with faults():
                self._open()
            self.epoch: bytes = self._meta(schema.EPOCH)
        except BaseException:
            self.close()
            raise

    def rows(self, text: str, parameters: dict[str, Any]) -> list[Any]:
        """As the protocol; asked again when the connection was lost before it answered."""
        statement = compiled(text)
        return self._pool.ask(lambda connection: connection.execute(statement, parameters, binary=True).fetchall())

    @contextmanager
    def moment(self) -> Iterator[Rows]:
        """As the protocol."""

        def begin(connection: Connection) -> None:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

        with self._pool.borrowed(begin) as (connection, _):
            yield lambda text, parameters: connection.execute(compiled(text), parameters, binary=True).fetchall()
            connection.execute("COMMIT")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """As the protocol."""
        with faults(), self.engine.connect() as connection:
            yield connection

    def writing(self) -> Writing:
        """As the protocol."""
        return PostgresqlWriting(self._place.url)

    def watch(self) -> Watch:
        """As the protocol."""
        return PostgresqlWatch(self._place.url)

    def renew_epoch_below(self, batch: int) -> bool:
        """As the protocol."""
        with faults(), self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            connection.execute(text(LOCK.decode()))
            epoch = renewed_epoch(connection, batch)
            if epoch is None:
                return False
            connection.commit()
            self.epoch = epoch
            return True

    def empty_log(self) -> None:
        """As the protocol. A row goes when no transaction, of whatever database there, may see it any more."""
        with faults():
            connection = connect(self._place.url, limit=_LONG_S)
            try:
                connection.execute("SET statement_timeout = 0")
                for table in metadata.sorted_tables:
                    connection.execute(f'VACUUM {SCHEMA}."{table.name}"'.encode(), prepare=False)
            finally:
                connection.close()

    def problems(self) -> list[str]:
        """As the protocol: every row is read, with what is stored beside it; indexes and constraints are valid."""
        found = []
        with faults():
            connection = connect(self._place.url, limit=_LONG_S)
            try:
                connection.execute("SET statement_timeout = 0")
                for table in metadata.sorted_tables:
                    found += _unreadable(connection, table.name)
                found += [f"index {name} is not valid" for (name,) in connection.execute(_INVALID, [SCHEMA])]
            finally:
                connection.close()
        return found

    @contextmanager
    def filling(self) -> Iterator[Session]:
        """A transaction that writes while nobody else does; to be committed."""
        with faults(), self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            connection.execute(text(LOCK.decode()))
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield connection

    def close(self) -> None:
        """As the protocol."""
        self.engine.dispose()
        self._pool.close()

    def _open(self) -> None:
        with self.engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
            if connection.exec_driver_sql("SHOW fsync").scalar_one() != "on":
                raise ConfigError("index.url: this PostgreSQL runs with fsync off and would lose what it acknowledged")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})")
            if connection.exec_driver_sql(_HAS_INDEX).scalar_one() is None:
                self._create(connection)
            else:
                self._check(connection)
            connection.commit()

    def _create(self, connection: Session) -> None:
        former = self._place.home / "index.db"
        if former.exists():
            raise ConfigError(
                f"index.url: {former} holds this node's index; `cairn backup` it and `cairn restore` that with this URL"
            )
        connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        metadata.create_all(connection, checkfirst=False)
        for statement in TABLE:
            connection.exec_driver_sql(statement)
        home = {"name": _HOME, "value": own_id(self._place.home, make=True)}
        connection.execute(insert(schema.meta), [*schema.first_rows(), home])

    def _check(self, connection: Session) -> None:
        """Refuse another node's index, and tables of another version."""
        found = connection.execute(select(schema.meta.c.name, schema.meta.c.value))
        values = {row.name: row.value for row in found}
        if values.get(_HOME) != own_id(self._place.home, make=False):
            raise ConfigError(_ANOTHERS)
        if values.get(schema.SCHEMA_VERSION) != str(schema.VERSION).encode():
            raise ConfigError(
                "index.url: the tables in this database are of another version of Cairn: `cairn backup` the node with"
                " that version, and `cairn restore` it with this one into an empty CAIRN_HOME and an empty database"
            )

    def _meta(self, name: str) -> bytes:
        with self.reading() as connection:
            value: bytes = connection.execute(
                select(schema.meta.c.value).where(schema.meta.c.name == name)
            ).scalar_one()
            return value


_INVALID: Final = (
    "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND NOT (i.indisvalid AND i.indisready)"
)


def set_aside(place: PostgresqlPlace, name: str) -> bool:
    """Rename the schema that holds a node's index, so that a new one can be made; False when there was none.

    Raises ConfigError when it is another node's, or this role may not, and StorageFault.
    """
    with faults():
        connection = connect(place.url)
        try:
            if connection.execute(_HAS_INDEX).fetchone() == (None,):
                return False
            held = connection.execute("SELECT value FROM meta WHERE name = %s", [_HOME]).fetchone()
            if held is None or held[0] != own_id(place.home, make=False):
                raise ConfigError(_ANOTHERS)
            connection.execute(f"ALTER SCHEMA {SCHEMA} RENAME TO {name}".encode())
        finally:
            connection.close()
    return True


def _unreadable(connection: Connection, table: str) -> list[str]:
    try:
        connection.execute(f"SELECT sum(length(t::text)) FROM {table} AS t".encode())
    except psycopg.Error as error:
        if connection.is_lost:
            raise
        return [f"table {table} cannot be read whole ({error.sqlstate})"]
    return []


def own_id(home: Path, *, make: bool) -> bytes | None:
    """The 16 bytes that say whose index a database holds; None when there are none and `make` does not ask for them."""
    path = home / ID_FILE
    try:
        return bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        if not make:
            return None
    value = os.urandom(16)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(value.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return value
