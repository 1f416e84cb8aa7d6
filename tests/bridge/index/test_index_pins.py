"""What the content engine keeps, packs that were trimmed, faults, and assignments: small tables, durable and exact."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bridge.content.pins import MemoryPins, Pin, PinTable
from bridge.index.assignments import Assignment
from bridge.index.content_state import ContentFault
from bridge.index.database import Place
from bridge.index.index import SqlIndex
from bridge.model import AdoptedTree, BatchClosing, BlockPosition, PinReceipt
from tests.contract.index import batch, tag_of, unit


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    index = SqlIndex(place, "test", lambda: None)
    yield index
    index.close()


def closed(index: SqlIndex, number: int, root: bytes) -> None:
    into = batch("1.2.3")
    index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"), into)).result()
    index.close_batch(into, BatchClosing(1, 1, os.urandom(32), root, (b"p",), number, bytes(16), bytes(32))).result()


@pytest.mark.parametrize("kind", ["index", "memory"])
def test_pins_are_recorded_read_back_and_dropped(index: SqlIndex, kind: str) -> None:
    pins: PinTable = index.pins if kind == "index" else MemoryPins()
    assert pins.of(b"a") is None and list(pins.all()) == []
    pins.record(b"b", PinReceipt(b"b", 1, 2_000), 2)
    pins.record(b"a", PinReceipt(b"a", 1, 3_000), 1)
    assert pins.of(b"b") == Pin(b"b", 2_000, None, 1, 2)
    assert [pin.root for pin in pins.all()] == [b"b", b"a"]
    pins.record(b"b", PinReceipt(b"b", 2, 4_000), 2)
    assert list(pins.all()) == [Pin(b"a", 3_000, None, 1, 1), Pin(b"b", 4_000, None, 2, 2)]
    pins.drop(b"a")
    pins.drop(b"a")
    assert [pin.root for pin in pins.all()] == [b"b"]


def test_when_a_pin_was_verified_stays_when_it_is_recorded_again(index: SqlIndex) -> None:
    index.pins.record(b"a", PinReceipt(b"a", 1, 1_000), 1)
    index.pins.verified(b"a", 2_000)
    index.pins.record(b"a", PinReceipt(b"a", 1, 3_000), 1)
    assert index.pins.of(b"a") == Pin(b"a", 3_000, 2_000, 1, 1)


def test_a_pin_finds_its_tree_whichever_comes_first(index: SqlIndex) -> None:
    index.pins.record(b"early", PinReceipt(b"early", 1, 1), 1)
    index.adopt(AdoptedTree(None, b"", b"t" * 16, b"early", (b"p",), (b"i",))).result()
    tree = index.trees.by_root(b"early")
    assert tree is not None and [pin.root for pin in index.pins.of_tree(tree.id)] == [b"early"]
    closed(index, 1, b"first")
    closed(index, 2, b"second")
    index.pins.record(b"first", PinReceipt(b"first", 1, 1), 1)  # its tree has gone on meanwhile
    own = index.trees.by_tag(tag_of("1.2.3"))
    assert own is not None and [pin.root for pin in index.pins.of_tree(own.id)] == [b"first"]


def test_trimmed_packs_are_known_to_every_process_and_after_a_restart(index: SqlIndex, place: Place) -> None:
    other = SqlIndex(place, "other", lambda: None)
    index.content_state.trim(3, 1_000)
    index.content_state.trim(1, 2_000)
    index.content_state.trim(3, 3_000)
    assert index.content_state.trimmed() == other.content_state.trimmed() == {1, 3}
    other.content_state.untrim(3)
    other.close()
    assert index.content_state.trimmed() == {1}


def test_the_last_pack_is_the_highest_that_any_block_lies_in(index: SqlIndex) -> None:
    assert index.last_pack() == -1
    index.add_blocks([BlockPosition(b"a", 4, 60, 1), BlockPosition(b"b", 2, 60, 1)])
    assert index.last_pack() == 4


def test_a_fault_keeps_its_time_while_it_lasts_and_is_gone_when_it_is_over(index: SqlIndex) -> None:
    state = index.content_state
    assert state.faults() == []
    state.report({"kubo-down": "Kubo does not answer"}, 1_000)
    state.report({"kubo-down": "Kubo does not answer since an hour", "unpinned": "3 studies wait"}, 2_000)
    assert state.faults() == [
        ContentFault("kubo-down", 1_000, "Kubo does not answer since an hour"),
        ContentFault("unpinned", 2_000, "3 studies wait"),
    ]
    state.report({"unpinned": "3 studies wait"}, 3_000)
    assert state.faults() == [ContentFault("unpinned", 2_000, "3 studies wait")]
    state.report({}, 4_000)
    assert state.faults() == []


def test_an_assignment_stands_once_until_it_is_taken_back(index: SqlIndex) -> None:
    assignments = index.assignments
    for member, study, expires in (("north", "1.2", None), ("north", "1.3", 2_000), ("south", "1.2", None)):
        assignments.assign(Assignment(member, study, expires))
    assignments.assign(Assignment("north", "1.3", 9_000))
    assert assignments.unassign("north", "1.2") and not assignments.unassign("north", "1.2")
    assert assignments.all() == [Assignment("north", "1.3", 9_000), Assignment("south", "1.2", None)]
