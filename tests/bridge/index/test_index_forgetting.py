"""A received tree is forgotten: nothing of it is found, and nothing else is missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.dicom.attributes import Level, key
from bridge.dicom.matching import Query, arrange, match_for
from bridge.errors import NotFound, RequestError
from bridge.index.database import Place
from bridge.index.index import SqlIndex
from bridge.index.shares import GRANT, Received, ReceivedState
from bridge.model import AdoptedTree, BlockPosition, Outcome, PinReceipt
from tests.bridge.index.test_index_trees import OWN, STUDY, THEIRS, close, their, tree_of, units
from tests.contract.index import batch, uids, unit

PAGE, ROOT = BlockPosition(b"their page", 7, 100, 50), BlockPosition(b"their root", 7, 200, 50)
TABLES = ("patient", "study", "series", "series_request", "series_class", "instance", "instance_data", "tree", "block")


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    index = SqlIndex(place, "test", lambda: None)
    yield index
    assert index.check() == []
    index.close()


def rows(index: SqlIndex) -> dict[str, list[tuple[object, ...]]]:
    tables = (*TABLES, "study_page", "pin")
    return {table: sorted(index.database.rows(f"SELECT * FROM {table}", {}), key=repr) for table in tables}


def lend(index: SqlIndex, tag: bytes = THEIRS, grant: bytes = b"g" * 32) -> None:
    """Have a tree be one that a member's grant brought."""
    index.shares.expect(
        Received(grant, GRANT, STUDY, tag, b"n" * 16, "elsewhere", "TREAT", 1, None, ReceivedState.HELD)
    )


def test_a_study_that_was_only_received_leaves_no_row(index: SqlIndex) -> None:
    index.commit(unit(("1.9", "1.9.1", "1.9.1.1"))).result()
    before = rows(index)
    given = [their(one) for one in units(3)]
    index.adopt(tree_of(given), given, [PAGE, ROOT]).result()
    assert index.shares.forget(THEIRS, [b"their page", b"their root"], keep_sealed=False) == (3, False)
    assert rows(index) == before
    with pytest.raises(NotFound):
        index.locate(STUDY)
    assert index.shares.forget(THEIRS, [], keep_sealed=False) == (0, False)


def test_what_this_node_added_stays_and_describes_the_study(index: SqlIndex) -> None:
    given = [their(one) for one in units(2)]
    index.adopt(tree_of(given), given, [PAGE, ROOT]).result()
    report = unit((STUDY, "1.2.3.9", "9.1"), batch(STUDY), data=b"report", PatientName="Roe^Jane", Modality="SR")
    index.commit(report).result()
    assert index.shares.forget(THEIRS, [b"their page"], keep_sealed=False) == (2, True)
    (study,) = index.search(Query(Level.STUDY)).matches
    assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Roe^Jane"}]}
    assert study["00080061"]["Value"] == ["SR"]  # type: ignore[index]
    found = index.search(Query(Level.STUDY, keys=arrange([match_for(key("PatientName"), "Doe*")])))
    assert found.matches == ()
    assert [stored.key.sop for stored in index.locate(STUDY)] == ["9.1"]
    assert index.study_tree(OWN).instances == (report.link,)
    assert index.locate_block(report.blocks[0].cid) is not None
    assert index.locate_block(given[0].blocks[0].cid) is None


def test_a_series_of_both_is_counted_and_described_by_what_is_left(index: SqlIndex) -> None:
    given = [their(one) for one in units(2)]
    index.adopt(tree_of(given), given).result()
    index.commit(units(3)[2]).result()
    index.shares.forget(THEIRS, [], keep_sealed=False)
    (series,) = index.search(Query(Level.SERIES, study=STUDY)).matches
    assert series["00201209"]["Value"] == [1]  # type: ignore[index]
    assert len(index.search(Query(Level.INSTANCE, study=STUDY)).matches) == 1


