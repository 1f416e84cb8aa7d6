"""SQLite's write-ahead log, read strictly (https://www.sqlite.org/fileformat2.html section 4).

SQLite ends its reading of a log at the first frame that does not hold, without a word; so a flipped byte there takes
committed transactions away in silence. This reader tells such a log from one that simply ends.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

HEADER_SIZE = 32  # bytes; its salts differ for each generation of the log
_FRAME = 24  # bytes of a frame's header
_MAGIC = 0x377F0682  # checksums over little-endian words; with the lowest bit set, big-endian
_FORMAT = 3007000


class WriteAheadLog(NamedTuple):
    """What a log holds: each page's committed versions, the newest last, and the first frame that does not hold.

    `commits` counts the transactions in it. `fault` is empty when the log ends in order or in a tail that a killed
    process leaves. `certain` tells a fault that only damage explains from one that a loss of power during the last
    commit could have left too.
    """

    pages: dict[int, list[memoryview]]
    fault: str = ""
    certain: bool = False
    commits: int = 0


def read(data: bytes) -> WriteAheadLog:
    """Read a log's bytes. A tail that a crash left unfinished is no fault; a committed frame that fails is."""
    if not data:
        return WriteAheadLog({})
    if len(data) < HEADER_SIZE:
        return WriteAheadLog({}, "the header is cut short")
    magic, version, size, _sequence = struct.unpack_from(">4I", data)
    words = ">" if magic & 1 else "<"
    sums = _checksum(words, data[:24], (0, 0))
    known = magic & ~1 == _MAGIC and version == _FORMAT and size and size % 8 == 0
    if not known or sums != struct.unpack_from(">2I", data, 24):
        return WriteAheadLog({}, "the header does not match its checksum", len(data) > HEADER_SIZE)
    salts, stride = data[16:24], _FRAME + size
    count = (len(data) - HEADER_SIZE) // stride
    frames = memoryview(data)[HEADER_SIZE : HEADER_SIZE + count * stride]
    own = next((at for at in range(count) if frames[at * stride + 8 : at * stride + 16] != salts), count)
    holding = _holding(frames[: own * stride], stride, words, sums)
    committed: dict[int, list[memoryview]] = {}
    pending: dict[int, memoryview] = {}
    commits = 0
    for at in range(0, holding * stride, stride):
        number, commit = struct.unpack_from(">2I", frames, at)
        pending[number] = frames[at + _FRAME : at + stride]
        if commit:
            for changed, content in pending.items():
                committed.setdefault(changed, []).append(content)
            pending = {}
            commits += 1
    fault = _fault(data, HEADER_SIZE + holding * stride, size, salts) if holding < count else ("", False)
    return WriteAheadLog(committed, *fault, commits)


def _holding(frames: memoryview, stride: int, words: str, sums: tuple[int, int]) -> int:
    """How many frames match their checksums, from the first on; `sums` are those that the header ends with.

    A frame's checksum goes on from that of the frame before, which is stored, so all frames can be computed at once:
    a word of each in a lane of 64 bits of one long integer, which Python adds faster than word by word.
    """
    if words == ">":
        swapped = array("I", frames)
        swapped.byteswap()
        values = memoryview(swapped).cast("B").cast("Q")
    else:
        values = frames.cast("Q")
    step = stride // 8
    stored = struct.unpack(f">{len(frames) // stride * 2}I", frames.cast("Q")[2::step].tobytes())
    before = sums + stored
    for start in range(0, len(frames) // stride, _LANES):
        lanes = min(_LANES, len(frames) // stride - start)
        found = _all_sums(values[start * step : (start + lanes) * step], step, before[start * 2 : (start + lanes) * 2])
        wrong = [at for at in range(start, start + lanes) if found[at - start] != stored[at * 2 : at * 2 + 2]]
        if wrong:
            return wrong[0]
    return len(frames) // stride


_LANES = 4096


def _all_sums(values: memoryview, step: int, before: tuple[int, ...]) -> list[tuple[int, int]]:
    """The checksum of each frame of `step` 8-byte values, given the one that it goes on from."""
    lanes = len(values) // step
    mask = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * lanes, "little")
    first, second = (int.from_bytes(struct.pack(f"<{lanes}Q", *before[half::2]), "little") for half in (0, 1))
    # The header's first 8 bytes, then the page; the 16 bytes between hold the salts and the checksum itself.
    for turn, place in enumerate((0, *range(_FRAME // 8, step)), 1):
        pair = int.from_bytes(values[place::step].tobytes(), "little")
        left = pair & mask
        first += left + second
        second += ((pair ^ left) >> 32) + first
        # Sums grow less than threefold in a step, and a lane has 32 bits to spare.
        if turn % 16 == 0:
            first &= mask
            second &= mask
    ends = (struct.unpack(f"<{lanes}Q", (half & mask).to_bytes(8 * lanes, "little")) for half in (first, second))
    return list(zip(*ends, strict=True))


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
