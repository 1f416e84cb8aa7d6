"""Trees of one study from several nodes: each stays its own, an adopted one as it came, and all is visible at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bridge.content.manifest import grow
from bridge.dicom.attributes import Level
from bridge.dicom.matching import Query
from bridge.errors import NotFound, StorageFault
from bridge.index.database import Place
from bridge.index.index import SqlIndex
from bridge.index.rows import RebuiltInstance
from bridge.model import AdoptedTree, Batch, BatchClosing, BlockPosition, Outcome, WriteUnit
from tests.contract.index import batch, record, tag_of, unit

STUDY = "1.2.3"
OWN, THEIRS = tag_of(STUDY), b"their tag of it."
ORIGIN = b"node id of them."


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    index = SqlIndex(place, "test", lambda: None)
    yield index
    index.close()


def their(one: WriteUnit) -> RebuiltInstance:
    """The same instance as it comes in another node's tree: the same bytes, sealed and named anew."""
    names = [name for name in RebuiltInstance.__slots__ if name not in ("link", "tag", "blocks")]
    values = {name: getattr(one, name) for name in names}
    blocks = (BlockPosition(os.urandom(36), 7, 300, 20),)
    return RebuiltInstance(**values, link=os.urandom(36), tag=os.urandom(16), blocks=blocks)


def tree_of(instances: list[RebuiltInstance], origin: bytes | None = ORIGIN, tag: bytes = THEIRS) -> AdoptedTree:
    return AdoptedTree(STUDY, origin, tag, b"their root", (b"their page",), tuple(one.link for one in instances))


def units(count: int, into: Batch | None = None) -> list[WriteUnit]:
    return [unit((STUDY, "1.2.3.1", f"1.{number}"), into, data=b"%d" % number) for number in range(count)]


def close(index: SqlIndex, into: Batch, records: int, root: bytes, covered: int) -> None:
    closing = BatchClosing(2_000, records, os.urandom(32), root, (b"page",), covered, bytes(16), bytes(32))
    index.close_batch(into, closing).result()


def test_an_adopted_study_is_found_and_its_tree_is_as_it_came(index: SqlIndex) -> None:
    instances = [their(one) for one in units(3)]
    adopted = index.adopt(tree_of(instances), instances, [BlockPosition(b"their page", 7, 100, 50)]).result()
    assert adopted == ((Outcome.NEW,) * 3, 0, ())
    (tree,) = index.trees.of_study(STUDY)
    assert (tree.study, tree.origin, tree.tag, tree.root, tree.covered) == (STUDY, ORIGIN, THEIRS, b"their root", 3)
    assert index.trees.by_tag(THEIRS) == index.trees.by_root(b"their root") == index.trees.by_id(tree.id) == tree
    assert {stored.study_tag for stored in index.locate(STUDY)} == {THEIRS}
    assert len(index.search(Query(Level.INSTANCE, study=STUDY)).matches) == 3
    assert index.locate_block(b"their page") is not None
    assert index.locate_block(instances[0].blocks[0].cid) is not None
    manifest = index.study_tree(THEIRS)
    assert manifest.pages == (b"their page",)
    assert manifest.instances == tuple(one.link for one in instances)
    assert grow(manifest).root == b"their root"


def test_its_records_are_for_what_was_decided_and_their_batch_closes_over_its_root(index: SqlIndex) -> None:
    held = units(2)
    index.commit(held[1]).result()
    into = batch(STUDY, kind="study.import", tag=THEIRS)
    asked: list[tuple[Outcome, ...]] = []
    records = [record(), record()]

    def recorded(outcomes: object) -> list[object]:
        asked.append(tuple(outcomes))  # type: ignore[arg-type]
        return list(records)

    instances = [their(one) for one in held]
    adopted = index.adopt(tree_of(instances), instances, (), (into, recorded)).result()  # type: ignore[arg-type]
    assert asked == [adopted.outcomes] == [(Outcome.NEW, Outcome.AGAIN)]
    assert adopted.records == tuple(records)
    close(index, into, 2, b"their root", 2)
    tree = index.trees.by_tag(THEIRS)
    assert tree is not None and tree.root == b"their root"


def test_what_is_stored_here_goes_to_this_nodes_own_tree(index: SqlIndex) -> None:
    first, second, third = units(3)
    instances = [their(first)]
    index.adopt(tree_of(instances), instances).result()
    index.commit(second).result()
    index.commit(third).result()
    own, theirs = index.trees.of_study(STUDY)
    assert (own.tag, own.origin, own.root) == (OWN, None, None)
    assert (theirs.tag, theirs.covered) == (THEIRS, 1)
    assert index.study_tree(OWN).instances == (second.link, third.link)
    assert [stored.study_tag for stored in index.locate(STUDY)] == [THEIRS, OWN, OWN]
    assert len(index.search(Query(Level.STUDY)).matches) == 1
    assert list(index.trees.every()) == [theirs, own]


def test_what_is_held_already_stays_in_its_own_tree(index: SqlIndex) -> None:
    into = batch(STUDY)
    held = units(2, into)
    for one in held:
        index.commit(one).result()
    close(index, into, 2, b"own root", 2)
    instances = [their(one) for one in held]
    outcomes = index.adopt(tree_of(instances), instances).result().outcomes
    assert outcomes == (Outcome.AGAIN, Outcome.AGAIN)
    own = index.study_tree(OWN)
    assert (own.root, own.covered, own.instances) == (b"own root", 2, tuple(one.link for one in held))
    theirs = index.study_tree(THEIRS)
    assert (theirs.root, theirs.covered, theirs.instances) == (b"their root", 2, ())
    assert grow(theirs).root == b"their root"


