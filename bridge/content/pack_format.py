"""What a pack file is: `packs/NNNNNNNN.car`, a CAR v1 with one fixed header and sections of our own CIDs.

The root is the empty identity CID (`bafkqaaa`), which every IPFS node holds: CARv1 demands one root at least, and
what the pack will hold is not known when it begins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from bridge.content import car
from bridge.content import cid as cids

__all__ = [
    "HEADER",
    "MAX_SECTION",
    "Section",
    "find_section",
    "head_at",
    "pack_number",
    "pack_path",
    "packs_in",
    "pread_full",
    "section_at",
    "sync_directory",
    "write_header",
]

HEADER: Final = car.encode_header([bytes((1, cids.RAW, cids.IDENTITY, 0))])
_CID_SIZE: Final = 4 + cids.DIGEST_SIZE
MAX_SECTION: Final = 4 + _CID_SIZE + car.MAX_BLOCK
_NAME: Final = re.compile(r"\d{8}\.car")
_CID_START: Final = re.compile(rb"\x01[\x55\x70\x71][\x12\x1e]\x20")
_WINDOW: Final = 1 << 20


class Section(NamedTuple):
    """One section as its bytes say: its offset in the file, CID, offset and length of the block, in bytes."""

    start: int
    cid: bytes
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind the section."""
        return self.offset + self.length


def pack_path(directory: Path, number: int) -> Path:
    """Where pack `number` lies."""
    return directory / f"{number:08d}.car"


def write_header(path: Path) -> None:
    """Write a pack's header anew, durably: it is the same in all, and no block lies in its bytes. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, HEADER, 0)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def pack_number(path: Path) -> int:
    """The number in a pack's name."""
    return int(path.stem)


def packs_in(directory: Path) -> list[Path]:
    """The packs in a directory, by number; none when it does not exist."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))


def pread_full(fd: int, length: int, offset: int) -> bytes:
    """`os.pread` until `length` bytes are there or the file ends."""
    data = os.pread(fd, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    got = len(data)
    while got < length:
        part = os.pread(fd, length - got, offset + got)
        if not part:
            break
        parts.append(part)
        got += len(part)
    return b"".join(parts)


def head_at(fd: int, start: int) -> Section | None:
    """The section that the bytes at `start` announce, or None when they announce none; the block is not read."""
    data = pread_full(fd, 4 + _CID_SIZE, start)
    try:
        length, position = cids.read_varint(data)
        _, end = cids.read(data, position)
    except ValueError:
        return None
    size = length - (end - position)
    if not 0 <= size <= car.MAX_BLOCK or end - position != _CID_SIZE:
        return None
    return Section(start, data[position:end], start + end, size)


def section_at(fd: int, start: int, stop: int) -> tuple[Section | None, bool]:
    """The section at `start` if it ends at or before `stop`, and whether its block is what its CID names."""
    section = head_at(fd, start)
    if section is None or section.end > stop:
        return None, False
    return section, cids.verify(section.cid, pread_full(fd, section.length, section.offset))


def find_section(fd: int, start: int, stop: int) -> Section | None:
    """The first intact section that begins at or behind `start` and ends at or before `stop`, found by its CID.

    Holds 1 MiB at a time. This is how a scan goes on behind a damaged length.
    """
    for at in _cid_starts(fd, start, stop):
        for width in (1, 2, 3, 4):
            if at - width < start:
                break
            section, intact = section_at(fd, at - width, stop)
            if section is not None and intact and section.offset == at + _CID_SIZE:
                return section
    return None


def _cid_starts(fd: int, start: int, stop: int) -> Iterator[int]:
    overlap = 3
    at = start
    while at < stop:
        window = pread_full(fd, min(_WINDOW + overlap, stop - at), at)
        for match in _CID_START.finditer(window):
            if match.start() < _WINDOW:
                yield at + match.start()
        at += _WINDOW


def sync_directory(directory: Path) -> None:
    """Make names created or removed in a directory durable (fsync(2): needed besides the file's own)."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
