"""Frame tables: layouts that pydicom's samples do not have, and their encoding (PS3.5 section 8 and A.4)."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

import pytest
from dicom_samples import EXPLICIT, element, implicit, instance, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.dicom.frames import Encapsulated, FrameTable, Native, frame_from, swapped

JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
MPEG4 = "1.2.840.10008.1.2.4.102"
SOI, MIDDLE = b"\xff\xd8\xff\xdb....", b"middle of a stream"
IMAGE = element(0x00280010, b"US", b"\2\0") + element(0x00280011, b"US", b"\2\0")


def encapsulated(fragments: list[bytes], *, frames: int | None, table: bytes = b"", before: bytes = b"") -> bytes:
    declared = b"" if frames is None else element(0x00280008, b"IS", f"{frames:2}".encode())
    items = implicit(0xFFFEE000, table) + b"".join(implicit(0xFFFEE000, one) for one in fragments)
    pixels = element(0x7FE00010, b"OB", items + implicit(0xFFFEE0DD, b""), length=0xFFFFFFFF)
    return instance(behind=declared + IMAGE + before + pixels)


def cut(syntax: str, data_set: bytes) -> tuple[list[bytes], tuple[str, ...]]:
    found = scan(syntax, data_set)
    table = FrameTable.decode(found.frames.encode())
    frames = [
        b"".join(data_set[offset : offset + length] for offset, length in table.ranges(number))
        for number in range(1, table.count + 1)
    ]
    return frames, found.warnings


def offsets(fragments: list[bytes], starts: list[int], code: str = "I") -> bytes:
    positions = [0, *accumulate(len(one) + 8 for one in fragments)]
    return struct.pack(f"<{len(starts)}{code}", *(positions[start] for start in starts))


def test_one_fragment_per_frame_needs_no_table() -> None:
    fragments = [MIDDLE, SOI, MIDDLE]
    assert cut(JPEG, encapsulated(fragments, frames=3)) == (fragments, ())


def test_the_basic_offset_table_groups_fragments() -> None:
    fragments = [MIDDLE] * 5
    data_set = encapsulated(fragments, frames=2, table=offsets(fragments, [0, 3]))
    assert cut(JPEG, data_set) == ([MIDDLE * 3, MIDDLE * 2], ())
    undeclared = encapsulated(fragments, frames=None, table=offsets(fragments, [0, 3]))
    assert cut(JPEG, undeclared)[0] == [MIDDLE * 3, MIDDLE * 2]


def test_the_extended_offset_table_comes_before_the_basic_one() -> None:
    fragments = [MIDDLE] * 3
    extended = element(0x7FE00001, b"OV", offsets(fragments, [0, 2], "Q"))
    data_set = encapsulated(fragments, frames=2, before=extended)
    assert cut(JPEG, data_set) == ([MIDDLE * 2, MIDDLE], ())


@pytest.mark.parametrize(
    "table", [b"\4\0\0\0\0\0\0\0", b"\0\0\0\0\5\0\0\0", b"\0\0\0\0\0\0\0\0", b"\0\0\0\0\xff\xff\xff\xff"]
)
def test_a_wrong_offset_table_gives_way_to_codestream_starts(table: bytes) -> None:
    fragments = [SOI, MIDDLE, SOI]
    data_set = encapsulated(fragments, frames=2, table=table)
    assert cut(JPEG, data_set) == ([SOI + MIDDLE, SOI], ())


def test_frames_that_cannot_be_told_apart_are_none() -> None:
    frames, warnings = cut(JPEG, encapsulated([MIDDLE] * 3, frames=2))
    assert frames == []
    assert warnings == ("frames that cannot be told apart",)
    assert cut(JPEG, encapsulated([], frames=1))[0] == []


def test_a_single_frame_is_all_fragments_and_so_is_a_video() -> None:
    assert cut(JPEG, encapsulated([SOI, MIDDLE], frames=1))[0] == [SOI + MIDDLE]
    assert cut(MPEG4, encapsulated([MIDDLE, MIDDLE], frames=250)) == ([MIDDLE * 2], ())


def test_rle_has_one_fragment_per_frame() -> None:
    frames, warnings = cut(RLE, encapsulated([MIDDLE] * 2, frames=3))
    assert frames == [MIDDLE] * 2
    assert warnings == ("pixel data of another number of frames than its attributes say",)


def test_a_private_syntax_is_encapsulated_when_its_data_are() -> None:
    assert cut("1.2.3.4", encapsulated([SOI], frames=1)) == ([SOI], ())
    native = instance(behind=IMAGE + element(0x00280100, b"US", b"\x08\0") + element(0x7FE00010, b"OB", b"abcd"))
    assert cut("1.2.3.4", native) == ([b"abcd"], ())


def test_too_little_native_pixel_data_is_a_warning_and_fewer_frames() -> None:
    frames = element(0x00280008, b"IS", b"3 ")
    pixels = element(0x00280100, b"US", b"\x08\0") + element(0x7FE00010, b"OB", b"abcdefgh12")
    got, warnings = cut(EXPLICIT, instance(behind=frames + IMAGE + pixels))
    assert got == [b"abcd", b"efgh"]
    assert warnings == ("less pixel data than its attributes say",)


def test_float_and_422_pixel_data() -> None:
    floats = element(0x7FE00008, b"OF", bytes(range(16)))
    assert cut(EXPLICIT, instance(behind=IMAGE + floats))[0] == [bytes(range(16))]
    color = element(0x00280002, b"US", b"\3\0") + element(0x00280004, b"CS", b"YBR_FULL_422")
    rest = element(0x00280100, b"US", b"\x08\0") + element(0x7FE00010, b"OB", bytes(range(8)))
    assert cut(EXPLICIT, instance(behind=color + IMAGE + rest))[0] == [bytes(range(8))]


def test_no_pixel_data_no_frames() -> None:
    table = FrameTable.decode(scan(EXPLICIT, instance()).frames.encode())
    assert table.count == 0
    with pytest.raises(IndexError):
        table.ranges(1)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 2, 4, 8]), st.booleans(), st.data())
def test_native_frames_are_cut_at_any_bit(bits: int, count: int, word: int, big: bool, data: st.DataObject) -> None:
    size = -(-bits * count // 8)
    size += -size % word
    little = data.draw(st.binary(min_size=size, max_size=size))
    written = b"".join(little[at : at + word][::-1] for at in range(0, size, word)) if big else little
    table = FrameTable.decode(FrameTable(Native(5, bits, count, word)).encode())
    stream = int.from_bytes(little, "little")
    for number in range(1, count + 1):
        ((offset, length),) = table.ranges(number)
        assert offset >= 5
        assert offset + length <= 5 + size
        raw = written[offset - 5 : offset - 5 + length]
        want = (stream >> (number - 1) * bits & (1 << bits) - 1).to_bytes((bits + 7) // 8, "little")
        assert frame_from(table, number, raw, big_endian=big) == want
    for number in (0, -1, count + 1):
        with pytest.raises(IndexError):
            table.ranges(number)
        with pytest.raises(IndexError):
            frame_from(table, number, b"")


@given(
    st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4), min_size=1, max_size=20),
    st.integers(0, 2**40),
)
def test_encapsulated_tables_survive_their_encoding(frames: list[list[int]], offset: int) -> None:
    lengths = [length for frame in frames for length in frame]
    counts = [len(frame) for frame in frames]
    made = FrameTable(Encapsulated(offset, lengths, () if set(counts) == {1} else counts))
    table = FrameTable.decode(made.encode())
    assert table.count == len(frames)
    ranges = [table.ranges(number) for number in range(1, table.count + 1)]
    assert [[length for _, length in frame] for frame in ranges] == frames
    flat = [one for frame in ranges for one in frame]
    assert flat[0][0] == offset + 8
    assert all(after[0] == before[0] + before[1] + 8 for before, after in pairwise(flat))
    for number in (0, table.count + 1):
        with pytest.raises(IndexError):
            table.ranges(number)


def test_a_table_of_ten_thousand_frames_is_small() -> None:
    table = FrameTable(Encapsulated(1000, [30_000 + n for n in range(10_000)], ()))
    assert len(table.encode()) < 21_000
    assert len(FrameTable(Native(1000, 512 * 512 * 16, 10_000, 2)).encode()) < 32


@given(st.binary(max_size=40))
def test_swapping_twice_is_nothing(data: bytes) -> None:
    for vr in ("US", "FL", "FD", "OW", "OL", "OV", "AT", "OB", "LO"):
        assert swapped(swapped(data, vr), vr) == data
    assert swapped(b"\1\2\3\4\5", "OW") == b"\2\1\4\3\5"
    assert swapped(b"\1\2\3\4", "FL") == b"\4\3\2\1"
