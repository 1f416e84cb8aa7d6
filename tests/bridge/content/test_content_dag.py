"""Trees of blocks: links by codec, Kubo's order of a whole tree, and what two states of a study have in common."""

import json
import os
from pathlib import Path

import cbor2
import pytest

from bridge.content import car, dag, manifest, passed, unixfs
from bridge.content import cid as cids
from bridge.errors import ContentCorrupt, ContentMissing
from bridge.model import Block, StudyTree

GOLDEN = Path(__file__).parents[2] / "data" / "ipfs"


class Blocks(dict):
    """Blocks by CID that count how they are asked for."""

    def __init__(self, blocks=()):
        super().__init__(blocks)
        self.asked = []

    def get_block(self, cid):
        self.asked.append(cid)
        if cid not in self:
            raise ContentMissing(cids.to_text(cid))
        return self[cid]

    def add(self, data, codec=cids.RAW):
        cid = cids.make(codec, data)
        self[cid] = data
        return cid

    def node(self, *links, mark=0):
        value = {"l": [cbor2.CBORTag(42, b"\0" + link) for link in links], "m": mark}
        return self.add(cbor2.dumps(value, canonical=True), cids.DAG_CBOR)


def study_of(held, count, covered=0, pages=(), root=None, links=()):
    """A study of `count` more instances, each with an object of one leaf, grown from `root`."""
    tag = bytes(16)
    links = list(links)
    for number in range(len(links), len(links) + count):
        leaf = held.add(os.urandom(100))
        extra = held.add(os.urandom(20))
        instance = manifest.InstanceBlock(tag, 1, number.to_bytes(16, "big"), leaf, extra)
        links.append(held.add(manifest.encode_instance(instance), cids.DAG_CBOR))
    growth = manifest.grow(StudyTree(tag, root, tuple(pages), covered, tuple(links)))
    held.update((block.cid, bytes(block.data)) for block in growth.blocks)
    return growth, links


def test_links_of_a_raw_block_are_none():
    assert dag.links(cids.make(cids.RAW, b"x"), b"x") == ()


def test_links_of_a_file_node_are_its_children():
    builder = unixfs.TreeBuilder()
    leaves = [builder.leaf(bytes([n]) * unixfs.LEAF_SIZE)[0].cid for n in range(3)]
    root, blocks = builder.finish()
    assert dag.links(root, blocks[-1].data) == tuple(leaves)


def test_links_of_dag_cbor_lie_anywhere_in_it_and_come_in_its_order():
    one, two, three = (cbor2.CBORTag(42, b"\0" + cids.make(cids.RAW, bytes([n]))) for n in range(3))
    data = cbor2.dumps({"a": {"z": [1, two], "b": None}, "b": three, "aa": [[one]]}, canonical=True)
    found = dag.links(cids.make(cids.DAG_CBOR, data), data)
    assert found == tuple(link.value[1:] for link in (two, three, one))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9f\xff",  # indefinite length
        b"\x18\x01",  # a number that is not minimal
        b"\xa2\x61b\x00\x61a\x00",  # keys out of order
        b"\xa2\x62aa\x00\x61b\x00",  # the longer key first
        b"\xa1\x00\x00",  # a key that is no text
        b"\xf9\x3c\x00",  # a floating-point number of less than 64 bits
        b"\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
        b"\xc1\x00",  # a date
        b"\xd8\x2a\x41\x01",  # a link without the leading zero
        b"\xd8\x2a\x43\x00\x01\x55",  # a link to no CID
        b"\x81" * 5000 + b"\x00",
    ],
)
def test_a_block_that_is_not_canonical_dag_cbor_is_refused(data):
    with pytest.raises(ContentCorrupt):
        dag.links(cids.make(cids.DAG_CBOR, data), data)


def test_floating_point_numbers_of_64_bits_are_those_of_dag_cbor():
    data = bytes.fromhex("fb3ff0000000000000")
    assert dag.links(cids.make(cids.DAG_CBOR, data), data) == ()


