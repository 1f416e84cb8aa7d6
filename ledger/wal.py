"""SQLite's write-ahead log, read strictly (https://www.sqlite.org/fileformat2.html section 4).

SQLite ends its reading of a log at the first frame that does not hold, without a word; so a flipped byte there takes
committed transactions away in silence. This reader tells such a log from one that simply ends.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_SIZE = 32  # bytes; its salts differ for each generation of the log
_FRAME = 24  # bytes of a frame's header
_MAGIC = 0x377F0682  # checksums over little-endian words; with the lowest bit set, big-endian
_FORMAT = 3007000


class WriteAheadLog(NamedTuple):
    """What a log holds: each page's committed versions, the newest last, and the first frame that does not hold.

    `fault` is empty when the log ends in order or in a tail that a killed process leaves. `certain` tells a fault that
    only damage explains from one that a loss of power during the last commit could have left too.
    """

    pages: dict[int, list[bytes]]
    fault: str = ""
    certain: bool = False


def read(data: bytes) -> WriteAheadLog:
    """Read a log's bytes. A tail that a crash left unfinished is no fault; a committed frame that fails is."""
    if not data:
        return WriteAheadLog({})
    if len(data) < HEADER_SIZE:
        return WriteAheadLog({}, "the header is cut short")
    magic, version, size, _sequence = struct.unpack_from(">4I", data)
    words = ">" if magic & 1 else "<"
    sums = _checksum(words, data[:24], (0, 0))
    if magic & ~1 != _MAGIC or version != _FORMAT or sums != struct.unpack_from(">2I", data, 24):
        return WriteAheadLog({}, "the header does not match its checksum", len(data) > HEADER_SIZE)
    salts = data[16:24]
    committed: dict[int, list[bytes]] = {}
    pending: dict[int, bytes] = {}
    at = HEADER_SIZE
    while at + _FRAME + size <= len(data):
        header = data[at : at + _FRAME]
        page = data[at + _FRAME : at + _FRAME + size]
        if header[8:16] == salts:
            sums = _checksum(words, page, _checksum(words, header[:8], sums))
        if header[8:16] != salts or sums != struct.unpack_from(">2I", header, 16):
            return WriteAheadLog(committed, *_fault(data, at, size, salts))
        number, commit = struct.unpack_from(">2I", header)
        pending[number] = page
        if commit:
            for changed, content in pending.items():
                committed.setdefault(changed, []).append(content)
            pending = {}
        at += _FRAME + size
    return WriteAheadLog(committed)


def _fault(data: bytes, at: int, size: int, salts: bytes) -> tuple[str, bool]:
    """Why reading ended at `at`, and whether only damage explains it.

    A killed process leaves whole frames that hold, then the end of the file. Each commit is durable before the next
    begins, so two commits at or behind a frame that fails were not both cut off by a loss of power.
    """
    stride = _FRAME + size
    own = [
        start
        for start in range(at, len(data) - stride + 1, stride)
        # One equal word is enough: frames of a former generation differ in both, a flipped byte changes one.
        if data[start + 8 : start + 12] == salts[:4] or data[start + 12 : start + 16] == salts[4:]
    ]
    commits = sum(data[start + 4 : start + 8] != bytes(4) for start in own)
    if not commits and (not own or own[-1] + stride != len(data)):
        return "", False
    return f"frame {(at - HEADER_SIZE) // stride + 1} does not match its checksum", commits > 1


def _checksum(words: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    numbers = struct.unpack(f"{words}{len(data) // 4}I", data)
    for left, right in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return first, second