def test_of_two_versions_the_one_that_is_left_is_served_and_in_no_conflict(index: SqlIndex) -> None:
    mine = unit((STUDY, "1.2.3.1", "1.0"), data=b"other bytes")
    given = [their(units(1)[0])]
    index.adopt(tree_of(given), given).result()
    assert index.commit(mine).result().outcome is Outcome.VERSION
    assert index.counts()["conflicts"] == 2
    index.shares.forget(THEIRS, [], keep_sealed=False)
    (left,) = index.locate(STUDY)
    assert (left.digest, left.served) == (mine.digest, True)
    assert index.counts()["conflicts"] == 0
    (series,) = index.search(Query(Level.SERIES, study=STUDY)).matches
    assert series["00201209"]["Value"] == [1]  # type: ignore[index]


def test_a_copy_that_was_lent_gives_way_to_what_this_node_stores_itself(index: SqlIndex) -> None:
    lend(index)
    sent = units(2)
    given = [their(one) for one in sent]
    index.adopt(tree_of(given), given).result()
    assert index.served_digest(sent[0].key) is None  # so that a re-send is written
    assert index.commit(sent[0]).result().outcome is Outcome.HEALED
    assert index.served_digest(sent[0].key) == sent[0].digest
    assert index.shares.forget(THEIRS, [given[0].blocks[0].cid], keep_sealed=False) == (1, True)
    (left,) = index.locate(STUDY)
    assert (left.key, left.study_tag) == (sent[0].key, OWN)


def test_a_lent_copy_never_takes_the_place_of_this_nodes_own(index: SqlIndex) -> None:
    lend(index)
    (mine,) = units(1)
    index.commit(mine).result()
    index.mark_damaged(index.locate(STUDY)[0])
    given = [their(mine)]
    assert index.adopt(tree_of(given), given).result().outcomes == (Outcome.AGAIN,)
    index.shares.forget(THEIRS, [], keep_sealed=False)
    (left,) = index.locate(STUDY)
    assert (left.study_tag, left.damaged) == (OWN, True)


def test_sealed_blocks_may_be_kept_for_others(index: SqlIndex) -> None:
    given = [their(one) for one in units(2)]
    index.adopt(tree_of(given), given, [PAGE, ROOT]).result()
    index.pins.record(b"their root", PinReceipt(b"their root", 1, 1), 1)
    assert index.shares.forget(THEIRS, [b"their page"], keep_sealed=True) == (2, False)
    tree = index.trees.by_tag(THEIRS)
    assert tree is not None and (tree.study, tree.origin, tree.root) == (None, b"", b"their root")
    assert index.search(Query(Level.STUDY)) == ((), 0)
    assert index.locate_block(b"their page") is not None
    assert index.locate_block(given[0].blocks[0].cid) is not None
    index.adopt(tree_of(given), given, [PAGE, ROOT]).result()  # and granted again
    assert len(index.locate(STUDY)) == 2


def test_what_another_tree_names_too_is_found_again_when_that_is_taken_in_anew(index: SqlIndex) -> None:
    sent = units(2)
    given, also = [their(one) for one in sent], [their(one) for one in sent]
    other = AdoptedTree(STUDY, b"another node id.", b"their other tag.", b"r2", (b"p2",), tuple(o.link for o in also))
    index.adopt(tree_of(given), given).result()
    assert index.adopt(other, also).result().outcomes == (Outcome.AGAIN, Outcome.AGAIN)
    assert index.shares.forget(THEIRS, [], keep_sealed=False) == (2, False)
    assert index.search(Query(Level.STUDY)) == ((), 0)
    index.adopt(other, also).result()
    assert uids(index.search(Query(Level.STUDY))) == [STUDY]
    assert {stored.study_tag for stored in index.locate(STUDY)} == {b"their other tag."}


def test_a_nodes_own_tree_is_not_forgotten(index: SqlIndex) -> None:
    into = batch(STUDY)
    index.commit(units(1, into)[0]).result()
    close(index, into, 1, b"own root", 1)
    with pytest.raises(RequestError):
        index.shares.forget(OWN, [], keep_sealed=False)
    assert len(index.locate(STUDY)) == 1


def test_a_pin_of_a_forgotten_root_stays_until_the_engine_lets_go(index: SqlIndex) -> None:
    given = [their(one) for one in units(1)]
    index.adopt(tree_of(given), given).result()
    index.pins.record(b"their root", PinReceipt(b"their root", 1, 1), 1)
    index.shares.forget(THEIRS, [], keep_sealed=False)
    assert index.pins.of(b"their root") is not None
    index.pins.drop(b"their root")
    assert index.pins.of(b"their root") is None
