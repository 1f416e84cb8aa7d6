"""The tables of PS3.6: data dictionary, transfer syntaxes, SOP Classes, each against pydicom's edition."""

from __future__ import annotations

import tracemalloc

import pytest
from generate_dictionary import TARGET, lines
from pydicom._dicom_dict import DicomDictionary
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR

from bridge.dicom import dictionary, storage_classes, transfer_syntaxes
from bridge.dicom.transfer_syntaxes import is_uid


def test_the_dictionary_file_is_what_its_generator_writes() -> None:
    assert TARGET.read_text(encoding="ascii").splitlines() == lines()


def test_vr_keyword_and_tag_of_every_element() -> None:
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr != "NONE":
            assert dictionary.vr_of(tag) == vr.replace(" or ", "/")
            assert dictionary.keyword_of(tag) == (keyword or None)
            assert not keyword or dictionary.tag_of(keyword) == tag


def test_repeating_private_and_unknown_elements() -> None:
    for tag in (0x60003000, 0x60023000, 0x601E0010, 0x50002500, 0x50FE3000, 0x002031AB, 0x7F100010):
        assert dictionary.vr_of(tag) == dictionary_VR(tag).replace(" or ", "/")
    assert dictionary.vr_of(0x00090010) == "LO"
    assert dictionary.vr_of(0x00091010) == "UN"
    assert dictionary.vr_of(0x60013000) == "UN"
    assert dictionary.vr_of(0x00080000) == "UL"
    assert dictionary.vr_of(0x00089999) == "UN"
    assert dictionary.keyword_of(0x00091010) is None
    assert dictionary.tag_of("NoSuchKeyword") is None


def test_what_the_parser_needs_of_the_dictionary_is_small() -> None:
    for cached in (dictionary._representations, dictionary._keywords, dictionary._tags):
        cached.cache_clear()
    tracemalloc.start()
    dictionary.vr_of(0x00100010)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 << 20


def test_every_transfer_syntax_is_known() -> None:
    theirs = {uid for uid, row in UID_dictionary.items() if row[1] == "Transfer Syntax"}
    newer = {f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)} | {"1.2.840.10008.1.2.8.1"}
    assert set(transfer_syntaxes.TRANSFER_SYNTAXES) == theirs | newer
    for uid, row in UID_dictionary.items():
        if uid in theirs:
            assert transfer_syntaxes.of(uid).name == row[0]


@pytest.mark.parametrize(
    ("uid", "explicit", "big_endian", "deflated", "encapsulated", "media_type"),
    [
        ("1.2.840.10008.1.2", False, False, False, False, "application/octet-stream"),
        ("1.2.840.10008.1.2.1", True, False, False, False, "application/octet-stream"),
        ("1.2.840.10008.1.2.1.98", True, False, False, True, "application/octet-stream"),
        ("1.2.840.10008.1.2.1.99", True, False, True, False, "application/octet-stream"),
        ("1.2.840.10008.1.2.2", True, True, False, False, "application/octet-stream"),
        ("1.2.840.10008.1.2.4.50", True, False, False, True, "image/jpeg"),
        ("1.2.840.10008.1.2.4.80", True, False, False, True, "image/jls"),
        ("1.2.840.10008.1.2.4.90", True, False, False, True, "image/jp2"),
        ("1.2.840.10008.1.2.4.93", True, False, False, True, "image/jpx"),
        ("1.2.840.10008.1.2.4.95", True, False, True, False, "application/octet-stream"),
        ("1.2.840.10008.1.2.4.102", True, False, False, True, "video/mp4"),
        ("1.2.840.10008.1.2.4.111", True, False, False, True, "image/jxl"),
        ("1.2.840.10008.1.2.4.201", True, False, False, True, "image/jphc"),
        ("1.2.840.10008.1.2.5", True, False, False, True, "image/dicom-rle"),
        ("1.2.840.10008.1.2.8.1", True, False, False, True, "application/x-deflate"),
        ("1.2.840.113619.5.2", True, False, False, None, "application/octet-stream"),
    ],
)
def test_how_a_transfer_syntax_is_encoded(
    uid: str, explicit: bool, big_endian: bool, deflated: bool, encapsulated: bool | None, media_type: str
) -> None:
    syntax = transfer_syntaxes.of(uid)
    assert (syntax.uid, syntax.explicit, syntax.big_endian, syntax.deflated) == (uid, explicit, big_endian, deflated)
    assert (syntax.encapsulated, syntax.media_type) == (encapsulated, media_type)
    assert syntax.video == media_type.startswith("video")


@pytest.mark.parametrize("text", ["1", "1.2.840.10008.1.2", "0.0", "2.25." + "9" * 38, "1" * 64, "1.02.3"])
def test_what_is_a_uid(text: str) -> None:
    assert is_uid(text)


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.2\n", "1.2 ", "1.a", "1.٣", "1" * 65, "..", "1/2", "-1"]
)
def test_what_is_no_uid(text: str) -> None:
    assert not is_uid(text)


def test_every_storage_class_is_storable_and_nothing_else_of_the_standard() -> None:
    for uid, (name, kind, *_) in UID_dictionary.items():
        if kind not in ("SOP Class", "Meta SOP Class", "Service Class", "Transfer Syntax", "Well-known SOP Instance"):
            continue
        stored = (name.split(" - ")[0].endswith(("Storage", "Storage SOP Class")) or not name) and kind == "SOP Class"
        assert storage_classes.is_storable(uid) == (stored and uid != "1.2.840.10008.1.3.10"), f"{uid} {name}"


def test_private_and_future_classes_are_storable() -> None:
    for uid in ("1.2.840.113619.4.30", "1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.999", "2.25.1"):
        assert storage_classes.is_storable(uid)
