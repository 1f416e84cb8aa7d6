"""Who may fetch which tree, and who keeps the same: as the index tells it, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bridge.index.assignments import Assignment
from bridge.index.database import Place
from bridge.index.grants import Grants
from bridge.index.index import SqlIndex
from bridge.index.replicas import OutRow, PeerRow
from bridge.index.replicas_beside import Beside
from bridge.index.replicas_kept import Wanted
from bridge.model import AdoptedTree
from bridge.share_model import Given, Received

ORIGIN, OTHER, THIRD = (bytes([number]) * 16 for number in (1, 2, 3))
TAG, ROOT, ENTRY, BESIDE = bytes([7]) * 16, b"\1\x71\x1e\x20" + bytes(32), bytes([9]) * 32, bytes([8]) * 32
NOW = 1_800_000_000_000_000


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    made = SqlIndex(place, "test", lambda: None)
    yield made
    made.close()


def kept(index: SqlIndex) -> None:
    """The tree is kept here for h0."""
    index.adopt(AdoptedTree(None, b"", TAG, ROOT, (), ())).result()
    index.replicas_in.ask(ORIGIN, "h0", [Wanted(TAG, ENTRY, bytes(16), ROOT, 1)], NOW)
    (row,) = index.replicas_in.all()
    assert Grants(index.database).kept_for("h0") == []
    index.replicas_in.took(row, ROOT, NOW)


def test_a_kept_tree_is_for_its_owner_and_for_who_keeps_it_too(index: SqlIndex) -> None:
    kept(index)
    grants, beside = Grants(index.database), index.replicas_beside
    assert (grants.kept_for("h0"), grants.kept_for("h2")) == ([(TAG, ROOT)], [])
    row = Beside(BESIDE, ORIGIN, TAG, THIRD, "h2")
    beside.note([row])
    assert grants.kept_for("h2") == [(TAG, ROOT)] and grants.kept_for("h1") == []
    beside.signed(BESIDE)
    beside.note([row])  # what is said again does not undo that it signed
    assert beside.of_tree(ORIGIN, TAG) == [row._replace(kept=True)]
    beside.note([row._replace(entry=bytes(32), node=OTHER)])  # another's assignment of the same tag
    assert grants.kept_for("h2") == [(TAG, ROOT)] and len(beside.of_tree(ORIGIN, TAG)) == 1
    beside.drop(BESIDE)
    assert grants.kept_for("h2") == []
    beside.note([row])
    beside.drop_tree(ORIGIN, TAG)
    assert beside.of_tree(ORIGIN, TAG) == [] and len(beside.of_tree(OTHER, TAG)) == 1


def test_of_a_tree_that_is_none_of_this_node_nothing_is_granted(index: SqlIndex) -> None:
    kept(index)
    index.assignments.assign(Assignment("h1", "1.2.3", None))
    grants = Grants(index.database)
    assert grants.roots_for("h1", NOW) == [] and not grants.may("h1", TAG, NOW)
    assert grants.tree_of_block(ROOT) is None


def test_members_with_which_there_is_business_are_told_once(index: SqlIndex) -> None:
    kept(index)
    index.replicas_out.assign(OutRow(TAG, OTHER, "h1", 0, NOW, bytes(32), None, bytes(16), ROOT, 1))
    index.replicas_out.note_peers([PeerRow(OTHER), PeerRow(THIRD, silent=NOW)])
    assert (index.replicas_out.nodes(), index.replicas_in.nodes()) == ({OTHER}, {ORIGIN})
    index.replicas_out.release(TAG, OTHER, NOW)
    assert index.replicas_out.nodes() == set()


def test_a_refusal_is_kept_with_the_share_until_it_is_taken_back(index: SqlIndex) -> None:
    shares = index.shares
    shares.give(Given(ENTRY, "grant", "1.2.3", TAG, OTHER, "h1", "TREAT", NOW, None, "delivered"))
    shares.expect(Received(BESIDE, "grant", None, TAG, OTHER, "h1", "TREAT", NOW, None, "offered"))
    assert shares.note(ENTRY, refused="the blocks") and [row.refused for row in shares.all_given()] == ["the blocks"]
    assert shares.note(ENTRY, refused=None) and [row.refused for row in shares.all_given()] == [None]
    (received,) = shares.all_received()
    told: Callable[[], list[int | None]] = lambda: [row.told for row in shares.all_received()]  # noqa: E731
    assert told() == [None] and shares.change_received(received, told=2) and told() == [2]
