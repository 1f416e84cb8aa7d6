"""Events as CSV: RFC 4180, and nothing that a spreadsheet would compute."""

from __future__ import annotations

import csv
import io

import pytest
from export_events import ERASED, STUDY, event_of
from hypothesis import given
from hypothesis import strategies as st

from ledger.event import Participant
from ledger.export.csv import COLUMNS, guarded, line, lines
from ledger.types import ENTRY_TYPES


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_a_header_and_one_line_for_each_event() -> None:
    events = [event_of(kind) for kind in ENTRY_TYPES]
    rows = read("".join(lines(events)))
    assert rows[0] == list(COLUMNS)
    assert [row[5] for row in rows[1:]] == list(ENTRY_TYPES)
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_a_line_says_who_what_when_why_and_of_whom() -> None:
    row = dict(zip(COLUMNS, read(list(lines([event_of("study.access")]))[1])[0], strict=True))
    assert row["time"] == "2023-11-14T22:13:20.123456Z"
    assert (row["actor"], row["role"], row["address"], row["how"]) == ("Dr Who", "viewer", "192.0.2.7", "http")
    assert (row["purpose"], row["outcome"], row["action"]) == ("TREAT", "success", "R")
    assert (row["patient id"], row["study"]) == ("P-17", STUDY)
    assert row["entry"] == event_of("study.access").id.hex()


def test_an_erased_study_reads_erased() -> None:
    assert ",erased," in list(lines([ERASED]))[1]


def test_lines_end_in_crlf_and_only_what_needs_it_is_quoted() -> None:
    assert line(["plain", 'say "so"', "a,b", ""]) == 'plain,"say ""so""","a,b",\r\n'


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "'", "＝", "＋", "－", "＠"])
def test_what_a_spreadsheet_would_compute_gets_an_apostrophe(first: str) -> None:
    assert guarded(f"{first}1+1").startswith("'")


def test_a_formula_in_a_name_stays_text() -> None:
    actor = Participant("user", '=HYPERLINK("http://evil.example","x")', "", "", "http")
    assert read(list(lines([event_of("study.query", actor=actor)]))[1])[0][9].startswith("'=HYPERLINK")


@given(st.lists(st.text(st.characters()), min_size=2, max_size=5))
def test_any_text_is_one_record_of_as_many_fields(values: list[str]) -> None:
    made = line(values)
    made.encode()
    assert made.endswith("\r\n") and made.count("\n") == 1
    (row,) = read(made)
    assert len(row) == len(values)
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
