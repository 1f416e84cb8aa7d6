"""Searches in SQL find exactly what the plain reading of PS3.4 C.2.2.2 finds, on generated archives and queries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from bridge.dicom.attributes import BY_TAG, LEVELS, TABLE, Level, key
from bridge.dicom.comparison import matches
from bridge.dicom.matching import Query, arrange, match_for
from bridge.errors import QueryInvalid
from bridge.index.database import Place, PostgresqlPlace
from bridge.index.index import SqlIndex
from bridge.index.replica_schema import metadata
from bridge.index.schema import meta
from bridge.index.writer import Transaction
from tests.contract.index import element, unit

NAMES = ["Doe^John^Q", "doe^john", "Müller^Jörg", "Muller^Jorg", "O[a]*?%_^X", "  ", "Doe", "John^Doe", ""]
TEXTS = ["A", "a", "AB", "A B", "A[b]", "A*", "A%", "A_", "ÄB", "", " A", "0"]
DATES = ["20240115", "20240116", "2024.01.15", "20240220", "19700101", "bad", ""]
TIMES = ["10", "1015", "101559", "101559.5", "235959.999999", "bad", "", "00"]
NUMBERS: list[Any] = [1, 2, "+1", "01", -3, "x"]
CODES = ["CT", "MR", "US", ""]
UIDS = ["1.2", "1.20", "1.2.3"]
BY_VR: dict[str, list[Any]] = {"DA": DATES, "TM": TIMES, "IS": NUMBERS, "CS": CODES, "UI": UIDS}
KEYWORDS = [
    *("PatientName", "PatientID", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy", "Modality"),
    *("SOPClassesInStudy", "SeriesNumber", "ScheduledProcedureStepID", "RequestedProcedureID", "InstanceNumber"),
]
ASKED = [row for row in TABLE if row.keyword in KEYWORDS]
STORED = [row for row in ASKED if not row.computed and "." not in row.tag]
MEMORY = Path("/dev/shm")

words = st.sampled_from(
    ["*", "?", "A", "a", "[", "B", " ", "Doe", "doe", "john", "^", "Müll", "er", "mull", "*Doe J", "%"]
)
pieces = st.lists(words, min_size=1, max_size=4).map("".join)


def value(vr: str) -> st.SearchStrategy[Any]:
    if vr == "PN":
        groups = st.sampled_from(NAMES)
        return st.builds(
            lambda a, i: {name: group for name, group in (("Alphabetic", a), ("Ideographic", i)) if group},
            groups,
            st.sampled_from(["", "山田^太郎", "Doe^John"]),
        )
    return st.sampled_from(BY_VR.get(vr, TEXTS))


def query_text(vr: str) -> st.SearchStrategy[str]:
    empty = st.sampled_from(["", "*", '""'])
    if vr == "PN":
        return st.one_of(empty, st.sampled_from(NAMES), pieces, st.builds("{}={}".format, pieces, pieces))
    if vr in ("DA", "TM"):
        plain = st.sampled_from(BY_VR[vr])
        ends = st.sampled_from(["START", "END", ""])
        return st.one_of(empty, plain, st.builds("{}-{}".format, plain | ends, plain | ends))
    if vr in ("IS", "CS", "UI"):
        one = st.sampled_from([str(v) for v in BY_VR[vr]])
        return st.one_of(empty, one, st.builds("{},{}".format, one, one), pieces)
    return st.one_of(empty, st.sampled_from(TEXTS), pieces)


def elements() -> st.SearchStrategy[dict[str, Any]]:
    """A header's matchable attributes, each present or not."""
    options = {
        row.tag: value(row.vr).map(lambda v, vr=row.vr: element(vr, v) if v != "" else element(vr)) for row in STORED
    }
    items = st.fixed_dictionaries({}, optional={"00400009": value("SH"), "00401001": value("SH")})
    item = items.map(lambda found: {tag: element("SH", v) for tag, v in found.items()})
    options["00400275"] = st.lists(item, max_size=3).map(lambda found: element("SQ", *found))
    return st.fixed_dictionaries({}, optional=options)


