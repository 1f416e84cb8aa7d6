"""An index from SQLite to PostgreSQL and back: every row as it was, ids go on, nothing that is there is overwritten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.index.aside import set_aside
from bridge.index.database import PostgresqlPlace, open_database
from bridge.index.index import SqlIndex
from bridge.index.transfer import copy_in, copy_out
from bridge.model import BatchClosing, BlockPosition
from tests.contract.index import batch, unit
from tests.postgresql_server import PostgresqlServer


@pytest.fixture
def empty(postgresql: PostgresqlServer, tmp_path: Path) -> PostgresqlPlace:
    """A database, for the node of another home than the file's."""
    (tmp_path / "home").mkdir()
    return PostgresqlPlace(postgresql.fresh(), tmp_path / "home")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """An SQLite index with something in most tables."""
    index = SqlIndex(tmp_path / "index.db", "test", lambda: None)
    for study in range(3):
        into = batch(f"1.2.{study}")
        for number in range(3):
            blocks = [
                BlockPosition(bytes([study, number, n]) * 12, 1, study * 1000 + number * 100 + n, 9) for n in range(3)
            ]
            name = f"Müller^{number}=\\%_*?[" if study else ""
            one = unit((f"1.2.{study}", "1.3", f"1.4.{number}"), into, blocks=tuple(blocks), PatientName=name)
            index.commit(one).result()
        if study:
            root = bytes([study]) * 36
            closed = BatchClosing(9, 3, bytes(32), root, (b"page",), 3, bytes(16), bytes(32))
            index.close_batch(into, closed).result()
    index.content_state.report({"kubo": "does not answer"}, 7)
    index.followed.advance("shares", 12)
    index.close()
    yield tmp_path / "index.db"


def rows_of(path: Path) -> dict[str, list[object]]:
    """Every row of every table, as SQLite has it."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for (name,) in names}


def test_every_row_comes_back_as_it_was(file: Path, empty: PostgresqlPlace, tmp_path: Path) -> None:
    copy_in(file, empty)
    with closing(open_database(empty)) as database:
        copy_out(database, tmp_path / "back.db")
    assert rows_of(tmp_path / "back.db") == rows_of(file)
    assert [path.name for path in tmp_path.glob("back.db*")] == ["back.db"]


def test_ids_go_on_where_they_were(file: Path, empty: PostgresqlPlace) -> None:
    copy_in(file, empty)
    index = SqlIndex(empty, "test", lambda: None)
    before = max(stored.id for stored, _ in index.instances())
    new = index.commit(unit(("1.9", "1.9.1", "1.9.2"), batch("1.9"))).result()
    assert new.instance == before + 1
    assert index.check() == []
    index.close()


def test_a_database_that_holds_something_is_not_filled(file: Path, empty: PostgresqlPlace) -> None:
    copy_in(file, empty)
    with pytest.raises(ConfigError):
        copy_in(file, empty)


def test_a_database_belongs_to_one_home(empty: PostgresqlPlace, tmp_path: Path) -> None:
    open_database(empty).close()
    open_database(empty).close()
    (tmp_path / "other").mkdir()
    other = PostgresqlPlace(empty.url, tmp_path / "other")
    for refused in (lambda: open_database(other), lambda: set_aside(other)):
        with pytest.raises(ConfigError):
            refused()


def test_a_home_whose_index_is_elsewhere_gets_no_second_one(file: Path, empty: PostgresqlPlace, tmp_path: Path) -> None:
    open_database(empty).close()
    with pytest.raises(ConfigError):
        open_database(empty.home / "index.db")
    with pytest.raises(ConfigError):
        open_database(PostgresqlPlace(empty.url, tmp_path))


def test_an_index_that_was_set_aside_makes_room_for_a_new_one(file: Path, empty: PostgresqlPlace) -> None:
    copy_in(file, empty)
    named = set_aside(empty)
    assert named is not None and named.startswith("the schema cairn_")
    assert set_aside(empty) is None
    with closing(SqlIndex(empty, "test", lambda: None)) as index:
        assert index.counts()["instances"] == 0
    copy_in(file, empty)
