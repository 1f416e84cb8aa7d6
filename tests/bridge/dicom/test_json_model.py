"""The DICOM JSON Model (PS3.18 Annex F), value by value."""

from __future__ import annotations

import json
import struct
from decimal import Decimal
from math import inf, nan

import pytest
from dicom_samples import BIG, EXPLICIT, element, instance, item, scan
from hypothesis import given
from hypothesis import strategies as st

from bridge.dicom.data_set import DataSetReader
from bridge.dicom.json_model import CONVERTERS, Context
from bridge.dicom.transfer_syntaxes import of


def value_of(tag: int, vr: bytes, value: bytes, *, big: bool = False) -> dict[str, object]:
    reader = DataSetReader(of(BIG if big else EXPLICIT))
    reader.feed(element(tag, vr, value, order=">" if big else "<"))
    reader.finish()
    return reader.attributes[f"{tag:08X}"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1", [1]),
        (" 12.50 ", [12.5]),
        ("+5", [5]),
        ("-0.5\\.5\\5.", [-0.5, 0.5, 5.0]),
        ("1\\\\3", [1, None, 3]),
        ("1e3", [1000.0]),
        ("0.1234567890123456", [0.1234567890123456]),
        ("1.0000000000000000001", ["1.0000000000000000001"]),
        ("9007199254740993", ["9007199254740993"]),
        ("1e400", ["1e400"]),
        ("1e-400", ["1e-400"]),
        ("nan", ["nan"]),
        ("1_000", ["1_000"]),
        ("Infinity", ["Infinity"]),
        ("5-3", ["5-3"]),
        ("", None),
        ("  ", None),
        ("\\", [None, None]),
    ],
)
def test_ds_and_is_are_numbers_where_nothing_is_lost(text: str, want: list[object] | None) -> None:
    for vr in (b"DS", b"IS"):
        assert value_of(0x00181030, vr, text.encode()).get("Value") == want


@given(st.decimals(allow_nan=False, allow_infinity=False).map(str))
def test_a_number_in_json_has_the_value_that_was_written(text: str) -> None:
    (value,) = CONVERTERS["DS"](text.encode(), Context("<", set())) or [None]
    if isinstance(value, str):
        assert value == text
    else:
        assert Decimal(json.dumps(value)) == Decimal(text)


@pytest.mark.parametrize(("vr", "code"), [(b"FL", "f"), (b"FD", "d")])
@pytest.mark.parametrize("number", [nan, inf, -inf])
def test_what_is_no_json_number_is_fetched_as_bulk(vr: bytes, code: str, number: float) -> None:
    data = instance(behind=element(0x00209089, vr, struct.pack("<2" + code, 1.0, number)))
    found = scan(EXPLICIT, data)
    assert found.attributes_json["00209089"] == {"vr": vr.decode(), "BulkDataURI": "bulkdata/00209089"}
    bulk = found.bulk["00209089"]
    one, other = struct.unpack("<2" + code, data[bulk.offset : bulk.offset + bulk.length])
    assert one == 1.0
    assert repr(other) == repr(number)


@pytest.mark.parametrize("big", [False, True])
def test_binary_numbers_of_both_byte_orders(big: bool) -> None:
    order = ">" if big else "<"
    assert value_of(0x00280010, b"US", struct.pack(order + "2H", 1, 65535), big=big)["Value"] == [1, 65535]
    assert value_of(0x00280010, b"SS", struct.pack(order + "h", -2), big=big)["Value"] == [-2]
    assert value_of(0x00280010, b"SL", struct.pack(order + "i", -3), big=big)["Value"] == [-3]
    assert value_of(0x00280010, b"FD", struct.pack(order + "d", 0.1), big=big)["Value"] == [0.1]
    assert value_of(0x00280010, b"UV", struct.pack(order + "2Q", 7, 2**64 - 1), big=big)["Value"] == [7, str(2**64 - 1)]
    assert value_of(0x00280010, b"SV", struct.pack(order + "q", -7), big=big)["Value"] == [-7]
    tags = struct.pack(order + "4H", 0x0018, 0x106A, 0x7FE0, 0x0010)
    assert value_of(0x00280009, b"AT", tags, big=big)["Value"] == ["0018106A", "7FE00010"]
    assert value_of(0x00281201, b"OW", struct.pack(order + "2H", 1, 2), big=big)["InlineBinary"] == "AQACAA=="
    assert value_of(0x00281201, b"OB", b"\1\2", big=big)["InlineBinary"] == "AQI="


