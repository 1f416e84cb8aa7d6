"""Whole trees out and in as CARs, against what a real Kubo answered to the same files (tests/data/ipfs/car.json)."""

import io
import json
import os
from pathlib import Path

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.content import car, manifest, unixfs
from bridge.content import cid as cids
from bridge.content.car_transfer import Car, export_car, import_car, keep
from bridge.content.embedded import EmbeddedStore
from bridge.content.packs import PackStore
from bridge.content.pins import MemoryPins
from bridge.errors import CarInvalid, ContentMissing
from bridge.model import Block

DATA = Path(__file__).parents[2] / "data/ipfs"
KUBO = json.loads((DATA / "car.json").read_text())
ROOT = cids.from_text(KUBO["root"])
STUDY = (DATA / "study.car").read_bytes()
PINNED = [name for name, answer in KUBO["answers"].items() if '"PinErrorMsg":""' in answer["body"]]
REFUSED = [name for name in KUBO["answers"] if name not in PINNED]


class Archive:
    """An embedded store whose index is a dictionary."""

    def __init__(self, home):
        self.home = home
        self.rows = {}
        self.pins = MemoryPins()
        self.packs = PackStore(home, "test", self.rows.get)
        self.store = EmbeddedStore(self.packs, self.pins)

    def placed(self, positions):
        self.rows.update({position.cid: position for position in positions})

    def take(self, data, root=None):
        return import_car(self.store, io.BytesIO(data), self.placed, root)

    def state(self):
        files = {path.name: path.stat().st_size for path in (self.home / "packs").glob("*")}
        return files, dict(self.rows), self.pins.all()


@pytest.fixture
def archive(tmp_path):
    archive = Archive(tmp_path)
    yield archive
    archive.store.close()


def sections(data):
    return [car.section_head(block.cid, len(block.data)) + block.data for block in car.CarReader(io.BytesIO(data).read)]


def of(root, *blocks):
    return car.encode_header([root]) + b"".join(car.section_head(cid, len(data)) + data for cid, data in blocks)


def test_export_gives_the_bytes_of_kubos_export(archive):
    archive.take(STUDY)
    assert b"".join(export_car(archive.store, ROOT)) == STUDY


@pytest.mark.parametrize("name", PINNED)
def test_what_kubo_pins_is_taken_and_comes_out_as_kubo_writes_it(archive, name):
    receipt = archive.take((DATA / name).read_bytes())
    assert receipt.root == ROOT
    assert [pin.root for pin in archive.pins.all()] == [ROOT]
    assert {cids.to_text(cid) for cid in archive.rows} == set(KUBO["blocks"])
    assert b"".join(export_car(archive.store, ROOT)) == STUDY


@pytest.mark.parametrize("name", REFUSED)
def test_what_kubo_does_not_pin_is_refused_and_leaves_nothing(archive, name):
    before = archive.state()
    with pytest.raises(CarInvalid):
        archive.take((DATA / name).read_bytes())
    assert archive.state() == before


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("truncated.car", KUBO["blocks"][4]),
        ("flipped.car", KUBO["blocks"][4]),
        ("no-roots-block.car", KUBO["root"]),
    ],
)
def test_a_refusal_names_the_block_that_is_wrong(archive, name, block):
    with pytest.raises(CarInvalid) as refusal:
        archive.take((DATA / name).read_bytes())
    assert block in refusal.value.detail


@pytest.mark.parametrize("number", range(5))
def test_the_block_that_is_missing_is_named(archive, number):
    blocks = list(car.CarReader(io.BytesIO(STUDY).read))
    missing = blocks.pop(number)
    with pytest.raises(CarInvalid) as refusal:
        archive.take(of(ROOT, *blocks))
    assert cids.to_text(missing.cid) in refusal.value.detail
    assert archive.state() == ({}, {}, [])


def test_a_block_that_is_held_here_and_missing_in_the_file_is_missing(archive):
    archive.take(STUDY)
    blocks = list(car.CarReader(io.BytesIO(STUDY).read))
    with pytest.raises(CarInvalid):
        archive.take(of(ROOT, *blocks[:-1]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(STUDY) - 1))
def test_a_car_cut_anywhere_is_refused_and_leaves_nothing(archive, length):
    with pytest.raises(CarInvalid):
        archive.take(STUDY[:length])
    assert archive.state() == ({}, {}, [])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.integers(0, len(STUDY) * 8 - 1))
def test_a_flipped_bit_is_refused_and_leaves_nothing(archive, bit):
    damaged = bytearray(STUDY)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CarInvalid):
        archive.take(bytes(damaged), ROOT)
    assert archive.state() == ({}, {}, [])


