"""From what a data set says about its pixels to the table of its frames (PS3.3 C.7.6.3, PS3.5 section 8 and A.4)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

from bridge.dicom import limits
from bridge.dicom.data_set import DataSetReader, PixelData
from bridge.dicom.encapsulation import Fragments
from bridge.dicom.frames import Encapsulated, FrameTable, Native
from bridge.dicom.json_model import Attribute
from bridge.dicom.transfer_syntaxes import RLE, TransferSyntax
from bridge.dicom.value_representations import WORD_BYTES

_BITS_OF: Final = {0x7FE00008: 32, 0x7FE00009: 64}
NOT_SEPARABLE: Final = "frames that cannot be told apart"
SHORT: Final = "less pixel data than its attributes say"


def frame_table(reader: DataSetReader, syntax: TransferSyntax) -> FrameTable:
    """The frames of a data set that has been read; none when it has no pixel data or they cannot be told apart."""
    pixel_data = reader.pixel_data
    if pixel_data is None:
        return FrameTable()
    declared = _integer(reader.attributes, "00280008")
    frames = 1 if declared is None or declared < 1 else declared
    if pixel_data.fragments is None:
        layout: Native | Encapsulated | None = _native(reader.attributes, pixel_data, frames, reader.warnings)
    else:
        fragments = pixel_data.fragments
        counts = _counts(fragments, frames, declared is not None, syntax, reader.extended_offsets)
        layout = _encapsulated(fragments, counts)
        if counts is not None and len(counts) != frames and not syntax.video:
            reader.warnings.add("pixel data of another number of frames than its attributes say")
    if layout is None:
        reader.warnings.add(NOT_SEPARABLE)
    return FrameTable(layout)


def _integer(attributes: Mapping[str, Attribute], key: str) -> int | None:
    values = attributes.get(key, {}).get("Value")
    return values[0] if values and isinstance(values[0], int) else None


def _native(
    attributes: Mapping[str, Attribute], pixel_data: PixelData, frames: int, warnings: set[str]
) -> Native | None:
    rows, columns = _integer(attributes, "00280010"), _integer(attributes, "00280011")
    allocated = _BITS_OF.get(pixel_data.tag) or _integer(attributes, "00280100")
    samples = _integer(attributes, "00280002") or 1
    if not rows or not columns or not allocated:
        return None
    bits = rows * columns * samples * allocated
    available = pixel_data.length * 8
    interpretation = attributes.get("00280004", {}).get("Value")
    if interpretation == ["YBR_FULL_422"] and samples == 3 and available < bits * frames:
        bits = bits // 3 * 2  # chrominance is there for every other column only (PS3.3 C.7.6.3.1.2)
    if available < bits * frames:
        warnings.add(SHORT)
        frames = available // bits
    word = max(WORD_BYTES.get(pixel_data.vr, 1), allocated // 8 if allocated in (16, 32, 64) else 1)
    return Native(pixel_data.offset, bits, frames, word) if frames else None


def _encapsulated(fragments: Fragments, counts: Sequence[int] | None) -> Encapsulated | None:
    if not counts:
        return None
    single = all(count == 1 for count in counts) and len(counts) == len(fragments.lengths)
    return Encapsulated(fragments.first, fragments.lengths, () if single else array("I", counts))


def _counts(
    fragments: Fragments, frames: int, declared: bool, syntax: TransferSyntax, extended_offsets: bytes
) -> Sequence[int] | None:
    """Fragments per frame, by the first rule that fits; None when none does."""
    total = len(fragments.lengths)
    if not total or total > limits.FRAMES:
        return None
    if syntax.video:
        return [total]
    if syntax.uid == RLE or (total == frames and (declared or total == 1)):
        return [1] * min(total, max(frames, 1))  # RLE has one fragment a frame (PS3.5 A.4.2)
    starts = [length + 8 for length in fragments.lengths]
    offsets = list(accumulate(starts[:-1], initial=0))
    for table in (_extended(extended_offsets), _basic(fragments.table)):
        counts = _by_offsets(offsets, table)
        if counts is not None and (len(counts) == frames or not declared):
            return counts
    if frames == 1:
        return [total]
    begun = [index for index, start in enumerate(fragments.starts) if start]
    if len(begun) == frames and begun[0] == 0:
        return [after - before for before, after in pairwise([*begun, total])]
    return None


def _basic(table: bytes) -> Sequence[int]:
    return struct.unpack_from(f"<{len(table) // 4}I", table)


def _extended(table: bytes) -> Sequence[int]:
    return struct.unpack_from(f"<{len(table) // 8}Q", table)


def _by_offsets(offsets: Sequence[int], table: Sequence[int]) -> list[int] | None:
    """Fragments per frame when a table names, ascending from 0, where fragments begin; None when it does not."""
    if not table or table[0] != 0:
        return None
    index = {offset: number for number, offset in enumerate(offsets)}
    numbers = [index.get(offset, -1) for offset in table]
    ascending = all(before < after for before, after in pairwise(numbers))
    if -1 in numbers or not ascending:
        return None
    return [after - before for before, after in pairwise([*numbers, len(offsets)])]
