"""The log as others read it: whatever is sealed is proved, from tiles or from the database, by many threads at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from pydicom.uid import generate_uid

from bridge.errors import NotFound, StorageFault
from bridge.index.record_leaves import RecordPlace
from bridge.ledger_log import LedgerFiles, _pyramid
from bridge.ledger_reading import ledger_home, record_source
from bridge.node import Node
from ledger import checkpoint, entry, merkle, proof, record, tiles
from ledger.proof import Proved
from ledger.source import RecordLeaf
from tests.bridge.services.conftest import SENDER, instance, part10
from tests.bridge.services.test_ledger_reading import seal
from tests.bridge.services.test_store import store
from tests.contract.ledger_log import LedgerLogContract


def records(node: Node) -> list[list[RecordLeaf]]:
    """The records of each closed batch, in the order of closing."""
    with closing(record_source(node.settings, node.keys, node.keystore)) as source:
        return [list(source.records(batch.id)) for batch in source.closed_batches(0, 100)]


def verify(node: Node, text: str) -> Proved:
    key = checkpoint.parse_vkey(node.log.key())
    return proof.verify(text, key.name, key.key)


@pytest.fixture
def node(open_node: Callable[[], Node]) -> Node:
    """A node with three sealed entries."""
    made = open_node()
    for _ in range(3):
        store(made, part10(instance()))
    assert seal(made) == 3
    return made


class TestLedgerFiles(LedgerLogContract):
    @pytest.fixture
    def empty(self, open_node: Callable[[], Node]) -> LedgerFiles:
        return open_node().log

    @pytest.fixture
    def sealed(self, open_node: Callable[[], Node]) -> tuple[LedgerFiles, list[list[bytes]]]:
        made = open_node()
        for _ in range(2):
            store(made, part10(instance()))
        study = generate_uid()
        with made.store.reception(SENDER) as reception:
            for _ in range(3):
                incoming = reception.begin(None)
                incoming.write(part10(instance(study=study)))
                incoming.commit()
        assert seal(made) == 3
        return made.log, [[item.leaf for item in held] for held in records(made)]


def test_every_entry_and_every_record_is_proved(node: Node) -> None:
    for index, held in enumerate(records(node)):
        for item in held:
            proved = verify(node, node.log.prove(item.leaf))
            assert (proved.index, proved.record_leaf) == (index, item.leaf)
            assert proved.record is not None and item.record is not None
            assert record.encode(proved.record) == item.record
            alone = verify(node, node.log.prove(proved.leaf))
            assert (alone.index, alone.leaf, alone.record_leaf) == (index, proved.leaf, None)
            assert entry.leaf_hash(node.log.envelope(proved.leaf)) == proved.leaf


def test_a_record_whose_key_is_gone_is_proved_by_its_leaf_hash_alone(node: Node) -> None:
    study = records(node)[0]
    [uid] = {row.study for row in [node.log._leaves.find(study[0].leaf)] if row is not None}
    assert uid is not None and node.keys.delete(uid)
    proved = verify(node, node.log.prove(study[0].leaf))
    assert (proved.record_leaf, proved.record) == (study[0].leaf, None)


def test_a_record_that_waits_for_its_entry_is_not_found_yet(node: Node) -> None:
    store(node, part10(instance()))
    waiting = records(node)[-1][0].leaf
    with pytest.raises(NotFound, match="waits for its entry"):
        node.log.prove(waiting)
    assert seal(node) == 1
    assert verify(node, node.log.prove(waiting)).index == 3


def test_proofs_and_tiles_come_from_the_database_while_files_are_missing(node: Node) -> None:
    leaf = records(node)[1][0].leaf
    paths = [tile.path() for tile in tiles.tiles(3)]
    files = {path: node.log.file(path) for path in paths}
    proofs = node.log.prove(leaf), node.log.consistency(1, 3)
    shutil.rmtree(ledger_home(node.settings) / "tile")
    node.log._tiles.clear()
    assert {path: node.log.file(path) for path in paths} == files
    assert (node.log.prove(leaf), node.log.consistency(1, 3)) == proofs


def test_a_torn_tile_is_passed_over(node: Node) -> None:
    leaf = records(node)[1][0].leaf
    proved = node.log.prove(leaf)
    path = ledger_home(node.settings) / "tile/0/000.p/3"
    for torn in (bytes(96), path.read_bytes()[:40], b""):
        path.write_bytes(torn)
        node.log._tiles.clear()
        assert node.log.prove(leaf) == proved


def test_records_are_found_by_the_trail_as_far_as_it_follows_and_behind_it_in_the_index(node: Node) -> None:
    assert node.audit.follow() == 3
    store(node, part10(instance()))
    assert seal(node) == 1
    looked: list[int] = []
    find = node.log._leaves.find

    def counted(leaf: bytes, after: int = 0) -> RecordPlace | None:
        looked.append(after)
        return find(leaf, after)

    node.log._leaves.find = counted  # type: ignore[method-assign]
    for index, held in enumerate(records(node)):
        for item in held:
            assert verify(node, node.log.prove(item.leaf)).index == index
    assert set(looked) == {3}
    with pytest.raises(NotFound):
        node.log.prove(bytes(32))
    assert set(looked) == {3}


def test_without_the_trail_records_are_found_in_the_index_alone(node: Node) -> None:
    def damaged(leaf: bytes) -> tuple[list[int], int]:
        raise StorageFault("audit.db is damaged")

    node.log._places = damaged
    for index, held in enumerate(records(node)):
        for item in held:
            assert verify(node, node.log.prove(item.leaf)).index == index


def test_a_damaged_database_is_a_storage_fault(node: Node) -> None:
    database = ledger_home(node.settings) / "ledger.db"
    shutil.copy(database, database.with_suffix(".aside"))
    database.write_bytes(b"not a database" * 1000)
    fresh = LedgerFiles(
        ledger_home(node.settings),
        "x",
        bytes(32),
        node.log._leaves,
        lambda study, sealed: None,  # type: ignore[arg-type]
    )
    with pytest.raises(StorageFault):
        fresh.prove(bytes(32))
    shutil.move(database.with_suffix(".aside"), database)


def test_many_threads_prove_at_once(node: Node) -> None:
    leaves = [item.leaf for held in records(node) for item in held]

    def work(number: int) -> bytes | None:
        return verify(node, node.log.prove(leaves[number % len(leaves)])).record_leaf

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(200))) == [leaves[number % len(leaves)] for number in range(200)]


def test_a_tiles_pyramid_holds_each_perfect_subtree_at_its_place() -> None:
    leaves = [merkle.leaf_hash(b"%d" % number) for number in range(300)]
    for width in (1, 2, 3, 127, 128, 129, 255, 256):
        rows = _pyramid(b"".join(leaves[:width]), width)
        start, full, level = 0, 256, 0
        while full:
            for at in range(width >> level):
                assert rows[start + at] == merkle.root(leaves[at << level : (at + 1) << level])
            start, full, level = start + full, full >> 1, level + 1