def test_names_hold_only_the_groups_that_are_there() -> None:
    assert value_of(0x00100010, b"PN", b"Doe^John=== ")["Value"] == [{"Alphabetic": "Doe^John"}]
    assert value_of(0x00100010, b"PN", b"==x^y ")["Value"] == [{"Phonetic": "x^y"}]
    assert value_of(0x00100010, b"PN", b"A\\\\B=C")["Value"] == [
        {"Alphabetic": "A"},
        None,
        {"Alphabetic": "B", "Ideographic": "C"},
    ]
    assert value_of(0x00100010, b"PN", b" ") == {"vr": "PN"}


def test_present_and_empty_is_only_a_vr() -> None:
    for vr in (b"LO", b"PN", b"DS", b"US", b"OB", b"UN", b"SQ", b"UT", b"AT", b"FD"):
        want = {"vr": "LO" if vr == b"UN" else vr.decode()}
        assert value_of(0x00100020, vr, b"") == want
    assert value_of(0x00081140, b"SQ", item(b""))["Value"] == [{}]
    assert value_of(0x00080008, b"CS", b"A\\\\B ")["Value"] == ["A", None, "B"]


def test_backslash_and_leading_spaces_belong_to_long_text() -> None:
    assert value_of(0x00204000, b"LT", b" a\\b  ")["Value"] == [" a\\b"]
    assert value_of(0x00204000, b"UT", b" a\\b  ")["Value"] == [" a\\b"]
    assert value_of(0x00204000, b"UC", b"a\\b ")["Value"] == ["a", "b"]
    assert value_of(0x00204000, b"UR", b"http://x ")["Value"] == ["http://x"]


def test_binary_is_inline_up_to_1024_bytes_and_bulk_beyond_at_any_depth() -> None:
    small, large = bytes(range(256)) * 4, bytes(1026)
    values = element(0x00091001, b"OB", small) + element(0x00091002, b"OB", large)
    data = instance(behind=values + element(0x00400275, b"SQ", item(values)))
    found = scan(EXPLICIT, data)
    inner = found.attributes_json["00400275"]["Value"][0]
    assert "InlineBinary" in inner["00091001"]
    assert inner["00091002"] == {"vr": "OB", "BulkDataURI": "bulkdata/00400275.0.00091002"}
    assert set(found.bulk) == {"00091002", "00400275.0.00091002"}
    for bulk in found.bulk.values():
        assert data[bulk.offset : bulk.offset + bulk.length] == large
        assert bulk.vr == "OB"


def test_long_text_and_contours_stay_inline() -> None:
    text = b"x" * 100_000
    contour = b"\\".join([b"1.25", b"-3", b"4.5"] * 10_000)
    data = instance(behind=element(0x00204000, b"UT", text) + element(0x00091010, b"UN", b""))
    assert scan(EXPLICIT, data).attributes_json["00204000"]["Value"] == [text.decode()]
    values = CONVERTERS["DS"](contour, Context("<", set()))
    assert values == [1.25, -3, 4.5] * 10_000


def test_group_lengths_and_pixel_data() -> None:
    data = instance(behind=element(0x00280000, b"UL", bytes(4)) + element(0x7FE00010, b"OW", bytes(8)))
    found = scan(EXPLICIT, data)
    assert "00280000" not in found.attributes_json
    assert found.attributes_json["7FE00010"] == {"vr": "OW", "BulkDataURI": "bulkdata/7FE00010"}
    assert found.bulk["7FE00010"].length == 8
    assert found.length == len(data)
