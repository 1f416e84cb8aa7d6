"""What arrives in pieces, damaged, or made to do harm (PS3.5 section 7)."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib

import pytest
from dicom_samples import (
    BIG,
    DATA,
    EXPLICIT,
    IMPLICIT,
    SEQUENCE_END,
    UIDS,
    element,
    implicit,
    instance,
    item,
    part10_files,
    scan,
    split,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.dicom import limits
from bridge.dicom.instance import InstanceReader
from bridge.errors import CairnError, IdentityMissing, Unreadable
from bridge.model import InstanceKey

DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG_LS = "1.2.840.10008.1.2.4.80"
UNDEFINED = 0xFFFFFFFF
SMALL = DATA / "highdicom" / "seg_image_cr_binary.dcm"
PIECEWISE = [
    path
    for path in part10_files()
    if path.stat().st_size < 40_000 and "DICOMDIR" not in path.name and "truncated" not in path.name
]


def outcome(syntax: str, data_set: bytes, step: int = 0) -> object:
    try:
        found = scan(syntax, data_set, step)
    except CairnError as error:
        return type(error), error.detail
    return found.identity, found.json, found.frames.encode(), found.bulk.encode(), found.length, found.warnings


@pytest.mark.parametrize("path", PIECEWISE, ids=lambda path: path.name)
def test_the_size_of_the_pieces_does_not_matter(path) -> None:
    syntax, data_set = split(path)
    whole = outcome(syntax, data_set)
    assert outcome(syntax, data_set, 1) == whole
    assert outcome(syntax, data_set, 1021) == whole


@pytest.mark.parametrize("name", ["seg_image_cr_binary.dcm", "sr_document.dcm"])
def test_truncation_at_every_byte_is_an_error_or_a_whole_data_set(name: str) -> None:
    syntax, data_set = split(DATA / "highdicom" / name)
    whole = scan(syntax, data_set).attributes_json
    for size in range(len(data_set)):
        try:
            found = scan(syntax, data_set[:size])
        except (Unreadable, IdentityMissing):
            continue
        kept = found.attributes_json.items()
        assert all(whole[tag] == value for tag, value in kept if tag != "00080005")
        assert len(kept) < len(whole)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damage_of_any_kind_ends_in_a_reading_or_in_an_error_of_ours(data: st.DataObject) -> None:
    syntax, sound = split(SMALL)
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + 1] = data.draw(st.binary(max_size=4))
    chosen = data.draw(st.sampled_from([syntax, IMPLICIT, BIG, DEFLATED, JPEG_LS]))
    assert outcome(chosen, bytes(damaged)) == outcome(chosen, bytes(damaged), 7)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]))
def test_bytes_of_no_meaning_end_in_an_error_of_ours(data: bytes, syntax: str) -> None:
    with pytest.raises(CairnError):
        scan(syntax, data)


def test_the_identity_is_known_before_the_data_set_ends() -> None:
    reader = InstanceReader(EXPLICIT)
    reader.feed(UIDS[0])
    assert reader.identity is None
    reader.feed(UIDS[1])
    assert reader.identity is not None
    assert reader.identity.key == InstanceKey("1.2.3.1", "1.2.3.2", "1.2.3.3")
    assert reader.identity.sop_class == "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize("missing", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
@pytest.mark.parametrize("value", [None, b"", b"..", b"1.2.x ", b"1" * 65 + b"\0", b"../../etc/passwd"])
def test_an_identity_that_is_missing_or_none_is_refused(missing: int, value: bytes | None) -> None:
    data_set = b"".join(
        element(tag, b"UI", b"1.2.3\0" if tag != missing else value)
        for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
        if tag != missing or value is not None
    )
    with pytest.raises(IdentityMissing):
        scan(EXPLICIT, data_set)
    with pytest.raises(IdentityMissing):  # as soon as the pixel data begin, not after gigabytes of them
        InstanceReader(EXPLICIT).feed(data_set + element(0x7FE00010, b"OW", b"", length=1 << 30))


def test_an_empty_data_set_has_no_identity() -> None:
    with pytest.raises(IdentityMissing):
        scan(EXPLICIT, b"")


def nested(depth: int, *, undefined: bool) -> bytes:
    value = b""
    for _ in range(depth):
        if undefined:
            value = element(0x00081140, b"SQ", item(value, undefined=True) + SEQUENCE_END, length=UNDEFINED)
        else:
            value = element(0x00081140, b"SQ", item(value))
    return value


@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_may_be_64_deep_and_no_deeper(undefined: bool) -> None:
    found = scan(EXPLICIT, instance(nested(limits.DEPTH, undefined=undefined)))
    assert found.json.count(b"00081140") == limits.DEPTH
    with pytest.raises(Unreadable, match="deep"):
        scan(EXPLICIT, instance(nested(limits.DEPTH + 1, undefined=undefined)))
    opened = element(0x00081140, b"SQ", b"", length=UNDEFINED) + implicit(0xFFFEE000, b"", length=UNDEFINED)
    with pytest.raises(Unreadable, match="deep"):
        scan(EXPLICIT, instance(opened * 20_000))


def test_a_million_empty_items_are_refused() -> None:
    items = implicit(0xFFFEE000, b"") * 1_000_000
    with pytest.raises(Unreadable, match="items"):
        scan(EXPLICIT, instance(element(0x00081140, b"SQ", items)))


def test_half_a_million_elements_are_refused() -> None:
    with pytest.raises(Unreadable, match="elements"):
        scan(EXPLICIT, instance(element(0x00100020, b"LO", b"") * 500_000))
    with pytest.raises(Unreadable, match="elements"):
        scan(EXPLICIT, instance(implicit(0xFFFEE00D, b"") * 500_000))


def test_a_string_of_four_million_values_is_left_out_or_refused() -> None:
    values = b"\\".join([b"1"] * 4_000_000) + b" "
    found = scan(EXPLICIT, instance(behind=element(0x00209228, b"UC", values)))
    assert found.attributes_json["00209228"] == {"vr": "UC", "BulkDataURI": "bulkdata/00209228"}
    in_implicit = b"".join(
        implicit(tag, b"1.2.3\0") for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
    ) + implicit(0x00204000, values)
    assert "BulkDataURI" in scan(IMPLICIT, in_implicit).attributes_json["00204000"]
    with pytest.raises(Unreadable, match="VR LO"):
        scan(IMPLICIT, implicit(0x00100020, values))


def test_numbers_beyond_the_limit_of_all_together_are_left_out() -> None:
    numbers = element(0x00700022, b"FL", struct.pack("<12000f", *range(12000)))
    graphics = element(0x00700009, b"SQ", item(numbers) * 90)
    items = scan(EXPLICIT, instance(behind=graphics)).attributes_json["00700009"]["Value"]
    inline = sum("Value" in one["00700022"] for one in items)
    assert inline == limits.INLINE_VALUES // 12000
    assert items[-1]["00700022"] == {"vr": "FL", "BulkDataURI": "bulkdata/00700009.89.00700022"}


def test_pixel_data_and_bulk_values_take_no_memory() -> None:
    reader = InstanceReader(EXPLICIT)
    chunk = bytes(1 << 20)
    tracemalloc.start()
    reader.feed(instance(behind=element(0x00420011, b"OB", b"", length=64 << 20)))
    for _ in range(64):
        reader.feed(chunk)
    reader.feed(element(0x7FE00010, b"OW", b"", length=64 << 20))
    for _ in range(64):
        reader.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
    assert reader.finish().bulk["00420011"].length == 64 << 20


def test_a_deflate_bomb_is_refused_with_little_memory() -> None:
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = instance(behind=element(0x7FE00010, b"OW", b"", length=1 << 30))
    bomb = squeezed.compress(start) + b"".join(squeezed.compress(bytes(1 << 20)) for _ in range(256)) + squeezed.flush()
    tracemalloc.start()
    with pytest.raises(Unreadable, match="inflates"):
        scan(DEFLATED, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_deflated_data_set_must_come_to_its_end() -> None:
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    whole = squeezed.compress(instance(element(0x00100010, b"PN", b"Doe^John"))) + squeezed.flush()
    assert scan(DEFLATED, whole + b"\0").attributes_json["00100010"]["Value"] == [{"Alphabetic": "Doe^John"}]
    with pytest.raises(Unreadable, match="truncated"):
        scan(DEFLATED, whole[:-1])
    with pytest.raises(Unreadable, match="RFC 1951"):
        scan(DEFLATED, b"\xff" * 20)


@pytest.mark.parametrize(
    "lie",
    [
        element(0x00100020, b"LO", b"A", length=0xFFFE),
        element(0x00420011, b"OB", b"A", length=0xFFFFFFFE),
        element(0x00420011, b"UT", b"A", length=3 << 30),
        element(0x00081140, b"SQ", item(b""), length=0xFFFFFFF0),
        element(0x00081140, b"SQ", implicit(0xFFFEE000, b"", length=0x7FFFFFFF), length=UNDEFINED),
        element(0x00091010, b"UN", b"", length=UNDEFINED),
        element(0x7FE00010, b"OW", bytes(8), length=10),
        element(0x7FE00010, b"OB", implicit(0xFFFEE000, b"") + implicit(0xFFFEE000, bytes(4)), length=UNDEFINED),
        element(0x7FE00010, b"OB", implicit(0xFFFEE000, b"", length=0xFFFFFFF0), length=UNDEFINED),
        element(0x7FE00010, b"OB", implicit(0x00081140, b""), length=UNDEFINED),
        element(0x00100020, b"UT", b"", length=UNDEFINED),
    ],
)
def test_lying_lengths_are_unreadable(lie: bytes) -> None:
    with pytest.raises(Unreadable):
        scan(EXPLICIT, instance(behind=lie))


def test_too_long_a_header_is_refused() -> None:
    reader = InstanceReader(EXPLICIT)
    reader.feed(instance())
    text = element(0x00204000, b"UT", b"a" * limits.TEXT_BYTES)
    with pytest.raises(Unreadable, match="too long"):
        for _ in range(65):
            reader.feed(text)


def test_much_behind_the_pixel_data_is_refused() -> None:
    image = instance(behind=element(0x7FE00010, b"OW", bytes(8)))
    padding = element(0xFFFCFFFC, b"OB", bytes(2 << 20))
    assert "FFFCFFFC" in scan(EXPLICIT, image + padding).bulk
    with pytest.raises(Unreadable, match="too long"):
        scan(EXPLICIT, image + element(0x00204000, b"UT", b"a" * 600_000) * 2)


def test_what_a_lenient_viewer_can_show_is_read_with_a_warning() -> None:
    cases = {
        "odd length": (element(0x00100020, b"LO", b"ABC"), "00100020", {"vr": "LO", "Value": ["ABC"]}),
        "length of no word": (element(0x00280010, b"US", b"\x01\0\2"), "00280010", {"vr": "US", "Value": [1]}),
        "unknown VR": (
            element(0x00100020, b"??", b"AB"),
            "00100020",
            {"vr": "UN", "InlineBinary": "QUI="},
        ),
        "command": (element(0x00000002, b"UI", b"1.2\0"), "00100020", None),
        "meta": (element(0x00020010, b"UI", b"1.2\0"), "00100020", None),
        "delimiter": (implicit(0xFFFEE0DD, b""), "00100020", None),
        "private": (element(0x00091010, b"UN", b"AB"), "00091010", {"vr": "UN", "InlineBinary": "QUI="}),
    }
    for name, (data, tag, want) in cases.items():
        found = scan(EXPLICIT, instance(b"", data) if tag > "0020" else instance(data))
        assert found.attributes_json.get(tag) == want, name
        assert bool(found.warnings) == (name not in ("odd length", "private")), name
        assert not {"00000002", "00020010"} & found.attributes_json.keys()


def test_zero_bytes_behind_the_last_element_are_a_warning() -> None:
    assert scan(EXPLICIT, instance() + bytes(5)).warnings == ("zero bytes behind the last element",)
    with pytest.raises(Unreadable):
        scan(EXPLICIT, instance() + b"\0\0\1")


def test_elements_come_out_in_order_and_the_last_of_two_is_kept() -> None:
    late = element(0x00100020, b"LO", b"B ") + element(0x00100010, b"PN", b"A^A ") + element(0x00100020, b"LO", b"C ")
    found = scan(EXPLICIT, instance(behind=element(0x00081140, b"SQ", item(late)) + late))
    assert list(found.attributes_json) == sorted(found.attributes_json)
    assert list(found.attributes_json["00081140"]["Value"][0]) == ["00100010", "00100020"]
    assert found.attributes_json["00100020"]["Value"] == ["C"]
    assert "elements out of order" in found.warnings


def test_un_of_undefined_length_is_implicit_inside() -> None:
    inside = item(implicit(0x00080100, b"CODE"), undefined=True) + item(implicit(0x00080104, b"Text"))
    found = scan(EXPLICIT, instance(element(0x00091010, b"UN", inside + SEQUENCE_END, length=UNDEFINED)))
    want = [{"00080100": {"vr": "SH", "Value": ["CODE"]}}, {"00080104": {"vr": "LO", "Value": ["Text"]}}]
    assert found.attributes_json["00091010"] == {"vr": "SQ", "Value": want}
    assert found.warnings == ()


def test_un_that_is_known_is_taken_for_what_it_is() -> None:
    known = element(0x00100020, b"UN", b"ID") + element(0x00280010, b"UN", b"\2\1")
    creator = element(0x00290010, b"UN", b"CREATOR ")
    found = scan(EXPLICIT, instance(behind=known + creator)).attributes_json
    assert found["00100020"] == {"vr": "LO", "Value": ["ID"]}
    assert found["00280010"] == {"vr": "US", "Value": [258]}
    assert found["00290010"] == {"vr": "LO", "Value": ["CREATOR"]}


def test_the_other_form_of_vr_than_declared_is_read() -> None:
    data_set = instance(element(0x00100010, b"PN", b"Doe^John"))
    explicit = scan(IMPLICIT, data_set)
    assert explicit.attributes_json == scan(EXPLICIT, data_set).attributes_json
    assert explicit.warnings == ("explicit and implicit VR are mixed up",)
    bare = b"".join(implicit(tag, b"1.2.3\0") for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E))
    assert scan(EXPLICIT, bare).identity == scan(IMPLICIT, bare).identity


def test_items_without_their_delimiters_are_read() -> None:
    code = element(0x00080100, b"SH", b"CODE")
    opened = implicit(0xFFFEE000, code, length=UNDEFINED)
    for value, length in ((opened + opened + SEQUENCE_END, UNDEFINED), (opened, None)):
        found = scan(EXPLICIT, instance(element(0x00081140, b"SQ", value, length=length), b""))
        assert found.attributes_json["00081140"]["Value"][0] == {"00080100": {"vr": "SH", "Value": ["CODE"]}}
        assert found.attributes_json["0020000D"]["Value"] == ["1.2.3.1"]


def test_json_is_compact_utf8_of_the_attributes() -> None:
    found = scan(EXPLICIT, instance(element(0x00100010, b"PN", "Müller".encode("latin-1")), early=LATIN))
    assert json.loads(found.json) == found.attributes_json
    assert b", " not in found.json
    assert "Müller".encode() in found.json
    assert found.attributes_json["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


LATIN = element(0x00080005, b"CS", b"ISO_IR 100")
