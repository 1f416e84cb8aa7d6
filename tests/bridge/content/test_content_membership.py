"""What lies below a root: told from few bytes, made once, and for a tree that has grown from what is new."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.membership import CidSet, Membership
from bridge.content.selection import range_of
from bridge.errors import ContentMissing, RequestError
from bridge.model import StudyTree

TAG = b"t" * 16


class Study:
    """A study's blocks, its roots so far, and which blocks were read."""

    def __init__(self) -> None:
        self.held: dict[bytes, bytes] = {}
        self.tree = StudyTree(TAG, None, (), 0, ())
        self.roots: list[bytes] = []
        self.read: list[bytes] = []

    def grow(self, instances: int) -> bytes:
        """Add instances of one leaf each, and close: the new root."""
        links = list(self.tree.instances)
        for _ in range(instances):
            number = len(links).to_bytes(16, "big")
            leaf, metadata = (cids.make(cids.RAW, word + number) for word in (b"leaf", b"meta"))
            data = manifest.encode_instance(manifest.InstanceBlock(TAG, 0, number, leaf, metadata))
            links.append(self.put(data))
        growth = manifest.grow(self.tree._replace(instances=tuple(links)))
        for block in growth.blocks:
            self.put(bytes(block.data))
        self.tree = self.tree._replace(
            root=growth.root, pages=growth.pages, covered=growth.covered, instances=tuple(links)
        )
        self.roots.append(growth.root)
        return growth.root

    def put(self, data: bytes) -> bytes:
        cid = cids.make(cids.DAG_CBOR, data)
        self.held[cid] = data
        return cid

    def get(self, cid: bytes) -> bytes:
        if cid not in self.held:
            raise ContentMissing("not held")
        self.read.append(cid)
        return self.held[cid]


@pytest.fixture
def study() -> Study:
    return Study()


@given(st.sets(st.binary(min_size=1, max_size=4)), st.sets(st.binary(min_size=1, max_size=4)))
def test_a_set_of_cids_holds_its_members_and_no_others(some: set[bytes], others: set[bytes]) -> None:
    def named(members: set[bytes]) -> set[bytes]:
        return {cids.make(cids.RAW, member) for member in members}

    made = CidSet(named(some))
    assert all(cid in made for cid in named(some))
    assert not any(cid in made for cid in named(others - some))
    assert (len(made), made.size) == (len(some), 16 * len(some))
    both = CidSet(named(others), made)
    assert all(cid in both for cid in named(some | others))
    assert len(both) == len(some | others)
    assert "text" not in made


def test_everything_below_a_root_is_known_without_reading_a_leaf(study: Study) -> None:
    root = study.grow(3)
    below = Membership(study.get).below(root)
    assert all(cid in below for cid in study.held)
    assert len(below) == len(study.held) + 2 * 3
    assert all(cids.parse(cid).codec != cids.RAW for cid in study.read)


def test_a_tree_is_walked_once_and_its_growth_costs_what_is_new(study: Study) -> None:
    membership = Membership(study.get)
    membership.below(study.grow(500))
    study.read.clear()
    membership.below(study.roots[0])
    assert study.read == []
    grown = membership.below(study.grow(2))
    assert len(set(study.read)) == 1 + 1 + 2  # root, last page, two instances
    assert all(cid in grown for cid in study.held)


def test_former_states_are_below_too_as_far_as_they_are_held(study: Study) -> None:
    for _ in range(3):
        study.grow(1)
    below = Membership(study.get).below(study.roots[-1])
    assert all(root in below for root in study.roots)
    del study.held[study.roots[0]]
    below = Membership(study.get).below(study.roots[-1])
    assert [root in below for root in study.roots] == [False, True, True]


def test_a_tree_that_is_no_study_has_no_former_state(study: Study) -> None:
    leaf = cids.make(cids.RAW, b"leaf")
    root = study.put(cbor2.dumps({"a": cbor2.CBORTag(42, b"\0" + leaf)}, canonical=True))
    below = Membership(study.get).below(root)
    assert (root in below, leaf in below, len(below)) == (True, True, 2)
    assert leaf in Membership(study.get).below(leaf)


def test_a_tree_that_lacks_a_block_is_not_taken_for_a_smaller_one(study: Study) -> None:
    root = study.grow(2)
    del study.held[study.tree.instances[0]]
    membership = Membership(study.get)
    for _ in range(2):
        with pytest.raises(ContentMissing):
            membership.below(root)


def test_the_sets_least_used_go_when_they_take_too_much(study: Study) -> None:
    roots = [study.put(cbor2.dumps({"n": number})) for number in range(4)]
    membership = Membership(study.get, most_bytes=3 * 16)
    for root in (*roots[:3], roots[0], roots[3]):
        membership.below(root)
    study.read.clear()
    for root in (roots[0], roots[2], roots[3]):
        membership.below(root)
    assert study.read == []
    membership.below(roots[1])
    assert study.read


@given(st.integers(-40, 40), st.none() | st.integers(-40, 40), st.integers(0, 30))
def test_entity_bytes_mean_the_bytes_that_a_naive_count_finds(first: int, last: int | None, size: int) -> None:
    start = first if first >= 0 else size + first
    stop = size - 1 if last is None else last if last >= 0 else size + last
    expected = [byte for byte in range(size) if start <= byte <= stop]
    if 0 < size <= first:
        with pytest.raises(RequestError):
            range_of((first, last), size)
    else:
        assert list(range_of((first, last), size)) == expected
