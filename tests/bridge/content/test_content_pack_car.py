"""A tree as a CAR from the packs: the right blocks, few reads, little memory, whatever is damaged or gone."""

import os
import tracemalloc

import pytest

from bridge.content import car, dag, pack_car
from bridge.content import cid as cids
from bridge.content.packs import PackStore
from bridge.errors import ContentMissing
from tests.contract.content_store import Study, block, blocks, file_of, node_of


class CountingPacks(PackStore):
    """Packs that tell which stretches were read."""

    def __init__(self, home, **options):
        self.index = {}
        super().__init__(home, "test", self.index.get, **options)
        self.stretches = []

    def read(self, pack, offset, length):
        self.stretches.append((pack, offset, length))
        return super().read(pack, offset, length)

    def take(self, given):
        self.index.update({position.cid: position for position in self.put(given)})
        self.sync()


@pytest.fixture
def packs(tmp_path):
    packs = CountingPacks(tmp_path)
    yield packs
    packs.close()


def read(pieces):
    data = b"".join(pieces)
    at = 0

    def take(most):
        nonlocal at
        piece = data[at : at + most]
        at += len(piece)
        return piece

    reader = car.CarReader(take)
    return reader.roots, [(one.cid, one.data) for one in reader]


def test_the_car_holds_every_block_of_the_tree_once_and_its_root_first(packs):
    study = Study()
    packs.take(blocks(3))  # of another study
    for count in (5, 600, 3):
        packs.take(study.add(count))
        packs.take(blocks(2))
    roots, found = read(pack_car.pieces(study.root, packs, packs.get))
    assert roots == (study.root,)
    assert sorted(found) == sorted((one.cid, one.data) for one in dag.walk(study.root, packs.get))


def test_in_the_trees_order_when_each_block_is_verified(packs):
    study = Study()
    packs.take(study.add(20))
    _, found = read(pack_car.pieces(study.root, packs, packs.get, verified=True))
    assert found == [(one.cid, one.data) for one in dag.walk(study.root, packs.get)]
    assert not packs.stretches


def test_what_is_skipped_is_left_out(packs):
    study = Study()
    packs.take(study.add(3))
    former = study.root
    new = study.add(1)
    packs.take(new)
    common = dag.shared(study.root, former, packs.get)
    _, found = read(pack_car.pieces(study.root, packs, packs.get, common.__contains__))
    assert sorted(found) == sorted((one.cid, one.data) for one in new)


def test_leaves_that_lie_together_are_read_together_in_pieces_of_256_kib(packs):
    file = file_of(8)
    packs.take(file)
    pieces = list(pack_car.pieces(file[-1].cid, packs, packs.get))
    assert len(packs.stretches) == len(pieces) == 8 * 4 + 1
    assert packs.stretches == sorted(packs.stretches)


def test_small_blocks_are_read_and_sent_together(packs):
    study = Study()
    packs.take(study.add(300))
    assert len(list(pack_car.pieces(study.root, packs, packs.get))) == 1
    assert len(packs.stretches) <= 4


@pytest.mark.parametrize("gone", ["removed", "cut"])
def test_what_the_packs_no_longer_hold_is_had_elsewhere(tmp_path, gone):
    packs = CountingPacks(tmp_path, pack_bytes=3 << 20)
    file = file_of(9)
    for one in file:
        packs.take([one])
    elsewhere = {one.cid: bytes(one.data) for one in file}
    path = tmp_path / "packs/00000001.car"
    if gone == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - (1 << 20) - 300_000)
    asked = []

    def get(cid):
        asked.append(cid)
        return elsewhere[cid]

    _, found = read(pack_car.pieces(file[-1].cid, packs, get))
    assert dict(found) == elsewhere
    assert len(found) == len(file)
    there = {one.cid for one in file if packs.position(one.cid).pack == 1}
    assert set(asked) <= there | {file[-1].cid}
    packs.close()


def test_a_block_that_nobody_has_is_named(packs):
    lost = block(b"lost")
    root = node_of(lost.cid)
    packs.take([root])
    with pytest.raises(ContentMissing, match=cids.to_text(lost.cid)):
        list(pack_car.pieces(root.cid, packs, packs.get))


def test_a_large_tree_takes_little_memory(packs):
    file = file_of(100)
    packs.take(file)
    root = file[-1].cid
    del file
    tracemalloc.start()
    try:
        size = sum(map(len, pack_car.pieces(root, packs, packs.get)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 100 << 20
    assert peak < 4 << 20
