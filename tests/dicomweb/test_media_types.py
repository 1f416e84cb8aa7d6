"""Content negotiation: PS3.18 8.7.5 to 8.7.8 and RFC 9110 12.5.1, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import NotAcceptable, RequestError
from dicomweb.media_types import Offer, choose, parse_accept, parse_media_type, refuse_mixture

JSON = Offer("application/dicom+json", wildcard=True)
PLAIN_JSON = Offer("application/json")
LITTLE, LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
OCTETS = Offer("application/octet-stream", LITTLE, multipart=True, wildcard=True)
ALONE = Offer("application/octet-stream", LITTLE)
JLS = Offer("image/jls", LS, multipart=True)
METADATA = [JSON, PLAIN_JSON]
FRAMES = [OCTETS, JLS, ALONE]
MIXED = "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.mark.parametrize(
    ("accept", "offers", "chosen"),
    [
        ("*/*", METADATA, JSON),
        ("application/dicom+json", METADATA, JSON),
        ("application/dicom+json, application/json", METADATA, JSON),
        ("application/json", METADATA, PLAIN_JSON),
        ("application/json, text/plain, */*", METADATA, PLAIN_JSON),
        (MIXED, METADATA, JSON),
        ("application/dicom+json; charset=utf-8", METADATA, JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", METADATA, JSON),
        ("application/*", METADATA, JSON),
        ("application/json;q=0.9, application/dicom+json;q=0.1", METADATA, PLAIN_JSON),
        ("application/dicom+json;q=0, */*", METADATA, None),
        ('multipart/related; type="application/dicom+xml"', METADATA, None),
        ("application/dicom+xml", METADATA, None),
        ("", METADATA, None),
        (";;;, /, rubbish, application/json", METADATA, PLAIN_JSON),
        ("*/*", FRAMES, OCTETS),
        ('multipart/related; type="*/*"', FRAMES, OCTETS),
        ("multipart/related", FRAMES, OCTETS),
        ("multipart/related; type=image/*", FRAMES, JLS),
        ("multipart/related; type=image/jls", FRAMES, JLS),
        ("multipart/related; type=image/x-jls", FRAMES, JLS),
        (f"multipart/related; type=image/jls; transfer-syntax={LS}", FRAMES, JLS),
        ("multipart/related; type=image/jls; transfer-syntax=1.2.840.10008.1.2.4.81", FRAMES, None),
        (
            "multipart/related; type=image/jp2;q=.9, multipart/related; type=application/octet-stream;q=.1",
            FRAMES,
            OCTETS,
        ),
        (
            f"multipart/related; type=application/octet-stream; transfer-syntax={LITTLE};q=0.5,"
            f"multipart/related; type=image/jls; transfer-syntax={LS};q=0.8",
            FRAMES,
            JLS,
        ),
        ("multipart/related; type=image/jls; q=0", FRAMES, None),
        ("multipart/related; type=image/jls; q=rubbish", FRAMES, None),
        ("application/octet-stream", FRAMES, ALONE),
        ("image/jls", FRAMES, None),
    ],
)
def test_8_7_8_1_what_is_chosen(accept: str, offers: list[Offer], chosen: Offer | None) -> None:
    if chosen is None:
        with pytest.raises(NotAcceptable, match="available: "):
            choose(accept, [], offers)
    else:
        assert choose(accept, [], offers) is chosen


def test_8_7_8_1_the_query_parameter_goes_first() -> None:
    assert choose("application/dicom+json", ["application/json"], METADATA) is PLAIN_JSON
    assert choose("application/dicom+json", ["image/jpeg"], METADATA) is JSON
    assert choose(None, ["application/json"], METADATA) is PLAIN_JSON


def test_8_7_5_no_accept_at_all_is_406() -> None:
    with pytest.raises(NotAcceptable, match="no Accept header"):
        choose(None, [], METADATA)


def test_8_7_5_dicom_and_rendered_types_do_not_mix() -> None:
    with pytest.raises(RequestError):
        refuse_mixture('multipart/related; type="application/dicom", image/png')
    for accept in (None, "*/*", "image/png", "text/html,*/*", MIXED):
        refuse_mixture(accept)


def test_quoted_values_may_hold_separators() -> None:
    (found,) = parse_accept(r'multipart/related; type="a\"b;c,d/e"; q=0.5')
    assert (found.parameters["type"], found.quality) == ('a"b;c,d/e', 0.5)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_accept(text)
    parse_media_type(text)
