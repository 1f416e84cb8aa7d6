"""What a request asks of the trustless gateway (IPFS "Trustless Gateway Specification", section "HTTP Request")."""

from __future__ import annotations

import pytest

from bridge.errors import NotAcceptable, RequestError
from dicomweb.trustless import CAR, RAW, Wanted, wanted

CAR_OF_ALL = Wanted("car", "all")


def asked(query: str = "", accept: str | None = None) -> Wanted:
    return wanted([tuple(pair.split("=", 1)) for pair in query.split("&") if pair], accept)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("format=raw", None, Wanted("raw", "block")),
        ("", RAW, Wanted("raw", "block", told=False)),
        ("format=car", None, CAR_OF_ALL),
        ("", CAR, Wanted("car", "all", told=False)),
        ("format=raw", CAR, Wanted("raw", "block")),
        ("format=car", RAW, CAR_OF_ALL),
        ("format=car", "*/*", CAR_OF_ALL),
        ("", f"{RAW};q=0.5, {CAR}", Wanted("car", "all", told=False)),
        ("", f"{CAR};q=0.5, {RAW}", Wanted("raw", "block", told=False)),
        ("", f"{CAR};order=foo, {CAR};order=dfs;dups=y;q=0.5", Wanted("car", duplicates=True, told=False)),
        ("", f"{CAR};q=0, {RAW};q=0.1", Wanted("raw", "block", told=False)),
    ],
)
def test_the_format_is_that_of_the_query_else_of_the_accept_header(
    query: str, accept: str | None, expected: Wanted
) -> None:
    assert asked(query, accept) == expected


@pytest.mark.parametrize("accept", [None, "*/*", "text/html, */*;q=0.8", "application/*"])
def test_a_request_that_names_no_format_is_refused_as_the_strict_mode_asks(accept: str | None) -> None:
    with pytest.raises(RequestError) as refused:
        asked("", accept)
    assert not isinstance(refused.value, NotAcceptable)


@pytest.mark.parametrize("accept", ["text/html", "application/vnd.ipfs.ipns-record", f"{CAR};version=2", f"{RAW};q=0"])
def test_a_format_that_is_not_given_here_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        asked("", accept)


@pytest.mark.parametrize("format", ["ipns-record", "tar", "dag-json"])
def test_a_format_of_other_gateways_is_not_acceptable(format: str) -> None:
    with pytest.raises(NotAcceptable):
        asked(f"format={format}")


@pytest.mark.parametrize(
    ("query", "scope", "span"),
    [
        ("", "all", None),
        ("dag-scope=block", "block", None),
        ("dag-scope=entity", "entity", None),
        ("dag-scope=all", "all", None),
        ("entity-bytes=0:*", "entity", (0, None)),
        ("entity-bytes=-1024:*", "entity", (-1024, None)),
        ("entity-bytes=499:-1000", "entity", (499, -1000)),
        ("entity-bytes=5:5", "entity", (5, 5)),
        ("dag-scope=block&entity-bytes=0:9", "block", (0, 9)),
    ],
)
def test_scope_and_bytes_of_a_car(query: str, scope: str, span: tuple[int, int | None] | None) -> None:
    found = asked(f"format=car&{query}")
    assert (found.scope, found.span) == (scope, span)


@pytest.mark.parametrize(
    "query",
    [
        "format=",
        "format=zip",
        "format=raw&format=car",
        "format=car&dag-scope=tree",
        "format=car&entity-bytes=5",
        "format=car&entity-bytes=*:5",
        "format=car&entity-bytes=5:2",
        "format=car&entity-bytes=-2:-5",
        "format=car&entity-bytes=a:b",
        "format=car&entity-bytes=0:99999999999999999999",
        "format=car&car-version=2",
        "format=car&car-order=bfs",
        "format=car&car-dups=maybe",
        'format=raw&filename=a"b',
        "format=raw&filename=../a",
    ],
)
def test_a_value_that_means_nothing_is_refused(query: str) -> None:
    with pytest.raises(RequestError):
        asked(query)


def test_query_parameters_of_a_car_go_before_those_of_the_accept_header() -> None:
    found = asked("format=car&car-dups=n", f"{CAR};version=1;order=dfs;dups=y")
    assert not found.duplicates
    assert asked("format=car", f"{CAR};version=1;order=dfs;dups=y").duplicates


def test_the_content_type_says_version_order_and_duplicates_whatever_was_asked_for() -> None:
    assert asked("format=car").media_type == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    assert asked("format=car&car-order=unk&car-dups=y").media_type.endswith("order=dfs; dups=y")
    assert asked("format=raw").media_type == "application/vnd.ipld.raw"


def test_the_query_string_alone_asks_for_the_same() -> None:
    for query in ("format=raw", "format=car&dag-scope=block", "format=car&entity-bytes=-5:*&car-dups=y"):
        found = asked(query)
        assert asked(found.query) == found
    assert asked("", f"{CAR};dups=y").query == "format=car&dag-scope=all&car-dups=y"


def test_what_the_specification_does_not_name_is_ignored() -> None:
    assert asked("format=raw&utm_source=mail&download=true") == Wanted("raw", "block")
