"""Which blocks a CAR of the gateway holds (IPFS "Trustless Gateway Specification", dag-scope and entity-bytes)."""

from __future__ import annotations

import json
from pathlib import Path

import cbor2
import pytest

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.content.car import CarReader
from bridge.content.selection import Place, Scope, blocks, range_of, resolve
from bridge.errors import ContentMissing, NotFound, RequestError

DATA = Path(__file__).parents[2] / "data" / "ipfs"
LEAF = unixfs.LEAF_SIZE


class Blocks:
    """Blocks by CID, and which of them were read."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.read: list[bytes] = []

    def put(self, codec: int, data: bytes) -> bytes:
        cid = cids.make(codec, data)
        self.held[cid] = data
        return cid

    def cbor(self, value: object) -> bytes:
        return self.put(cids.DAG_CBOR, cbor2.dumps(value, canonical=True))

    def file(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """A file in our layout: its root, and its leaves in order."""
        builder = unixfs.TreeBuilder()
        leaves = []
        for start in range(0, len(data), LEAF):
            made = builder.leaf(data[start : start + LEAF])
            leaves.append(made[0].cid)
            self.held |= {block.cid: bytes(block.data) for block in made}
        root, rest = builder.finish()
        self.held |= {block.cid: bytes(block.data) for block in rest}
        return root, leaves

    def get(self, cid: bytes) -> bytes:
        if cid not in self.held:
            raise ContentMissing("not held")
        self.read.append(cid)
        return self.held[cid]


def link(cid: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(42, b"\0" + cid)


@pytest.fixture
def held() -> Blocks:
    return Blocks()


def chosen(held: Blocks, place: Place, scope: Scope, span: range | None = None, *, dups: bool = False) -> list[bytes]:
    return [block.cid for block in blocks(place, scope, span, dups, held.get)]


def test_all_of_a_tree_is_what_kubo_exports_block_by_block(held: Blocks) -> None:
    with (DATA / "study.car").open("rb") as file:
        reader = CarReader(file.read)
        exported = [block.cid for block in reader if held.held.setdefault(block.cid, bytes(block.data))]
    root = cids.from_text(json.loads((DATA / "car.json").read_text())["root"])
    assert chosen(held, Place((root,)), "all") == exported


def test_a_file_as_entity_is_all_its_blocks_and_anything_else_its_own_block(held: Blocks) -> None:
    root, leaves = held.file(b"x" * LEAF + b"y" * 5)
    document = held.cbor({"d": link(root)})
    assert chosen(held, Place((root,)), "entity") == [root, *leaves]
    assert chosen(held, Place((document,)), "entity") == [document]
    assert chosen(held, Place((leaves[0],)), "entity") == [leaves[0]]
    assert chosen(held, Place((root,)), "block") == [root]
    assert chosen(held, Place((document,)), "all") == [document, root, *leaves]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, None), [0, 1, 2, 3]),
        ((0, 0), [0]),
        ((LEAF, None), [1, 2, 3]),
        ((LEAF, 2 * LEAF - 1), [1]),
        ((LEAF - 1, LEAF), [0, 1]),
        ((LEAF, -6), [1, 2]),
        ((-5, None), [3]),
        ((-6, None), [2, 3]),
        ((-99 * LEAF, None), [0, 1, 2, 3]),
        ((-99 * LEAF, -6), [0, 1, 2]),
        ((3 * LEAF, 99 * LEAF), [3]),
        ((3 * LEAF + 4, -5), []),
    ],
)
def test_entity_bytes_give_the_root_and_the_leaves_that_hold_the_range_and_no_other(
    held: Blocks, span: tuple[int, int | None], expected: list[int]
) -> None:
    data = b"".join(bytes([n]) * LEAF for n in range(3)) + b"tail!"
    root, leaves = held.file(data)
    found = chosen(held, Place((root,)), "entity", range_of(span, len(data)))
    assert found == [root, *(leaves[n] for n in expected)]
    assert set(held.read) == set(found)


def test_a_range_is_given_though_blocks_before_and_behind_it_are_missing(held: Blocks) -> None:
    root, leaves = held.file(b"a" * LEAF + b"b" * LEAF + b"c")
    del held.held[leaves[0]], held.held[leaves[2]]
    assert chosen(held, Place((root,)), "entity", range(LEAF, LEAF + 1)) == [root, leaves[1]]


def test_a_range_of_a_file_of_two_levels_reads_only_the_nodes_on_its_way(held: Blocks) -> None:
    builder = unixfs.TreeBuilder()
    nodes = []
    for number in range(1500):
        nodes += builder.link(cids.make(cids.RAW, number.to_bytes(4, "big")), LEAF)
    root, rest = builder.finish()
    held.held |= {block.cid: bytes(block.data) for block in (*nodes, *rest)}
    wanted = held.put(cids.RAW, (1400).to_bytes(4, "big"))
    found = chosen(held, Place((root,)), "entity", range(1400 * LEAF, 1400 * LEAF + 1))
    assert len(found) == 3
    assert (found[0], found[2]) == (root, wanted)


def test_a_range_that_begins_behind_the_end_is_refused_and_one_of_an_empty_file_is_empty() -> None:
    with pytest.raises(RequestError):
        range_of((10, None), 10)
    assert not range_of((0, None), 0)
    assert not range_of((5, -8), 10)
    assert range_of((-20, 3), 10) == range(0, 4)


def test_a_block_met_twice_is_given_once_unless_duplicates_are_asked_for(held: Blocks) -> None:
    leaf = held.put(cids.RAW, b"leaf")
    page = held.cbor({"i": [link(leaf)]})
    root = held.cbor({"p": [link(page), link(leaf), link(page)]})
    assert chosen(held, Place((root,)), "all") == [root, page, leaf]
    assert chosen(held, Place((root,)), "all", dups=True) == [root, page, leaf, leaf, page, leaf]


def test_identity_cids_have_no_block_in_a_car(held: Blocks) -> None:
    inline = bytes((1, cids.RAW, cids.IDENTITY, 3)) + b"abc"
    root = held.cbor({"a": link(inline)})
    for dups in (False, True):
        assert chosen(held, Place((root,)), "all", dups=dups) == [root]
        assert chosen(held, Place((inline,)), "all", dups=dups) == []


def test_a_path_leads_through_keys_indices_and_links_and_its_blocks_come_first(held: Blocks) -> None:
    file, leaves = held.file(b"x" * LEAF + b"y")
    instance = held.cbor({"d": link(file), "v": 1})
    page = held.cbor({"i": [link(instance)]})
    root = held.cbor({"p": [link(page)]})
    place = resolve(root, ["p", "0", "i", "0", "d"], held.get)
    assert place.passed == (root, page, instance, file)
    assert chosen(held, place, "block") == [root, page, instance, file]
    assert chosen(held, place, "all") == [root, page, instance, file, *leaves]
    assert chosen(held, place, "entity", range(0, 1)) == [root, page, instance, file, leaves[0]]


def test_a_path_may_end_inside_a_block_and_then_gives_what_is_linked_there(held: Blocks) -> None:
    one, two = held.put(cids.RAW, b"1"), held.put(cids.RAW, b"2")
    root = held.cbor({"a": [link(one), link(one)], "b": link(two)})
    place = resolve(root, ["a"], held.get)
    assert chosen(held, place, "all") == [root, one]
    assert chosen(held, place, "all", dups=True) == [root, one, one]
    assert chosen(held, place, "entity") == [root]


@pytest.mark.parametrize("path", [["x"], ["p", "1"], ["p", "00"], ["p", "-1"], ["p", "0", "i"], ["v", "x"], ["p", "²"]])
def test_a_path_to_nowhere_is_not_found(held: Blocks, path: list[str]) -> None:
    leaf = held.put(cids.RAW, b"leaf")
    root = held.cbor({"p": [link(leaf)], "v": 1})
    with pytest.raises(NotFound):
        resolve(root, path, held.get)
