"""Where a study lies: every block counted once, by kind and by pack, without a leaf being read."""

from __future__ import annotations

import pytest
from pydicom.uid import generate_uid

from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.pack_format import pack_path, packs_in
from bridge.errors import ContentMissing, NotFound
from bridge.index.placement import positions_of
from bridge.model import BLOCK_KINDS, BlockCount, StudyContent
from bridge.node import Node
from bridge.services.fixity import check_all
from bridge.services.study_content import study_content
from bridge.study_show import show
from bridge.study_words import words
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_store import store

STUDY = "1.2.826.0.1.3680043.8.498.77"


def content(node: Node, most: int | None = None) -> StudyContent:
    return study_content(node.index, node.content.get, "embedded", STUDY, most)


@pytest.fixture
def stored(node: Node) -> Node:
    """Three small instances, and one of five leaves below a file node."""
    for _ in range(3):
        store(node, part10(instance(study=STUDY)))
    store(node, part10(instance(study=STUDY, rows=1024, frames=2)))
    store(node, part10(instance()))  # of another study
    return node


def test_every_block_of_the_tree_is_counted_by_kind_and_pack(stored: Node) -> None:
    (found,) = content(stored).trees
    assert {kind: many.blocks for kind, many in found.kinds.items()} == {
        "root": 1,
        "page": 1,
        "instance": 4,
        "metadata": 4,
        "node": 1,
        "leaf": 3 + 5,
    }
    assert tuple(found.kinds) == BLOCK_KINDS and found.unread == 0 and found.counted == found.tree.covered == 4
    assert found.tree.root is not None
    blocks = dict(dag.walk(found.tree.root, stored.content.get))
    assert found.total == BlockCount(len(blocks), sum(map(len, blocks.values())))
    (share,) = found.packs
    assert (share.pack, share.blocks, share.octets, share.trimmed) == (0, *found.total, False)


def test_the_pages_and_first_instances_are_told_one_by_one(stored: Node) -> None:
    (found,) = content(stored).trees
    (page,) = found.pages
    assert page.instances == 4 and [one.leaves for one in page.some] == [1, 1, 1, 5]
    sizes = sum(one.octets for one in page.some)
    assert sizes == found.total.octets - found.kinds["root"].octets - found.kinds["page"].octets


def test_no_leaf_is_read(stored: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def get(cid: bytes) -> bytes:
        read.append(cid)
        return stored.packs.get(cid)

    study_content(stored.index, get, "embedded", STUDY)
    assert len(read) == 1 + 1 + 4 + 1 and all(cids.parse(cid).codec != cids.RAW for cid in read)


def test_what_cannot_be_read_is_told_and_the_rest_counted(stored: Node) -> None:
    whole = content(stored).trees[0]
    lost = whole.pages[0].some[3].object

    def get(cid: bytes) -> bytes:
        if cid == lost:
            raise ContentMissing("gone")
        return stored.packs.get(cid)

    (found,) = study_content(stored.index, get, "embedded", STUDY).trees
    assert found.unread == 1 and found.kinds["leaf"].blocks == 3 and found.kinds["instance"].blocks == 4


def test_of_very_many_instances_some_are_counted(stored: Node) -> None:
    (found,) = content(stored, 0).trees
    assert found.counted == 0 and found.tree.covered == 4 and found.pages[0].instances == 4


def test_a_study_that_is_not_held_is_not_found(node: Node) -> None:
    with pytest.raises(NotFound):
        content(node)


def test_pins_and_trimmed_packs_are_told(stored: Node) -> None:
    assert content(stored).trees[0].pinned is None
    check_all(stored, lambda _: None)
    stored.index.content_state.trim(0, 1)
    (found,) = content(stored).trees
    assert found.pinned and found.verified and (found.replicas, found.wanted) == (1, 1)
    assert found.packs[0].trimmed


def test_faults_of_the_engine_are_told(stored: Node) -> None:
    stored.index.content_state.report({"engine": "Kubo does not answer"}, 1)
    assert content(stored).faults == ("Kubo does not answer",)


def test_positions_of_many_blocks_are_those_of_each(node: Node) -> None:
    study = generate_uid()
    for _ in range(70):
        store(node, part10(instance(study=study)))
    (number,) = node.index.packs()
    assert packs_in(node.settings.home / "packs") == [pack_path(node.settings.home / "packs", number)]
    known = {position.cid: position for position in node.index.positions(number)}
    unknown = cids.make(cids.RAW, b"x")
    assert len(known) > 200 and positions_of(node.index.database, [*known, unknown]) == known
    assert positions_of(node.index.database, []) == {}


def test_the_command_says_it_all_in_words(stored: Node) -> None:
    answer = show(stored, {"study": STUDY}, lambda _: None)
    said = words(answer)  # type: ignore[arg-type]
    (tree,) = content(stored).trees
    assert tree.tree.root is not None
    for part in (STUDY, cids.to_text(tree.tree.root), "4 instances, 19 blocks", "8 leaves", "made by   this node"):
        assert part in said
    assert "00000000.car: 19 blocks" in said and "pinned    not yet" in said and "└─ instance" in said


def test_the_command_tells_of_more_instances_than_it_draws(node: Node) -> None:
    for _ in range(12):
        store(node, part10(instance(study=STUDY)))
    said = words(show(node, {"study": STUDY}, lambda _: None))  # type: ignore[arg-type]
    assert said.count("├─ instance") == 8 and said.endswith("└─ and 4 instances more")
