"""Where each frame of an instance lies in its data set, and how to cut it out."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Self

import cbor2

from bridge.dicom.value_representations import swapped as swapped
from bridge.dicom.value_representations import swapped_words

_NONE, _NATIVE, _ENCAPSULATED = 0, 1, 2
_FRAGMENT_HEADER: Final = 8


class Native(NamedTuple):
    """Frames one behind another, not aligned to bytes when `bits` is no multiple of 8 (PS3.5 8.1.1).

    `offset` is that of the first, in bytes from the data set's first byte; `bits` the size of one; `word` the bytes
    of the words that were written, whose order matters when the transfer syntax is big-endian.
    """

    offset: int
    bits: int
    frames: int
    word: int


class Encapsulated(NamedTuple):
    """Fragments one behind another, each behind an item tag and a length (PS3.5 A.4).

    `offset` is that of the first fragment's item tag; `lengths` those of the fragments in bytes; `fragments` how many
    each frame has, empty when it is one for all.
    """

    offset: int
    lengths: Sequence[int]
    fragments: Sequence[int]


class FrameTable:
    """The frames of one instance, counted from 1; none when it has no pixel data or they cannot be told apart."""

    __slots__ = ("_layout", "_starts")

    def __init__(self, layout: Native | Encapsulated | None = None) -> None:
        self._layout = layout
        self._starts: list[int] | None = None

    @property
    def layout(self) -> Native | Encapsulated | None:
        """How the frames lie."""
        return self._layout

    @property
    def count(self) -> int:
        """How many frames there are."""
        layout = self._layout
        if isinstance(layout, Native):
            return layout.frames
        return len(layout.fragments or layout.lengths) if layout else 0

    def ranges(self, number: int) -> list[tuple[int, int]]:
        """Offset and length in bytes of what frame `number` (from 1) consists of, in order.

        Of native frames it is the whole words that hold the frame; `frame_from` cuts it out of them.
        Raises IndexError when there is no such frame.
        """
        layout = self._layout
        if layout is None or not 1 <= number <= self.count:
            raise IndexError(f"no frame {number} of {self.count}")
        if isinstance(layout, Native):
            start, stop = _words(layout, number)
            return [(layout.offset + start, stop - start)]
        first = number - 1
        last = number
        if layout.fragments:
            if self._starts is None:
                self._starts = [0, *accumulate(layout.fragments)]
            first, last = self._starts[number - 1], self._starts[number]
        at = layout.offset + sum(layout.lengths[:first]) + _FRAGMENT_HEADER * (first + 1)
        found = []
        for length in layout.lengths[first:last]:
            found.append((at, length))
            at += length + _FRAGMENT_HEADER
        return found

    def encode(self) -> bytes:
        """As CBOR (RFC 8949): [kind, ...]; fragment lengths as little-endian numbers of the least equal width."""
        layout = self._layout
        if layout is None:
            return cbor2.dumps([_NONE])
        if isinstance(layout, Native):
            return cbor2.dumps([_NATIVE, *layout])
        lengths, fragments = _packed(layout.lengths), _packed(layout.fragments)
        return cbor2.dumps([_ENCAPSULATED, layout.offset, *lengths, *fragments])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What `encode` made."""
        kind, *rest = cbor2.loads(data)
        if kind == _NATIVE:
            return cls(Native(*rest))
        if kind == _ENCAPSULATED:
            offset, width, lengths, count_width, counts = rest
            return cls(Encapsulated(offset, _unpacked(width, lengths), _unpacked(count_width, counts)))
        return cls()


def frame_from(table: FrameTable, number: int, raw: bytes, *, big_endian: bool = False) -> bytes:
    """Frame `number` (from 1) out of the joined bytes of its ranges, as DICOMweb gives it.

    Native frames come out little-endian, and ones that do not begin on a byte (BitsAllocated 1) shifted so that they
    do, with zero bits behind the last pixel (PS3.5 8.1.1, PS3.18 8.7.3.3.1). Encapsulated ones are the joined
    fragments. Raises IndexError when there is no such frame.
    """
    layout = table.layout
    if not isinstance(layout, Native):
        return raw
    if not 1 <= number <= layout.frames:
        raise IndexError(f"no frame {number} of {layout.frames}")
    if big_endian:
        raw = swapped_words(raw, layout.word)
    bit = (number - 1) * layout.bits - _words(layout, number)[0] * 8
    size = (layout.bits + 7) // 8
    if bit % 8 == 0 and layout.bits % 8 == 0:
        return raw[bit // 8 : bit // 8 + size]
    value = int.from_bytes(raw, "little") >> bit & (1 << layout.bits) - 1
    return value.to_bytes(size, "little")


def _words(layout: Native, number: int) -> tuple[int, int]:
    """First byte, and byte behind the last, of the whole words that hold a frame, from the first frame's first byte."""
    word = layout.word
    start = (number - 1) * layout.bits // 8
    stop = (number * layout.bits + 7) // 8
    return start - start % word, stop + -stop % word


def _packed(numbers: Sequence[int]) -> tuple[int, bytes]:
    """Width in bytes, and the numbers in it."""
    width = max(1, (max(numbers, default=0).bit_length() + 7) // 8)
    words = array("I", numbers)
    if sys.byteorder == "big":
        words.byteswap()
    data = words.tobytes()
    packed = bytearray(len(numbers) * width)
    for byte in range(width):
        packed[byte::width] = data[byte :: words.itemsize]
    return width, bytes(packed)


def _unpacked(width: int, packed: bytes) -> array[int]:
    words = array("I")
    data = bytearray(len(packed) // width * words.itemsize)
    for byte in range(width):
        data[byte :: words.itemsize] = packed[byte::width]
    words.frombytes(bytes(data))
    if sys.byteorder == "big":
        words.byteswap()
    return words
