"""All rows of an index from one kind of database to the other, as one moment has them.

A backup holds the index as an SQLite file, wherever the node keeps it; so a backup can be restored into either.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Table, delete, insert, select

from bridge.errors import ConfigError
from bridge.index import schema
from bridge.index.database import Database, PostgresqlPlace
from bridge.index.replica_schema import metadata
from bridge.index.sqlite import SqliteDatabase, faults, remove

__all__ = ["copy_in", "copy_out"]

_AT_ONCE: Final = 1000
_ITS_OWN: Final = "home"
"""The row of `meta` that says whose a database of PostgreSQL is; the only one that is not copied."""


def copy_out(source: Database, target: Path) -> None:
    """Write an index to a new SQLite file, while others write to the source.

    The file holds all of it or is not complete: give it its name afterwards. Raises StorageFault, StorageFull, Busy.
    """
    remove(target)
    with closing(SqliteDatabase(target)) as fresh:
        with source.reading() as reading, faults(), fresh.engine.connect() as writing:
            writing.exec_driver_sql("BEGIN IMMEDIATE")
            _copy(reading, writing)
            writing.commit()
        fresh.as_one_file()
    remove(target, file=False)


def copy_in(source: Path, place: PostgresqlPlace) -> None:
    """Fill an empty database of PostgreSQL with the rows of an SQLite file, in one transaction; the file is left.

    A file of a former version is brought to this one first. Raises ConfigError when the database is not empty.
    """
    from bridge.index.postgresql import PostgresqlDatabase

    with (
        closing(SqliteDatabase(source)) as file,
        closing(PostgresqlDatabase(place)) as database,
        file.reading() as reading,
        database.filling() as writing,
    ):
        if writing.execute(select(schema.patient.c.id).limit(1)).first() is not None:
            raise ConfigError("index.url: this database is not empty; restore into an empty one")
        _copy(reading, writing)
        writing.commit()


def _copy(source: Connection, target: Connection) -> None:
    for table in metadata.sorted_tables:
        own = (table.c.name != _ITS_OWN,) if table is schema.meta else ()
        target.execute(delete(table).where(*own))
        rows = source.execution_options(yield_per=_AT_ONCE).execute(select(table).where(*own))
        for part in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in part])
    for table in metadata.sorted_tables:
        if (last := _last_id(source, table)) is not None:
            _go_on_after(target, table, last)


def _last_id(connection: Connection, table: Table) -> int | None:
    """The last id that a table has given, also to a row that is gone; None when it gave none or gives none."""
    column = table.autoincrement_column
    if column is None:
        return None
    if connection.dialect.name == "postgresql":
        return _one(connection, f"SELECT last_value FROM {_sequence(table)} WHERE is_called")
    return _one(connection, f"SELECT seq FROM sqlite_sequence WHERE name = '{table.name}'") or _one(
        connection, f"SELECT max({column.name}) FROM {table.name}"
    )


def _go_on_after(connection: Connection, table: Table, last: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT setval('{_sequence(table)}', {last})")
    else:
        connection.exec_driver_sql(f"UPDATE sqlite_sequence SET seq = {last} WHERE name = '{table.name}'")


def _sequence(table: Table) -> str:
    column = table.autoincrement_column
    assert column is not None
    return f"{table.name}_{column.name}_seq"


def _one(connection: Connection, statement: str) -> int | None:
    found: int | None = connection.exec_driver_sql(statement).scalar()
    return found