queries = st.lists(
    st.sampled_from(ASKED).flatmap(
        lambda row: st.tuples(st.just(row), query_text(row.vr), st.booleans(), st.booleans())
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda asked: asked[0].tag,
)


def levels(stored: dict[str, Any], *names: Level) -> dict[str, Any]:
    return {tag: v for tag, v in stored.items() if BY_TAG[tag].level in names}


def archive(headers: list[dict[str, Any]]) -> tuple[list[Any], dict[Level, dict[str, dict[str, Any]]]]:
    """Units of two series to a study, and what should be searched at each level: unique key -> attributes."""
    units: list[Any] = []
    objects: dict[Level, dict[str, dict[str, Any]]] = {level: {} for level in LEVELS}
    above = (Level.PATIENT, Level.STUDY)
    for number, stored in enumerate(headers):
        study, series, sop = f"1.{number // 2}", f"1.{number // 2}.{number % 2}", f"1.{number // 2}.{number}.9"
        keys = {"0020000D": element("UI", study), "0020000E": element("UI", series)}
        keys |= {"00080018": element("UI", sop), "00080016": element("UI", "1.2")}
        dataset = {tag: v for tag, v in stored.items() if tag in BY_TAG} | keys
        units.append(replace(unit((study, series, sop), attributes=dataset), sop_class="1.2"))
        of_study = objects[Level.STUDY].setdefault(study, levels(dataset, *above))
        for tag, values in (("00080061", dataset.get("00080060", {}).get("Value", [])), ("00080062", ["1.2"])):
            known = of_study.setdefault(tag, {"vr": BY_TAG[tag].vr, "Value": []})
            known["Value"] += values
        objects[Level.SERIES][series] = levels(dataset, Level.SERIES) | of_study
        objects[Level.INSTANCE][sop] = levels(dataset, Level.INSTANCE) | objects[Level.SERIES][series]
    return units, objects


UNIQUE = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def emptied(request: pytest.FixtureRequest) -> Iterator[Callable[[], SqlIndex]]:
    """An index that is empty each time that it is asked for."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as home:
        place: Place = Path(home) / "index.db"
        if request.param == "postgresql":
            place = PostgresqlPlace(request.getfixturevalue("postgresql").fresh(), Path(home))
        index = SqlIndex(place, "test", lambda: None)

        def empty(transaction: Transaction) -> None:
            for table in reversed(metadata.sorted_tables):
                transaction.cursor.execute(f"DELETE FROM {table.name}" + " WHERE name <> 'epoch'" * (table is meta))
            transaction.known.clear()

        def made() -> SqlIndex:
            index.run(empty).result()
            return index

        yield made
        index.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(elements(), min_size=1, max_size=6), st.lists(queries, min_size=1, max_size=12), st.data())
def test_sql_finds_what_the_plain_reading_finds(
    emptied: Callable[[], SqlIndex], headers: list[dict[str, Any]], asked: list[list[Any]], data: st.DataObject
) -> None:
    units, objects = archive(headers)
    index = emptied()
    for future in [index.commit(one) for one in units]:
        future.result()
    for question in asked:
        level = data.draw(st.sampled_from([Level.STUDY, Level.SERIES, Level.INSTANCE]))
        try:
            keys = arrange([match_for(row, text, fuzzy=fuzzy, multiple=many) for row, text, fuzzy, many in question])
            query = Query(level, keys=keys)
        except QueryInvalid:
            continue
        expected = {uid for uid, held in objects[level].items() if all(matches(match, held) for match in keys)}
        found = [match[UNIQUE[level]]["Value"][0] for match in index.search(query).matches]
        assert len(found) == len(set(found))
        assert set(found) == expected


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([("StudyDate", "20240115-20240220"), ("StudyTime", "1100-1200")], {"1.1", "1.2", "1.3"}),
        ([("StudyDate", "20240116-"), ("StudyTime", "1100-1200")], {"1.3"}),
        ([("StudyDate", "-20240201")], {"1.1", "1.2"}),
        ([("PatientName", "?oe*")], {"1.1", "1.2"}),
        ([("PatientName", "doe^john")], {"1.1"}),
        ([("PatientName", "=山田*")], {"1.2"}),
        ([("PatientName", "山田^太郎")], {"1.2"}),
        ([("AccessionNumber", "A[1]*")], {"1.1"}),
        ([("AccessionNumber", "a[1]*")], set()),
        ([("AccessionNumber", '""')], {"1.3", "1.4"}),
        ([("ModalitiesInStudy", "MR,US")], {"1.2"}),
        ([("ModalitiesInStudy", '""')], {"1.4"}),
        ([("PatientName", '""')], {"1.4"}),
        ([("StudyDate", '""')], {"1.4"}),
    ],
)
def test_a_study_is_found_by(asked: list[tuple[str, str]], found: set[str], index: SqlIndex) -> None:
    yamada = {"Alphabetic": "Doe^Taro", "Ideographic": "山田^太郎"}
    given = [
        {"PatientName": "Doe^John", "StudyDate": "20240115", "StudyTime": "1100", "AccessionNumber": "A[1]x"},
        {
            "PatientName": yamada,
            "StudyDate": "20240116",
            "StudyTime": "0300",
            "AccessionNumber": "A1",
            "Modality": "MR",
        },
        {"PatientName": "O'Hara", "StudyDate": "20240220", "StudyTime": "1200", "AccessionNumber": ""},
        {"PatientName": {}, "StudyDate": "", "StudyTime": "", "Modality": ""},
    ]
    for number, values in enumerate(given, 1):
        index.commit(unit((f"1.{number}", f"1.{number}.1", "1.9"), **values)).result()
    assert set(find(index, Level.STUDY, *asked)) == found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"ScheduledProcedureStepID": "S1", "RequestedProcedureID": "R1"}, {"1.1.1"}),
        ({"ScheduledProcedureStepID": "S1", "RequestedProcedureID": "R2"}, set()),
        ({"ScheduledProcedureStepID": "S?"}, {"1.1.1"}),
        ({"ScheduledProcedureStepID": '""'}, {"1.2.1"}),
    ],
)
def test_a_series_is_found_by_one_item_of_its_requests(asked: dict[str, str], found: set[str], index: SqlIndex) -> None:
    pairs = (("S1", "R1"), ("S2", "R2"))
    items = [{"00400009": element("SH", step), "00401001": element("SH", procedure)} for step, procedure in pairs]
    index.commit(unit(("1.1", "1.1.1", "1.9"), attributes={"00400275": element("SQ", *items)})).result()
    index.commit(unit(("1.2", "1.2.1", "1.9"))).result()
    pathed = [(f"RequestAttributesSequence.{name}", text) for name, text in asked.items()]
    assert set(find(index, Level.SERIES, *pathed)) == found


@pytest.fixture
def index(place: Place) -> Any:
    index = SqlIndex(place, "test", lambda: None)
    yield index
    index.close()


def find(index: SqlIndex, level: Level, *asked: tuple[str, str], **given: Any) -> list[str]:
    keys = arrange([match_for(key(name), text) for name, text in asked])
    page = index.search(Query(level, keys=keys, **given))
    return [match[UNIQUE[level]]["Value"][0] for match in page.matches]


def test_a_study_in_the_url_bounds_the_search_below_it(index: SqlIndex) -> None:
    for study in ("1.1", "1.2"):
        for series in ("1", "2"):
            index.commit(unit((study, f"{study}.{series}", f"{study}.{series}.9"), SeriesNumber=series)).result()
    assert find(index, Level.SERIES, study="1.1") == ["1.1.1", "1.1.2"]
    assert find(index, Level.INSTANCE, study="1.1", series="1.1.2") == ["1.1.2.9"]
    assert find(index, Level.INSTANCE, ("SeriesNumber", "2"), study="1.2") == ["1.2.2.9"]
    assert find(index, Level.SERIES, study="1.9") == []


def test_instances_over_all_studies_come_newest_first(index: SqlIndex) -> None:
    for number in range(3):
        index.commit(unit(("1.1", "1.1.1", f"1.{number}"))).result()
    assert find(index, Level.INSTANCE) == ["1.2", "1.1", "1.0"]


def test_another_version_is_not_searched(index: SqlIndex) -> None:
    index.commit(unit(data=b"one", InstanceNumber=1)).result()
    index.commit(replace(unit(data=b"two", InstanceNumber=2), source="another")).result()
    assert find(index, Level.INSTANCE, ("InstanceNumber", "2")) == []
    assert len(find(index, Level.INSTANCE, ("InstanceNumber", "1"))) == 1


def test_a_damaged_instance_says_that_it_is_unavailable(index: SqlIndex) -> None:
    index.commit(unit()).result()
    index.mark_damaged(index.locate("1.2.3")[0])
    (match,) = index.search(Query(Level.INSTANCE)).matches
    assert match["00080056"] == element("CS", "UNAVAILABLE")


def test_values_reach_sql_as_parameters_only(index: SqlIndex) -> None:
    hostile = "x' OR '1'='1"
    index.commit(unit(PatientID="P1")).result()
    statements: list[str] = []

    @event.listens_for(cast(Any, index.database).engine, "before_cursor_execute")
    def keep(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    assert find(index, Level.STUDY, ("PatientID", hostile), ("PatientName", f"*{hostile}*")) == []
    assert statements
    assert not any("OR '1'" in statement for statement in statements)


def test_a_page_costs_a_fixed_number_of_statements(index: SqlIndex) -> None:
    for number in range(30):
        index.commit(unit((f"1.{number}", f"1.{number}.1", "1.9"))).result()
    statements: list[str] = []

    @event.listens_for(cast(Any, index.database).engine, "before_cursor_execute")
    def keep(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    for limit in (1, 10, 25):
        statements.clear()
        assert len(find(index, Level.STUDY, limit=limit)) == limit
        assert len(statements) <= 5
