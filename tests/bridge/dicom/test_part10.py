"""Preamble and file meta information (PS3.10 section 7.1)."""

from __future__ import annotations

import io

import pydicom
import pytest
from dicom_samples import element, part10_files, pydicom_read
from hypothesis import given
from hypothesis import strategies as st

from bridge.dicom import limits
from bridge.dicom.part10 import IMPLEMENTATION_CLASS_UID, make_meta, read_meta
from bridge.dicom.transfer_syntaxes import is_uid
from bridge.errors import Unreadable

START = bytes(128) + b"DICM"
SYNTAX = element(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
NEXT = element(0x00080016, b"UI", b"1.2\0")


def test_the_samples_say_what_pydicom_reads() -> None:
    for path in part10_files():
        meta, theirs = read_meta(path.read_bytes()), pydicom_read(path).file_meta
        assert meta is not None
        assert meta.transfer_syntax == theirs.TransferSyntaxUID
        assert meta.sop_class == theirs.get("MediaStorageSOPClassUID", "")
        assert meta.sop_instance == theirs.get("MediaStorageSOPInstanceUID", "")


def test_every_prefix_needs_more_until_the_data_set_begins() -> None:
    whole = make_meta("1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1", "SENDER") + NEXT
    data_set = len(whole) - len(NEXT)
    for size in range(len(whole) + 1):
        meta = read_meta(whole[:size])
        assert (meta is None) == (size < data_set + 2)
    assert meta is not None
    assert meta == ("1.2.3", "1.2.3.4", "1.2.840.10008.1.2.1", data_set)


@pytest.mark.parametrize("length", [None, 0, 4, 26, 30, 10_000, 0xFFFFFFFF])
def test_a_wrong_or_missing_group_length_does_not_matter(length: int | None) -> None:
    declared = b"" if length is None else element(0x00020000, b"UL", length.to_bytes(4, "little"))
    meta = read_meta(START + declared + SYNTAX + NEXT)
    assert meta is not None
    assert meta.data_set == len(START + declared + SYNTAX)


def test_a_deflate_stream_that_begins_like_group_2_is_not_read_as_meta() -> None:
    syntax = element(0x00020010, b"UI", b"1.2.840.10008.1.2.1.99")
    declared = element(0x00020000, b"UL", len(syntax).to_bytes(4, "little"))
    meta = read_meta(START + declared + syntax + b"\2\0 anything at all")
    assert meta is not None
    assert meta.data_set == len(START + declared + syntax)


@pytest.mark.parametrize(
    "data",
    [
        NEXT * 20,
        SYNTAX + NEXT,
        b"DICM" + SYNTAX + NEXT,
        bytes(128) + b"DICX",
        START + NEXT,
        START + element(0x00020002, b"UI", b"1.2\0") + NEXT,
        START + b"\2\0\1\0\2\0\0\0\0\1" + NEXT,
        START + element(0x00020102, b"OB", b"", length=limits.META_BYTES),
        START + element(0x00020002, b"UI", b"x" * 60_000) * 20,
    ],
)
def test_what_is_not_part_10_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        while read_meta(data) is None:
            data += bytes(400)


def test_a_jpeg_preamble_is_no_matter() -> None:
    for magic in (b"II*\0", b"MZ", b"\x7fELF"):
        data = magic + bytes(128 - len(magic)) + b"DICM" + SYNTAX + NEXT
        assert read_meta(data) == ("", "", "1.2.840.10008.1.2.1", 132 + len(SYNTAX))


@given(st.binary(max_size=60))
def test_bytes_of_no_meaning_are_unreadable_or_want_more(data: bytes) -> None:
    for start in (b"", START, START + SYNTAX):
        try:
            meta = read_meta(start + data)
        except Unreadable:
            continue
        assert meta is None or meta.data_set <= len(start + data)


@given(st.text(max_size=20), st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70"]))
def test_what_is_made_is_read_by_pydicom(source_ae: str, syntax: str) -> None:
    made = make_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5", syntax, source_ae)
    theirs = pydicom.filereader.read_preamble(io.BytesIO(made), force=False)
    assert theirs == bytes(128)
    meta = pydicom.filereader._read_file_meta_info(skipped(made))
    assert meta.FileMetaInformationGroupLength == len(made) - 144
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
    assert meta.TransferSyntaxUID == syntax
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == "CAIRN_0_1"
    ours = read_meta(made + NEXT)
    assert ours is not None
    assert ours.data_set == len(made)


def test_the_implementation_class_uid_is_derived_from_a_uuid() -> None:
    assert is_uid(IMPLEMENTATION_CLASS_UID)
    assert IMPLEMENTATION_CLASS_UID.startswith("2.25.")
    assert int(IMPLEMENTATION_CLASS_UID[5:]) < 1 << 128


def skipped(made: bytes) -> io.BytesIO:
    """Behind the preamble."""
    return io.BytesIO(made[132:])
