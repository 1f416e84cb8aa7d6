"""An erased study leaves nothing in the index that names it, on either database; nothing new is written of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.errors import Busy, NotFound
from bridge.index.assignments import Assignment
from bridge.index.database import Place
from bridge.index.index import SqlIndex
from bridge.index.replica_schema import metadata
from bridge.index.shares import GRANT, Given, GivenState
from bridge.model import BatchClosing, SealedRecord
from tests.bridge.index.test_index_forgetting import PAGE, ROOT, lend
from tests.bridge.index.test_index_trees import OWN, STUDY, THEIRS, their, tree_of, units
from tests.contract.index import batch, unit

GONE: set[bytes] = set()


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    GONE.clear()
    index = SqlIndex(place, "test", lambda: None, is_gone=lambda tag, study: tag in GONE)
    yield index
    assert index.check() == []
    index.close()


def naming(index: SqlIndex, words: tuple[str, ...]) -> list[str]:
    """The tables that hold one of these words in some row."""
    found = []
    for table in metadata.sorted_tables:
        said = repr(index.database.rows(f"SELECT * FROM {table.name}", {}))
        found += [table.name for word in words if word in said]
    return sorted(set(found))


def filled(index: SqlIndex) -> None:
    given = [their(one) for one in units(2)]
    index.adopt(tree_of(given), given, [PAGE, ROOT]).result()
    lend(index)
    own = batch(STUDY)
    index.commit(unit((STUDY, "1.2.3.9", "9.1"), own, data=b"report")).result()
    index.commit(unit(("1.9", "1.9.1", "1.9.1.1"), PatientName="Kept^Karl")).result()
    index.assignments.assign(Assignment("elsewhere", STUDY, None))
    index.shares.give(
        Given(b"h" * 32, GRANT, STUDY, OWN, b"n" * 16, "elsewhere", "TREAT", 1, None, GivenState.DELIVERED.value)
    )


def forget(index: SqlIndex, *kept: bytes) -> int:
    return index.erasures.forget(STUDY, [OWN, THEIRS], lambda tag: tag in kept, 5)


def test_every_tree_of_an_erased_study_goes_and_its_name_everywhere(index: SqlIndex) -> None:
    filled(index)
    assert {"patient", "study", "batch", "share_in", "share_out", "assignment"} <= {*naming(index, (STUDY, "Doe^John"))}
    assert forget(index) == 3
    assert naming(index, (STUDY, "Doe^John", "1.2.3.9")) == []
    with pytest.raises(NotFound):
        index.locate(STUDY)
    assert len(index.locate("1.9")) == 1
    assert [given.live for given in index.shares.all_given()] == [False]
    assert [received.live for received in index.shares.all_received()] == [False]
    assert forget(index) == 0
    index.erasures.empty_log()


def test_its_blocks_stay_known_and_are_not_missed(index: SqlIndex) -> None:
    filled(index)
    (before,) = index.database.rows("SELECT count(*) FROM block", {})
    last = index.committed_end(7)
    forget(index)
    assert index.database.rows("SELECT count(*) FROM block", {}) == [before]
    assert index.committed_end(7) == last  # a recovery cuts nothing that a backup has copied
    assert index.database.rows("SELECT count(*) FROM block WHERE instance IS NOT NULL AND superseded", {}) == [(0,)]


def test_what_is_kept_for_another_member_stays_as_nobodys(index: SqlIndex) -> None:
    filled(index)
    assert forget(index, THEIRS) == 3
    kept = index.trees.by_tag(THEIRS)
    assert kept is not None and (kept.study, kept.origin) == (None, b"")
    assert index.trees.by_tag(OWN) is None and naming(index, (STUDY,)) == []


def test_nothing_is_written_under_a_tag_whose_keys_are_gone(index: SqlIndex) -> None:
    filled(index)
    forget(index)
    GONE.update({OWN, THEIRS})
    late = batch(STUDY)
    with pytest.raises(Busy, match="erased meanwhile"):
        index.commit(unit((STUDY, "1.2.3.9", "9.2"), late)).result()
    with pytest.raises(Busy, match="erased meanwhile"):
        index.append(late, [SealedRecord(bytes(32), b"sealed")]).result()
    assert naming(index, (STUDY,)) == []


def test_a_batch_that_was_open_is_closed_without_the_study(index: SqlIndex) -> None:
    own = batch(STUDY)
    record = index.commit(unit((STUDY, "1.2.3.9", "9.1"), own)).result()
    assert record is not None
    forget(index)
    GONE.add(OWN)
    index.append(own, [SealedRecord(b"l" * 32, b"sealed")]).result()
    index.close_batch(own, BatchClosing(2_000, 2, bytes(32))).result()
    assert len(list(index.closed_records())) == 1
    assert index.erasures.fact(own.id) is not None and naming(index, (STUDY,)) == []
