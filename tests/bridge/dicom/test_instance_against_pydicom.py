"""The reader's metadata and frames against pydicom's, over every sample file."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_samples import BIG, EXPLICIT, IMPLICIT, differences, part10_files, pydicom_json, pydicom_read, split
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence

from bridge.dicom import frames, transfer_syntaxes
from bridge.dicom.data_set import DataSetReader
from bridge.dicom.pixel_layout import frame_table
from bridge.errors import Unreadable

TRUNCATED = {"MR_truncated.dcm", "rtplan_truncated.dcm"}
READABLE = [path for path in part10_files() if path.name not in TRUNCATED]


def read(syntax: str, data_set: bytes) -> tuple[DataSetReader, bytes]:
    """A reader that has finished, and the (inflated) data set."""
    known = transfer_syntaxes.of(syntax)
    plain = zlib.decompressobj(-15).decompress(data_set) if known.deflated else data_set
    reader = DataSetReader(known)
    reader.feed(plain)
    reader.finish()
    return reader, plain


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.name)
def test_metadata_are_those_that_pydicom_reads(path: Path) -> None:
    reader, _ = read(*split(path))
    theirs = pydicom_json(pydicom_read(path))
    assert differences(reader.attributes, theirs) == []
    assert list(reader.attributes) == sorted(reader.attributes)


@pytest.mark.parametrize("name", sorted(TRUNCATED))
def test_truncated_samples_are_unreadable(name: str) -> None:
    (path,) = [path for path in part10_files() if path.name == name]
    with pytest.raises(Unreadable, match="truncated"):
        read(*split(path))


def encapsulated(path: Path) -> bool:
    return bool(transfer_syntaxes.of(split(path)[0]).encapsulated) and "PixelData" in pydicom_read(path)


@pytest.mark.parametrize("path", [path for path in READABLE if encapsulated(path)], ids=lambda path: path.name)
def test_encapsulated_frames_are_those_that_pydicom_generates(path: Path) -> None:
    syntax, data_set = split(path)
    reader, plain = read(syntax, data_set)
    made = frame_table(reader, transfer_syntaxes.of(syntax))
    table = frames.FrameTable.decode(made.encode())
    theirs = pydicom_read(path)
    count = int(theirs.get("NumberOfFrames") or 1)
    extended = None
    if "ExtendedOffsetTable" in theirs:
        extended = (theirs.ExtendedOffsetTable, theirs.ExtendedOffsetTableLengths)
    want = list(generate_frames(theirs.PixelData, number_of_frames=count, extended_offsets=extended))
    assert table.count == count
    assert [joined(table, number, plain) for number in range(1, count + 1)] == want


def joined(table: frames.FrameTable, number: int, plain: bytes, *, big_endian: bool = False) -> bytes:
    raw = b"".join(plain[offset : offset + length] for offset, length in table.ranges(number))
    return frames.frame_from(table, number, raw, big_endian=big_endian)


def native(path: Path) -> bool:
    theirs = pydicom_read(path)
    described = "PixelData" in theirs and "BitsAllocated" in theirs
    return described and not transfer_syntaxes.of(split(path)[0]).encapsulated and path.name != "badVR.dcm"


@pytest.mark.parametrize("path", [path for path in READABLE if native(path)], ids=lambda path: path.name)
def test_native_frames_are_the_pixel_data_cut_at_the_bits(path: Path) -> None:
    syntax, data_set = split(path)
    reader, plain = read(syntax, data_set)
    table = frame_table(reader, transfer_syntaxes.of(syntax))
    theirs = pydicom_read(path)
    big_endian = syntax == BIG
    pixels = bytes(theirs.PixelData)
    word = max({"OW": 2}.get(str(theirs["PixelData"].VR), 1), theirs.BitsAllocated // 8)
    if big_endian and word > 1:
        pixels = b"".join(pixels[at : at + word][::-1] for at in range(0, len(pixels), word))
    count = int(theirs.get("NumberOfFrames") or 1)
    bits = theirs.Rows * theirs.Columns * theirs.SamplesPerPixel * theirs.BitsAllocated
    if theirs.PhotometricInterpretation == "YBR_FULL_422" and len(pixels) * 8 < bits * count:
        bits = bits // 3 * 2
    stream = int.from_bytes(pixels, "little")
    assert table.count == min(count, len(pixels) * 8 // bits)
    for number in range(1, table.count + 1):
        want = (stream >> (number - 1) * bits & (1 << bits) - 1).to_bytes((bits + 7) // 8, "little")
        assert joined(table, number, plain, big_endian=big_endian) == want


TEXT = st.text("abcXYZ 019-_.", min_size=1, max_size=12).map(str.strip).filter(bool)
UNICODE = st.text(st.characters(categories=["Lu", "Ll", "Lo"]), min_size=1, max_size=12)
NAME = st.lists(UNICODE, min_size=1, max_size=3).map("=".join)
DECIMALS = st.floats(-1e6, 1e6).map(lambda number: f"{number:.6g}")


def leaf_values() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "PatientName": NAME,
            "PatientComments": UNICODE,
            "ImageType": st.lists(st.sampled_from(["ORIGINAL", "PRIMARY", "AXIAL"]), max_size=3),
            "OtherPatientIDs": st.lists(TEXT, min_size=2, max_size=3),
            "StudyDescription": st.one_of(UNICODE, st.just("")),
            "SliceThickness": DECIMALS,
            "PixelSpacing": st.lists(DECIMALS, min_size=2, max_size=2),
            "InstanceNumber": st.integers(-(2**31), 2**31 - 1),
            "FrameIncrementPointer": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
            "Rows": st.integers(0, 65535),
            "SmallestImagePixelValue": st.integers(0, 32767),
            "RedPaletteColorLookupTableDescriptor": st.just([256, 0, 16]),
            "RedPaletteColorLookupTableData": st.binary(max_size=64).map(lambda data: data + data),
            "DiffusionBValue": st.floats(allow_nan=False, allow_infinity=False),
            "RecommendedDisplayFrameRateInFloat": st.floats(width=32, allow_nan=False, allow_infinity=False),
            "ICCProfile": st.binary(max_size=64).map(lambda data: data + data),
            "EncapsulatedDocument": st.binary(max_size=64).map(lambda data: data + data),
        },
    )


DATA_SETS = st.recursive(
    leaf_values(),
    lambda inner: st.builds(
        lambda values, **sequences: {**values, **sequences},
        leaf_values(),
        PerformedProtocolCodeSequence=st.lists(inner, max_size=3),
        RequestAttributesSequence=st.lists(inner, max_size=2),
    ),
    max_leaves=8,
)


def built(values: dict[str, Any], undefined: bool) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        if isinstance(value, list) and (not value or isinstance(value[0], dict)) and keyword.endswith("Sequence"):
            items = [built(one, undefined) for one in value]
            for one in items:
                one.is_undefined_length_sequence_item = undefined
            setattr(data_set, keyword, Sequence(items))
            data_set[keyword].is_undefined_length = undefined
        else:
            setattr(data_set, keyword, value)
    return data_set


@settings(deadline=None, max_examples=60)
@given(DATA_SETS, st.booleans(), st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
def test_generated_data_sets_read_as_pydicom_reads_them(values: dict[str, Any], undefined: bool, syntax: str) -> None:
    data_set = built(values, undefined)
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(out, data_set, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
        theirs = pydicom.dcmread(io.BytesIO(out.getvalue()), force=True)
        theirs_json = pydicom_json(theirs)
    reader, _ = read(syntax, bare(out.getvalue()))
    if syntax != BIG:  # pydicom gives the words of OW as they were written
        assert differences(reader.attributes, theirs_json) == []
    else:
        assert [line for line in differences(reader.attributes, theirs_json) if not line.endswith("binary")] == []


def bare(written: bytes) -> bytes:
    """What pydicom wrote for a data set without preamble: group 2 in front, which is cut off."""
    at = 0
    while written[at : at + 2] == b"\x02\x00":
        length = int.from_bytes(written[at + 6 : at + 8], "little")
        at += 8 + length
    return written[at:]
