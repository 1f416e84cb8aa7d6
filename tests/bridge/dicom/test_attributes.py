"""The table of indexed attributes: required keys present, names found, values sorted by level."""

from __future__ import annotations

import pytest

from bridge.dicom.attributes import BY_TAG, TABLE, Level, Matching, extract, find, key
from bridge.errors import QueryInvalid

# PS3.18 Tables 10.6.1-5 and 10.6.3-3 to -5.
REQUIRED_KEYS = {
    Level.PATIENT: ["00100010", "00100020"],
    Level.STUDY: ["00080020", "00080030", "00080050", "00080061", "00080090", "0020000D", "00200010"],
    Level.SERIES: [
        *("00080060", "0020000E", "00200011", "00400244", "00400245"),
        *("00400275.00400009", "00400275.00401001"),
    ],
    Level.INSTANCE: ["00080016", "00080018", "00200013"],
}


@pytest.mark.parametrize("level", list(Level))
def test_every_required_key_can_be_matched_at_its_level(level: Level) -> None:
    for tag in REQUIRED_KEYS[level]:
        assert BY_TAG[tag].level is level
        assert BY_TAG[tag].matching is not None


def test_tags_and_keywords_are_unique() -> None:
    assert len({row.tag for row in TABLE}) == len(TABLE)
    assert len({row.keyword for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("PatientName", "PatientName"),
        ("00100010", "PatientName"),
        ("0020000d", "StudyInstanceUID"),
        ("00400275.00401001", "RequestedProcedureID"),
        ("RequestAttributesSequence.RequestedProcedureID", "RequestedProcedureID"),
        ("RequestAttributesSequence.00400009", "ScheduledProcedureStepID"),
    ],
)
def test_an_attribute_is_found_by_tag_keyword_or_path(name: str, keyword: str) -> None:
    found = find(name)
    assert found is not None
    assert found.keyword == keyword


@pytest.mark.parametrize(
    "name", ["FooBar", "0010001", "RequestedProcedureID", "00400275", "PatientComments", "00091001", "", ".", "a.b.c"]
)
def test_what_cannot_be_matched_is_refused_rather_than_ignored(name: str) -> None:
    with pytest.raises(QueryInvalid):
        key(name)


def test_kinds_of_matching_follow_the_vr() -> None:
    assert key("PatientName").matching is Matching.NAME
    assert key("StudyDate").matching is Matching.DATE
    assert key("StudyTime").matching is Matching.TIME
    assert key("StudyInstanceUID").matching is Matching.UID
    assert key("SeriesNumber").matching is Matching.NUMBER
    assert key("ModalitiesInStudy").matching is Matching.CODE
    assert key("AccessionNumber").matching is Matching.TEXT


def test_extract_sorts_values_by_level_and_leaves_out_the_rest() -> None:
    instance: dict[str, dict[str, object]] = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "00080020": {"vr": "DA", "Value": ["20240115"]},
        "00080050": {"vr": "SH"},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00080201": {"vr": "SH", "Value": ["+0100"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^John"}]},
        "00201208": {"vr": "IS", "Value": [99]},
        "00091001": {"vr": "LO", "Value": ["private"]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "bulk"},
    }
    levels = extract(instance)
    assert set(levels.patient) == {"00100010"}
    assert set(levels.study) == {"00080020", "00080201"}
    assert set(levels.series) == {"00080060", "00080201"}
    assert set(levels.instance) == {"00080018", "00080201"}
    assert levels.study["00080020"] == {"vr": "DA", "Value": ["20240115"]}