@given(st.permutations(range(5)))
def test_any_order_of_the_blocks_is_the_same_tree(order):
    parts = sections(STUDY)
    found = Car(io.BytesIO(car.encode_header([ROOT]) + b"".join(parts[number] for number in order)))
    assert [cids.to_text(cid) for cid in found.order()] == KUBO["blocks"]


def test_a_block_outside_the_tree_is_not_taken(archive):
    archive.take((DATA / "foreign-block.car").read_bytes())
    assert len(archive.rows) == 5
    assert sum(path.stat().st_size for path in (archive.home / "packs").glob("*")) < len(STUDY) + 100


def test_taking_a_car_again_writes_nothing(archive):
    archive.take(STUDY)
    before = archive.state()[:2]
    assert keep(archive.store, Car(io.BytesIO(STUDY)), archive.placed).new == 0
    archive.take(STUDY)
    assert archive.state()[:2] == before


def test_taking_a_car_heals_a_block_that_is_damaged_here(archive):
    archive.take(STUDY)
    leaf = archive.rows[cids.from_text(KUBO["blocks"][2])]
    pack = archive.home / f"packs/{leaf.pack:08d}.car"
    with pack.open("r+b") as file:
        file.seek(leaf.offset)
        file.write(b"x")
    archive.take(STUDY)
    assert b"".join(export_car(archive.store, ROOT)) == STUDY


def test_several_roots_need_one_to_be_chosen(archive):
    other = Block(cids.make(cids.RAW, b"other"), b"other")
    both = car.encode_header([ROOT, other.cid]) + STUDY[len(car.encode_header([ROOT])) :]
    both += car.section_head(other.cid, 5) + b"other"
    with pytest.raises(CarInvalid):
        archive.take(both)
    assert archive.take(both, other.cid).root == other.cid
    assert set(archive.rows) == {other.cid}


def test_another_root_than_the_one_wanted_is_refused(archive):
    with pytest.raises(CarInvalid):
        archive.take(STUDY, cids.make(cids.RAW, b"other"))


def test_a_pack_names_no_tree_and_is_refused(archive):
    archive.take(STUDY)
    (pack,) = (archive.home / "packs").glob("*.car")
    with pytest.raises(CarInvalid):
        archive.take(pack.read_bytes())


@pytest.mark.parametrize(
    "node",
    [
        cbor2.dumps({"b": 1, "a": 2}),
        b"\xff",
        b"\xa1\x61a\xd8\x2a\x45\x01abcd",
        cbor2.dumps({"a": 1.5}) + b"\0",
        cbor2.dumps({1: 2}),
    ],
)
def test_a_node_that_is_not_canonical_dag_cbor_is_named(archive, node):
    block = Block(cids.make(cids.DAG_CBOR, node), node)
    with pytest.raises(CarInvalid) as refusal:
        archive.take(of(block.cid, block))
    assert cids.to_text(block.cid) in refusal.value.detail


def test_a_file_that_changes_between_the_two_readings_is_refused(archive):
    file = io.BytesIO(STUDY)
    source = Car(file)
    file.seek(len(STUDY) - 1)
    file.write(b"x")
    with pytest.raises(CarInvalid):
        keep(archive.store, source, archive.placed)
    assert archive.rows == {}


def test_an_export_ends_at_the_block_that_is_not_held(archive):
    block = Block(cids.make(cids.DAG_CBOR, node := manifest.encode_page([ROOT])), node)
    archive.placed(archive.store.put([block]))
    with pytest.raises(ContentMissing):
        list(export_car(archive.store, block.cid))


def test_a_large_object_goes_out_and_in(archive, tmp_path):
    builder = unixfs.TreeBuilder()
    blocks = []
    for _ in range(3):
        blocks += builder.leaf(os.urandom(unixfs.LEAF_SIZE))
    root, last = builder.finish()
    archive.placed(archive.store.put([*blocks, *last]))
    data = b"".join(export_car(archive.store, root))
    assert [block.cid for block in car.CarReader(io.BytesIO(data).read)] == [root, *(cid for cid, _ in blocks)]
    other = Archive(tmp_path / "other")
    other.take(data)
    assert b"".join(export_car(other.store, root)) == data
    other.store.close()


def test_a_car_of_more_blocks_than_memory_is_meant_for_is_refused(archive, monkeypatch):
    monkeypatch.setattr("bridge.content.car_transfer.MAX_BLOCKS", 4)
    with pytest.raises(CarInvalid, match="more than 4 blocks"):
        archive.take(STUDY)
    assert archive.state() == ({}, {}, [])
