"""Query values and what they match: PS3.4 C.2.2.2, PS3.18 8.3.4, and what viewers send."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dicom.attributes import Level, key
from bridge.dicom.comparison import matches
from bridge.dicom.matching import DateTimeSpan, InItem, Query, Universal, arrange, match_for
from bridge.errors import QueryInvalid


def finds(name: str, text: str, *values: object, fuzzy: bool = False, multiple: bool = False) -> bool:
    """Whether the key finds an object whose attribute holds the values."""
    attribute = key(name)
    held: Mapping[str, Mapping[str, object]] = (
        {attribute.tag: {"vr": attribute.vr, "Value": list(values)}} if values else {}
    )
    return matches(match_for(attribute, text, fuzzy=fuzzy, multiple=multiple), held)


def pn(alphabetic: str, ideographic: str = "", phonetic: str = "") -> dict[str, str]:
    groups = {"Alphabetic": alphabetic, "Ideographic": ideographic, "Phonetic": phonetic}
    return {group: text for group, text in groups.items() if text}


@pytest.mark.parametrize(
    ("query", "fuzzy", "found"),
    [
        ("*Doe John*", False, True),
        ("doe^john^q", False, True),
        ("DOE^JOHN*", False, True),
        ("Doe^J?hn^Q", False, True),
        ("Doe^John", False, False),
        ("*Joe*", False, False),
        ("john doe", False, False),
        ("john doe", True, True),
        ("jo", True, True),
        ("*oe Jo*", True, True),
        ("smith", True, False),
        ("*", False, True),
        ("", False, True),
    ],
)
def test_person_names_match_without_case_and_with_spaces_for_carets(query: str, fuzzy: bool, found: bool) -> None:
    assert finds("PatientName", query, pn("Doe^John^Q"), fuzzy=fuzzy) is found


def test_accents_count_unless_matching_is_fuzzy() -> None:
    assert finds("PatientName", "MÜLLER*", pn("Müller^Jörg"))
    assert finds("PatientName", "Mu\u0308ller*", pn("Müller^Jörg"))
    assert not finds("PatientName", "Muller*", pn("Müller^Jörg"))
    assert finds("PatientName", "Muller*", pn("Müller^Jörg"), fuzzy=True)


def test_each_group_of_a_name_can_be_searched() -> None:
    yamada = pn("Yamada^Tarou", "山田^太郎", "やまだ^たろう")
    assert finds("PatientName", "山田*", yamada)
    assert finds("PatientName", "やまだ^たろう", yamada)
    assert finds("PatientName", "Yamada*=山田*", yamada)
    assert finds("PatientName", "=山田*", yamada)
    assert not finds("PatientName", "Yamada*=鈴木*", yamada)
    assert finds("PatientName", "山田", yamada, fuzzy=True)


def test_text_is_case_sensitive_and_wildcards_are_not_patterns_of_another_kind() -> None:
    assert finds("AccessionNumber", "A-[1].%*", "A-[1].%_9")
    assert not finds("AccessionNumber", "A-[1]*", "A-19")
    assert not finds("AccessionNumber", "a-1", "A-1")
    assert finds("AccessionNumber", "A?1", "A-1")
    assert not finds("AccessionNumber", "A?1", "A1")
    assert finds("PatientID", "P 1", "P 1 ")


@pytest.mark.parametrize("text", ["1.2,3.4", "1.2\\3.4", " 3.4 "])
def test_uid_lists_are_parted_by_comma_or_backslash(text: str) -> None:
    assert finds("StudyInstanceUID", text, "3.4")
    assert not finds("StudyInstanceUID", text, "3.40")


def test_codes_are_taken_as_lists_and_text_only_when_asked() -> None:
    assert finds("ModalitiesInStudy", "CT,MR", "SR", "MR")
    assert not finds("ModalitiesInStudy", "CT,MR", "US")
    assert finds("PatientID", "a,b", "a,b")
    assert not finds("PatientID", "a,b", "a")
    assert finds("PatientID", "a,b", "a", multiple=True)
    assert finds("PatientID", "a*,b", "ax", multiple=True)


def test_empty_value_matches_what_is_absent_or_empty_only() -> None:
    assert finds("AccessionNumber", '""')
    assert not finds("AccessionNumber", '""', "A")
    assert finds("PatientName", '""')
    assert not finds("PatientName", '""', pn("", "山田"))


@pytest.mark.parametrize("text", ["\0", "\0\0", " \0", "a\0b"])
def test_nul_bytes_alone_do_not_match_everything(text: str) -> None:
    with pytest.raises(QueryInvalid):
        match_for(key("PatientID"), text)
    assert finds("PatientID", "a\0", "a")


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("20240115", "20240115", True),
        ("2024.01.15", "20240115", True),
        ("20240115", "2024.01.15", True),
        ("20240101-20241231", "20240115", True),
        ("20240116-", "20240115", False),
        ("-20240115", "20240115", True),
        ("19700102-END", "20240115", True),
        ("START-20240114", "20240115", False),
        ("-20240115", "not a date", False),
    ],
)
def test_dates_match_singly_and_in_ranges(text: str, value: str, found: bool) -> None:
    assert finds("StudyDate", text, value) is found


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("10", "1059", True),
        ("1015", "101559.5", True),
        ("101500", "101500.25", True),
        ("101500", "101501", False),
        ("10:15:00", "101500", True),
        ("1000-1100", "110059.9", True),
        ("1000-1100", "1101", False),
        ("-0959", "0959", True),
    ],
)
def test_times_match_to_the_precision_that_was_given(text: str, value: str, found: bool) -> None:
    assert finds("StudyTime", text, value) is found


def test_numbers_match_however_they_are_written() -> None:
    assert finds("SeriesNumber", "+5", 5)
    assert finds("SeriesNumber", "05", "5 ")
    assert not finds("SeriesNumber", "5", "50")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("StudyDate", "2024-01-15"),
        ("StudyDate", "20240230"),
        ("StudyDate", "2024011*"),
        ("StudyDate", "-"),
        ("StudyDate", "20240102-20240101"),
        ("StudyTime", "2500"),
        ("StudyTime", "1"),
        ("StudyInstanceUID", "1.2.*"),
        ("StudyInstanceUID", "1.2.x"),
        ("StudyInstanceUID", "1" * 65),
        ("StudyInstanceUID", ","),
        ("SeriesNumber", "one"),
        ("SeriesNumber", "1?"),
        ("PatientName", "a=b=c=d"),
        ("PatientName", "*a" * 17),
        ("PatientID", "x" * 1025),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused(name: str, text: str) -> None:
    with pytest.raises(QueryInvalid):
        match_for(key(name), text)


def test_date_and_time_ranges_become_one_interval() -> None:
    keys = arrange([match_for(key("StudyDate"), "20240115-20240220"), match_for(key("StudyTime"), "1100-1200")])
    assert [type(match) for match in keys] == [DateTimeSpan]

    def at(date: str, time: str) -> bool:
        return matches(keys[0], {"00080020": {"Value": [date]}, "00080030": {"Value": [time]}})

    assert at("20240115", "1100")
    assert not at("20240115", "1059")
    assert at("20240201", "0300")
    assert at("20240220", "1200")
    assert not at("20240220", "1201")


def test_without_negotiation_date_and_time_stay_apart() -> None:
    keys = [match_for(key("StudyDate"), "20240115-20240220"), match_for(key("StudyTime"), "1100-1200")]
    assert arrange(keys, combine=False) == tuple(keys)
    single = [match_for(key("StudyDate"), "20240115-20240220"), match_for(key("StudyTime"), "1100")]
    assert arrange(single) == tuple(single)


def test_keys_of_one_sequence_must_hold_in_one_item() -> None:
    keys = arrange(
        [
            match_for(key("00400275.00400009"), "S1"),
            match_for(key("RequestAttributesSequence.RequestedProcedureID"), "R2"),
        ]
    )
    assert [type(match) for match in keys] == [InItem]

    def item(step: str, procedure: str) -> dict[str, object]:
        return {"00400009": {"vr": "SH", "Value": [step]}, "00401001": {"vr": "SH", "Value": [procedure]}}

    def held(*items: object) -> dict[str, dict[str, object]]:
        return {"00400275": {"vr": "SQ", "Value": list(items)}}

    assert not matches(keys[0], held(item("S1", "R1"), item("S2", "R2")))
    assert matches(keys[0], held(item("S1", "R1"), item("S1", "R2")))
    assert not matches(keys[0], {})


def test_a_query_refuses_keys_below_its_level_and_negative_pages() -> None:
    with pytest.raises(QueryInvalid):
        Query(Level.STUDY, keys=(match_for(key("Modality"), "CT"),))
    with pytest.raises(QueryInvalid):
        Query(Level.STUDY, limit=-1)
    assert Query(Level.SERIES, keys=(match_for(key("PatientID"), "P"),)).limit == 100


@given(st.sampled_from(["PatientName", "StudyDate", "StudyTime", "SeriesNumber", "Modality", "PatientID"]), st.text())
def test_any_text_is_either_understood_or_refused(name: str, text: str) -> None:
    try:
        match = match_for(key(name), text)
    except QueryInvalid:
        return
    assert matches(match, {}) is isinstance(match, Universal) or text == '""'


@given(st.text(min_size=1))
def test_fuzzy_matching_finds_at_least_what_plain_matching_finds(name: str) -> None:
    query = f"*{name[: len(name) // 2 + 1]}*"
    try:
        plain = finds("PatientName", query, pn(name))
    except QueryInvalid:
        return
    assert finds("PatientName", query, pn(name), fuzzy=True) or not plain
