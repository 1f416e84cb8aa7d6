"""A data directory of a former version is opened, serves what it held, and takes more."""

from __future__ import annotations

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from bridge.config import Content, Settings
from bridge.content import cid as cids
from bridge.crypto.keystore import open_keystore
from bridge.errors import ConfigError
from bridge.index import migration
from bridge.index.grants import Grants
from bridge.index.record_source import SqlRecordSource
from bridge.index.sqlite import SqliteDatabase
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.fsck import fsck
from ledger import terms
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_store import read, store

HOMES = Path(__file__).parents[2] / "data" / "homes"
ROOT = "bafyr4icfpnfjgizqwmh3dk4la5cho3oujunzdsifbg2mk2mdxt7yz6yldm"


def former(version: int, tmp_path: Path) -> Path:
    """A home of this version of the schema."""
    with tarfile.open(HOMES / f"index-schema-{version}.tar.xz") as archive:
        archive.extractall(tmp_path / "home", filter="data")
    return tmp_path / "home"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return former(1, tmp_path)


def shape(path: Path) -> dict[str, object]:
    """The tables and indexes of a database, whatever the order of their columns."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            table: [
                sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({table})")),
                sorted(row[2:] for row in connection.execute(f"PRAGMA foreign_key_list({table})")),
                sorted(
                    (name, unique, [column for _, _, column in connection.execute(f"PRAGMA index_info({name})")])
                    for _, name, unique, *_ in connection.execute(f"PRAGMA index_list({table})")
                ),
            ]
            for table in tables
        }


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_migrated_database_has_the_shape_of_a_new_one(tmp_path: Path, version: int) -> None:
    home = former(version, tmp_path)
    SqliteDatabase(home / "index.db").close()
    SqliteDatabase(tmp_path / "new.db").close()
    assert shape(home / "index.db") == shape(tmp_path / "new.db")


def test_what_a_former_version_stored_is_served_and_its_tree_grows_on(home: Path) -> None:
    node = Node(Settings(home=home, content=Content(reserve_bytes=0)), open_keystore(home), "command")
    try:
        (tree,) = node.index.trees.of_study("1.2.1")
        tag = node.keys.study_key("1.2.1").tag
        assert (tree.study, tree.origin, tree.tag, tree.covered) == ("1.2.1", None, tag, 3)
        assert tree.root is not None and cids.to_text(tree.root) == ROOT
        held = node.retrieve.locate("1.2.1")
        assert [read(node, one)[-128:] for one in held] == [bytes([fill, 0]) * 64 for fill in (1, 2, 3)]
        assert [one.study_tag for one in held] == [tag] * 3
        assert [token.study for token in node.tokens.list()] == [None]
        store(node, part10(instance(study="1.2.1")))
        (grown,) = node.index.trees.of_study("1.2.1")
        assert (grown.id, grown.covered) == (tree.id, 4) and grown.root != tree.root
        assert fsck(node, lambda _: None) == []
    finally:
        node.close()


def test_a_migration_that_fails_leaves_the_former_database(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shape(home / "index.db")
    whole = migration.STEPS[1]

    def failing(connection: object) -> None:
        whole(connection)  # type: ignore[arg-type]
        raise ConfigError("no further")

    monkeypatch.setitem(migration.STEPS, 1, failing)
    with pytest.raises(ConfigError):
        SqliteDatabase(home / "index.db")
    assert shape(home / "index.db") == before
    monkeypatch.undo()
    database = SqliteDatabase(home / "index.db")
    assert database.rows("SELECT count(*) FROM tree", {}) == [(2,)]
    database.close()


def test_batches_of_version_2_state_nothing_and_new_ones_may(tmp_path: Path) -> None:
    home = former(2, tmp_path)
    node = Node(Settings(home=home, content=Content(reserve_bytes=0)), open_keystore(home), "command")
    source = SqlRecordSource(home / "index.db", lambda what, text: bytes(16))
    try:
        assert [(batch.body, batch.refs) for batch in source.closed_batches(0, 10)] == [(None, ())] * 4
        assert [study for study, _ in Grants(node.index.database).roots_for("h1", 0)] == ["1.2.1"]
        assert len(node.retrieve.locate("1.2.1")) == 3
        node.statements.make("gov.vote", OPERATOR, {"y": True}, [bytes(32)])
        (batch,) = source.closed_batches(4, 10)
        assert batch.refs == (bytes(32),) and batch.body == terms.encode("gov.vote", {"y": True})
        assert fsck(node, lambda _: None) == []
    finally:
        source.close()
        node.close()


def test_shares_and_replicas_of_version_3_stand(tmp_path: Path) -> None:
    home = former(3, tmp_path)
    node = Node(Settings(home=home, content=Content(reserve_bytes=0)), open_keystore(home), "command")
    try:
        (given,), (received,) = node.index.shares.all_given(), node.index.shares.all_received()
        assert (given.state, given.receipt, given.refused) == ("delivered", bytes([3]) * 32, None)
        assert (received.state, received.told) == ("granted", None)
        assert node.index.shares.note(given.grant, refused="the blocks")
        assert [row.refused for row in node.index.shares.all_given()] == ["the blocks"]
        assert len(node.index.replicas_out.all()) == len(node.index.replicas_in.all()) == 1
        assert fsck(node, lambda _: None) == []
    finally:
        node.close()