def test_a_dag_pb_block_that_is_no_file_node_is_refused():
    with pytest.raises(ContentCorrupt):
        dag.links(cids.make(cids.DAG_PB, b"\x0a\x02\x08\x01"), b"\x0a\x02\x08\x01")


def test_the_car_of_a_tree_is_what_kubo_exports():
    data = (GOLDEN / "study.car").read_bytes()
    with (GOLDEN / "study.car").open("rb") as file:
        held = {cid: bytes(block) for cid, block in car.CarReader(file.read)}
    root = cids.from_text(json.loads((GOLDEN / "car.json").read_text())["root"])
    made = car.encode_header([root])
    for block in dag.walk(root, held.__getitem__):
        made += car.section_head(block.cid, len(block.data)) + block.data
    assert made == data


def test_a_block_comes_at_its_first_place_only():
    held = Blocks()
    leaf = held.add(b"leaf")
    inner = held.node(leaf)
    other = held.node(leaf, mark=1)
    root = held.node(inner, other, leaf, inner)
    assert [block.cid for block in dag.walk(root, held.get_block)] == [root, inner, leaf, other]


def test_the_order_reads_no_leaf_and_a_block_held_in_its_cid_is_left_out():
    held = Blocks()
    leaf = held.add(b"leaf")
    root = held.node(cids.from_text("bafkqaaa"), leaf)
    assert list(dag.order(root, held.get_block)) == [(root, held[root]), (leaf, None)]
    assert held.asked == [root]


def test_nothing_is_read_of_what_is_skipped():
    held = Blocks()
    inner = held.node(held.add(b"leaf"))
    root = held.node(inner, held.add(b"other"))
    held.asked.clear()
    assert [block.data for block in dag.walk(root, held.get_block, {inner}.__contains__)] == [held[root], b"other"]
    assert inner not in held.asked


def test_a_missing_block_is_named():
    held = Blocks()
    leaf = held.add(b"leaf")
    root = held.node(leaf)
    del held[leaf]
    with pytest.raises(ContentMissing, match=cids.to_text(leaf)):
        list(dag.walk(root, held.get_block))


def test_of_a_study_that_grew_only_what_differs_is_read_and_only_what_is_new_is_left():
    held = Blocks()
    old, links = study_of(held, 1500)
    new, grown = study_of(held, 3, old.covered, old.pages, old.root, links)
    held.asked.clear()
    common = dag.shared(new.root, old.root, held.get_block)
    assert len(held.asked) == 2 + 2 + 3  # both roots, both last pages, the new instance blocks
    left = [block.cid for block in dag.walk(new.root, held.get_block, common.__contains__)]
    assert left[:2] == [new.root, new.pages[-1]]
    assert [cid for cid in left if cids.parse(cid).codec == cids.DAG_CBOR][2:] == grown[1500:]
    assert len(left) == 2 + 3 * 3
    everything = {block.cid for block in dag.walk(new.root, held.get_block)}
    before = {block.cid for block in dag.walk(old.root, held.get_block)}
    assert everything <= before | set(left)


def test_trees_with_nothing_in_common_and_equal_ones():
    held = Blocks()
    one, two = held.node(held.add(b"1")), held.node(held.add(b"2"))
    assert dag.shared(one, two, held.get_block) == set()
    held.asked.clear()
    assert dag.shared(one, one, held.get_block) == {one}
    assert held.asked == []


def test_a_block_given_twice_is_no_trouble_for_a_block_type():
    held = Blocks()
    leaf = held.add(b"leaf")
    assert list(dag.walk(leaf, held.get_block)) == [Block(leaf, b"leaf")]


def test_a_tree_of_more_blocks_than_are_held_in_memory_is_walked_each_block_once(monkeypatch):
    monkeypatch.setattr(passed, "_IN_MEMORY", 3)
    held = Blocks()
    leaves = [held.add(os.urandom(8)) for _ in range(20)]
    nodes = [held.node(*leaves, mark=number) for number in range(3)]
    root = held.node(*nodes, *leaves)
    walked = [block.cid for block in dag.walk(root, held.get_block, passed=passed.PassedCids())]
    assert walked == [root, nodes[0], *leaves, *nodes[1:]]
