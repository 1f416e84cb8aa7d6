"""The multipart parser: any cutting gives the same parts, and Python's own email parser agrees."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import HTTP
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import MultipartInvalid
from dicomweb import multipart
from dicomweb.multipart import MultipartParser, PartBegin, PartData, PartEnd, closing, part_opening

BOUNDARY = "3f9c0d7e"
Parts = list[tuple[dict[str, str], bytes]]

# Bodies made of what could be mistaken for a delimiter.
fragments = st.sampled_from(
    [b"\r\n", b"--", b"\r\n--", b"\r\n--3f9c", b"\r\n--3f9c0d7", b"-", b"x", b"\0", b"DICM", b"\r\n-", b"\xff\xfe"]
)
payloads = st.one_of(st.binary(max_size=300), st.lists(fragments, max_size=12).map(b"".join))


def parse(pieces: list[bytes], boundary: str = BOUNDARY) -> Parts:
    """Complete parts only, as a receiver must count them."""
    parser = MultipartParser(boundary)
    parts: Parts = []
    headers: dict[str, str] = {}
    data = b""
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartBegin):
                headers, data = dict(event.headers), b""
            elif isinstance(event, PartData):
                assert event.data
                data += event.data
            else:
                assert isinstance(event, PartEnd)
                parts.append((headers, data))
    parser.close()
    return parts


def message(bodies: list[bytes], preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    opened = [
        part_opening(BOUNDARY, "application/dicom", len(body), f"/i/{n}", first=n == 0) + body
        for n, body in enumerate(bodies)
    ]
    return preamble + b"".join(opened) + closing(BOUNDARY) + epilogue


def cut(whole: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(whole), *(c % (len(whole) + 1) for c in cuts)})
    return [whole[a:b] for a, b in pairwise(at)]


@given(bodies=st.lists(payloads, min_size=1, max_size=4), cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_any_cutting_gives_the_same_parts(bodies: list[bytes], cuts: list[int]) -> None:
    whole = message(bodies, b"\r\n", b"\0" * 30)
    parts = parse(cut(whole, cuts))
    assert [data for _, data in parts] == bodies
    assert parts == parse([whole]) == parse([whole[i : i + 1] for i in range(len(whole))])


@given(
    bodies=st.lists(
        st.text("ab -\r\n", max_size=60).map(lambda t: t.replace("\r", "").replace("\n", "\r\n")), min_size=1
    )
)
def test_the_email_parser_finds_the_same_parts(bodies: list[str]) -> None:
    whole = message([body.encode() for body in bodies], b"preamble\r\n", b"\r\nepilogue")
    head = f'Content-Type: multipart/related; boundary="{BOUNDARY}"\r\nMIME-Version: 1.0\r\n\r\n'.encode()
    expected = [
        ({name.lower(): value for name, value in part.items()}, part.get_payload(decode=True))
        for part in message_from_bytes(head + whole, policy=HTTP).iter_parts()  # type: ignore[attr-defined]
    ]
    assert parse([whole]) == expected


@given(body=payloads, missing=st.integers(1, len(closing(BOUNDARY))))
def test_a_truncated_message_ends_no_part(body: bytes, missing: int) -> None:
    whole = message([body])
    parser = MultipartParser(BOUNDARY)
    events = list(parser.feed(whole[:-missing]))
    assert not any(isinstance(event, PartEnd) for event in events)
    with pytest.raises(MultipartInvalid):
        parser.close()


def test_a_part_may_have_neither_headers_nor_body() -> None:
    assert parse([b"--b\r\n\r\n\r\n--b--"], "b") == [({}, b"")]
    assert parse([b"--b\r\nX: 1\r\n\r\n--b--"], "b") == [({"x": "1"}, b"")]
    assert parse([b"--b--"], "b") == []


def test_padding_after_a_boundary_is_dropped_and_a_longer_line_is_data() -> None:
    assert parse([b"--b \t \r\n\r\nA\r\n--bc\r\nB\r\n--b  \r\n\r\nC\r\n--b--"], "b") == [
        ({}, b"A\r\n--bc\r\nB"),
        ({}, b"C"),
    ]


def test_folded_headers_are_joined() -> None:
    whole = b'--b\r\nContent-Type: application/dicom;\r\n transfer-syntax="1.2"\r\n\r\nx\r\n--b--'
    assert parse([whole], "b") == [({"content-type": 'application/dicom; transfer-syntax="1.2"'}, b"x")]


@pytest.mark.parametrize(
    "whole",
    [
        b"--b\nContent-Type: application/dicom\n\nx\n--b--\n",
        b"--b\r\nContent-Type: application/dicom\nX: y\r\n\r\nx\r\n--b--",
        b"--b\r\nno colon\r\n\r\nx\r\n--b--",
        b"--b\r\nA: 1\r\na: 2\r\n\r\nx\r\n--b--",
        b"--b\r\n" + b"A: " + b"x" * multipart.MAX_HEADER_BLOCK + b"\r\n\r\nx\r\n--b--",
        b"--b\r\n" + b"".join(b"A%d: x\r\n" % n for n in range(multipart.MAX_HEADERS + 1)) + b"\r\nx\r\n--b--",
        b"nothing of the kind",
        b"",
        b"p" * (multipart.MAX_PREAMBLE + 1000) + b"\r\n--b--",
    ],
)
def test_malformed_messages_are_refused(whole: bytes) -> None:
    with pytest.raises(MultipartInvalid):
        parse([whole], "b")


@pytest.mark.parametrize("boundary", ["", "x" * 71, "trailing ", "ü", "semi;colon", "a\r\nb"])
def test_boundaries_that_rfc_2046_does_not_allow_are_refused(boundary: str) -> None:
    with pytest.raises(MultipartInvalid):
        MultipartParser(boundary)


def test_memory_stays_bounded_by_what_was_fed_last() -> None:
    parser = MultipartParser(BOUNDARY)
    list(parser.feed(part_opening(BOUNDARY, "application/dicom", 0, "/", first=True)))
    for _ in range(200):
        list(parser.feed(b"\r\n--" * 1000))
        assert len(parser._buffer) < 100
