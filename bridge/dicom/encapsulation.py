"""Encapsulated pixel data (PS3.5 A.4): a Basic Offset Table and fragments, noted as they pass by."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Generator
from typing import Final

from bridge.dicom import limits
from bridge.dicom.window import Window
from bridge.errors import Unreadable

_ITEM: Final = struct.Struct("<HHI").unpack_from
_PEEK: Final = 12
_CODESTREAMS: Final = (
    b"\xff\xd8\xff",  # JPEG and JPEG-LS: SOI and the next marker
    b"\xff\x4f\xff\x51",  # JPEG 2000 and HTJ2K: SOC, SIZ
    b"\x00\x00\x00\x0cjP  ",  # JP2 signature box
    b"\xff\x0a",  # JPEG XL codestream
    b"\x00\x00\x00\x0cJXL ",  # JPEG XL container
)


class Fragments:
    """What is known of one encapsulated value.

    `table` is the Basic Offset Table's value; `first` the offset of the first fragment's item tag; `lengths` the
    lengths of the fragments, each of which lies 8 bytes (item tag and length) behind the end of the one before;
    `starts` has 1 for each fragment that begins with a codestream's signature, else 0.
    """

    __slots__ = ("first", "lengths", "starts", "table")

    def __init__(self) -> None:
        self.table = b""
        self.first = 0
        self.lengths = array("I")
        self.starts = bytearray()


def read_fragments(window: Window) -> Generator[int, None, Fragments]:
    """Read from the Basic Offset Table's item to behind the sequence delimiter. Raises Unreadable.

    An Offset Table longer than `limits.OFFSET_TABLE_BYTES` is passed over.
    """
    found = Fragments()
    length = yield from _item(window)
    if length is None:
        return found
    if length <= limits.OFFSET_TABLE_BYTES:
        while len(window.data) - window.position < length:
            yield length
        found.table = window.data[window.position : window.position + length]
        window.position += length
    else:
        window.skip(length)
    found.first = window.offset
    while True:
        data, position = window.data, window.position
        if len(data) - position < 8:
            yield 8
            continue
        group, element, length = _ITEM(data, position)
        if group != 0xFFFE or element != 0xE000 or length == 0xFFFFFFFF:
            yield from _item(window)
            return found
        peek = position + 8 + (length if length < _PEEK else _PEEK)
        if len(data) < peek:
            yield peek - position
            continue
        if len(found.lengths) == limits.FRAGMENTS:
            raise Unreadable(f"more than {limits.FRAGMENTS} fragments of pixel data")
        found.lengths.append(length)
        found.starts.append(data[position + 8 : peek].startswith(_CODESTREAMS))
        window.skip(8 + length)


def _item(window: Window) -> Generator[int, None, int | None]:
    """The length of the next item; None behind the sequence delimiter."""
    while len(window.data) - window.position < 8:
        yield 8
    group, element, length = _ITEM(window.data, window.position)
    window.position += 8
    window.passed += 8
    if group == 0xFFFE and element == 0xE0DD:
        return None
    if group != 0xFFFE or element != 0xE000 or length == 0xFFFFFFFF:
        raise Unreadable("encapsulated pixel data with something else than fragments in it")
    return int(length)
