"""A timeline's address says which events it shows, and every selection has its address."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import RequestError
from dicomweb.console.selection import Selection, for_input, parse
from ledger.event import EventQuery

TIMES = st.none() | st.integers(0, 4_000_000_000_000).map(lambda ms: ms * 1000)
PAIRS = st.lists(
    st.tuples(st.sampled_from(["type", "actor", "role", "purpose"]), st.text(min_size=1, max_size=20))
    | st.tuples(st.just("outcome"), st.sampled_from(["0", "4", "8", "12"]))
    | st.tuples(st.just("node"), st.binary(min_size=16, max_size=16).map(bytes.hex)),
    max_size=6,
    unique=True,
)
SELECTIONS = st.builds(
    Selection,
    PAIRS.map(tuple),
    st.none() | st.just("1.2.840.1"),
    st.none() | st.text(min_size=1, max_size=20).filter(lambda text: text == text.strip()),
    TIMES,
    TIMES,
    st.none() | st.integers(0, 10**9),
)


def read(address: str) -> Selection:
    return parse(parse_qsl(address.partition("?")[2], keep_blank_values=True))


@given(SELECTIONS)
def test_an_address_gives_the_selection_that_made_it(selection: Selection) -> None:
    assert read(selection.address) == selection


def test_the_query_asks_what_the_address_says() -> None:
    selection = read(
        "/console/?type=study.access&type=study.store&actor=Ann&role=&outcome=4&purpose=TREAT&node=" + "ab" * 16 + "&"
        "study=1.2.3&patient=P%2F1&since=2026-10-01T08:00:00Z&until=2026-10-01T10:00%2B01:00&before=77"
    )
    eight = 1_790_841_600_000_000
    assert selection.query(9) == EventQuery(
        types=("study.access", "study.store"),
        actors=("Ann",),
        roles=("",),
        studies=("1.2.3",),
        patient="P/1",
        purposes=("TREAT",),
        outcomes=(4,),
        nodes=(b"\xab" * 16,),
        since_us=eight,
        until_us=eight + 3_600_000_000,
        before=77,
        limit=9,
    )
    assert for_input(eight) == "2026-10-01T08:00:00"
    assert read("/console/?since=2026-10-01T08:00").since == eight  # as a form without an offset sends it: UTC


def test_a_form_sends_empty_fields_for_what_nobody_filled_in() -> None:
    assert read("/console/?type=&since=&until=&study=&patient=&before=&node=&actor=") == Selection()
    assert not read("/console/?before=5").restricted
    assert read("/console/?actor=x").restricted


def test_choosing_twice_is_not_choosing_and_starts_from_the_newest_page() -> None:
    once = Selection(before=7).toggled("actor", "Ann")
    assert (once.of("actor"), once.before) == (("Ann",), None)
    assert once.toggled("actor", "Ann") == Selection()
    assert once.toggled("actor", "Ben").without("actor") == Selection()
    assert Selection(patient="p", study="1.2").without("patient") == Selection(study="1.2")
    assert Selection(patient="p", study="1.2").without("study") == Selection(patient="p")
    assert Selection(before=3).within(1, 2) == Selection(since=1, until=2)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("colour=red", "no such parameter"),
        ("outcome=5", "outcome is 0, 4, 8 or 12"),
        ("node=xyz", "node is the id"),
        ("study=../../x", "study is not"),
        ("before=-1", "before is not"),
        ("since=yesterday", "since is not a time"),
        ("until=0001-01-01T00:00", "until is before 1970"),
        ("study=1.2&study=1.3", "study is given more than once"),
        ("actor=" + "x" * 201, "actor is too long"),
        ("&".join(f"actor={number}" for number in range(60)), "more than 50"),
    ],
)
def test_what_has_no_meaning_is_refused_by_its_name(query: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read("/console/?" + query)