def test_a_damaged_copy_of_this_nodes_is_healed_by_an_adopted_one_and_its_page_made_anew(index: SqlIndex) -> None:
    into = batch(STUDY)
    held = units(3, into)
    for one in held:
        index.commit(one).result()
    close(index, into, 3, b"own root", 3)
    index.mark_damaged(index.locate(*held[1].key)[0])
    instances = [their(held[1])]
    assert index.adopt(tree_of(instances), instances).result().outcomes == (Outcome.HEALED,)
    (healed,) = index.locate(*held[1].key)
    assert (healed.damaged, healed.study_tag, healed.tag) == (False, THEIRS, instances[0].tag)
    own = index.study_tree(OWN)
    assert (own.pages, own.covered, own.instances) == ((), 0, (held[0].link, held[2].link))
    assert len(grow(own).blocks) == 2
    # ... and back again: the adopted tree stays, this node's has one more before those behind it
    index.mark_damaged(healed)
    copy = unit(held[1].key, data=b"1")
    assert index.commit(copy).result().outcome is Outcome.HEALED
    assert index.study_tree(OWN).instances == (held[0].link, copy.link, held[2].link)
    assert index.study_tree(THEIRS)[1:5] == (b"their root", (b"their page",), 1, ())


def test_sealed_blocks_are_kept_for_others_and_nothing_of_them_is_found(index: SqlIndex) -> None:
    instances = [their(one) for one in units(2)]
    sealed = tree_of(instances, b"")._replace(study=None)
    blocks = [BlockPosition(b"their root", 7, 0, 10), BlockPosition(b"their page", 7, 10, 10)]
    assert index.adopt(sealed, (), blocks).result().outcomes == ()
    tree = index.trees.by_tag(THEIRS)
    assert tree is not None and (tree.study, tree.origin, tree.root) == (None, b"", b"their root")
    assert index.search(Query(Level.STUDY)) == ((), 0)
    assert index.trees.of_study(STUDY) == []
    with pytest.raises(NotFound):
        index.locate(STUDY)
    index.adopt(tree_of(instances), instances).result()  # the key has come
    (named,) = index.trees.of_study(STUDY)
    assert (named.id, named.study, named.origin) == (tree.id, STUDY, ORIGIN)
    assert len(index.locate(STUDY)) == 2


def test_a_newer_state_of_an_adopted_study_replaces_the_former_and_an_older_one_does_not(index: SqlIndex) -> None:
    instances = [their(one) for one in units(3)]
    newer = tree_of(instances)._replace(root=b"newer", pages=(b"newer page",))
    index.adopt(tree_of(instances[:2]), instances[:2]).result()
    outcomes = index.adopt(newer, instances).result().outcomes
    assert outcomes == (Outcome.AGAIN, Outcome.AGAIN, Outcome.NEW)
    index.adopt(tree_of(instances[:2]), instances[:2]).result()
    (tree,) = index.trees.of_study(STUDY)
    assert (tree.root, tree.covered, index.study_tree(THEIRS).pages) == (b"newer", 3, (b"newer page",))


def test_this_nodes_own_study_comes_back_and_grows_on(index: SqlIndex) -> None:
    instances = [their(one) for one in units(2)]
    index.adopt(tree_of(instances, None, OWN), instances).result()
    (tree,) = index.trees.of_study(STUDY)
    assert (tree.origin, tree.root, tree.covered) == (None, b"their root", 2)
    added = units(3)[2]
    index.commit(added).result()
    assert index.study_tree(OWN).instances == (*(one.link for one in instances), added.link)
    older = tree_of(instances[:1], None, OWN)._replace(root=b"older")
    index.adopt(older, instances[:1]).result()
    assert index.study_tree(OWN).root == b"their root"


def test_pages_of_this_nodes_own_that_name_other_instances_than_are_held_are_made_anew(index: SqlIndex) -> None:
    held = units(2)
    index.commit(held[1]).result()
    instances = [their(one) for one in held]
    index.adopt(tree_of(instances, None, OWN), instances).result()
    own = index.study_tree(OWN)
    assert (own.root, own.covered, own.instances) == (b"their root", 0, (held[1].link, instances[0].link))
    assert own.pages == () and grow(own).covered == 2


def test_a_tree_that_cannot_be_taken_in_leaves_nothing_behind(index: SqlIndex) -> None:
    into = batch(STUDY, kind="study.import", tag=THEIRS)
    index.append(into, [record()]).result()
    closing = BatchClosing(closed=2_000, records=1, records_root=bytes(32))
    index.close_batch(into, closing).result()
    instances = [their(one) for one in units(2)]
    blocks = [BlockPosition(b"their page", 7, 100, 50)]
    with pytest.raises(StorageFault):
        index.adopt(tree_of(instances), instances, blocks, (into, lambda outcomes: [record()])).result()
    assert index.trees.by_tag(THEIRS) is None
    assert index.locate_block(b"their page") is None
    with pytest.raises(NotFound):
        index.locate(STUDY)
