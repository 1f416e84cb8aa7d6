"""Sequential scan of a pack: every block found and whether it is whole, from the file alone or against the index.

With the index's positions every flipped byte of the file belongs to something reported: the header, or a section's
length, CID or block. Without them the scan finds what can be found, from which the block index is rebuilt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bridge.content import car
from bridge.content import cid as cids
from bridge.content.pack_format import HEADER, find_section, pack_number, pread_full, section_at
from bridge.errors import StorageFault
from bridge.model import BlockPosition

__all__ = ["rebuild", "scan"]


def scan(path: Path, positions: Iterable[BlockPosition] = ()) -> Iterator[tuple[BlockPosition, bool]]:
    """Every block of a pack in order, and whether it is whole.

    Parameters
    ----------
    path
        The pack file.
    positions
        What the index says lies in this pack, by ascending offset; may be a cursor. A section that they do not name is
        reported too (it is garbage, or not yet committed).

    A damaged stretch that belongs to no known block is reported with an empty CID, its offset and length in bytes; so
    is the file's header. Holds one block at a time. Raises StorageFault when the file cannot be read.
    """
    pack = pack_number(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageFault(f"pack {pack}: {os.strerror(error.errno or 0)}") from error
    try:
        yield from _scan(fd, pack, positions)
    except OSError as error:
        raise StorageFault(f"pack {pack}: {os.strerror(error.errno or 0)}") from error
    finally:
        os.close(fd)


def rebuild(path: Path) -> Iterator[BlockPosition]:
    """The position of every whole block of a pack, from the file alone. Errors as `scan`."""
    return (position for position, whole in scan(path) if whole)


def _scan(fd: int, pack: int, positions: Iterable[BlockPosition]) -> Iterator[tuple[BlockPosition, bool]]:
    size = os.fstat(fd).st_size
    if pread_full(fd, len(HEADER), 0) != HEADER:
        yield BlockPosition(b"", pack, 0, min(size, len(HEADER))), False
    at = len(HEADER)
    for position in positions:
        head = car.section_head(position.cid, position.length)
        start = position.offset - len(head)
        yield from _unknown(fd, pack, at, min(start, size))
        yield position, _is_whole(fd, position, head)
        at = max(at, position.offset + position.length)
    yield from _unknown(fd, pack, at, size)


def _is_whole(fd: int, position: BlockPosition, head: bytes) -> bool:
    section = pread_full(fd, len(head) + position.length, position.offset - len(head))
    if len(section) != len(head) + position.length or not section.startswith(head):
        return False
    return cids.verify(position.cid, memoryview(section)[len(head) :])


def _unknown(fd: int, pack: int, at: int, stop: int) -> Iterator[tuple[BlockPosition, bool]]:
    """Sections between two known ones, or behind the last: taken at their word while they fit, else searched for."""
    while at < stop:
        section, intact = section_at(fd, at, stop)
        if section is None or not intact:
            found = find_section(fd, at + 1, stop)
            if section is not None and (found is None or found.start >= section.end):
                # the length holds, the block or its CID does not
                yield BlockPosition(section.cid, pack, section.offset, section.length), False
                at = section.end
                continue
            end = stop if found is None else found.start
            yield BlockPosition(b"", pack, at, end - at), False
            at = end
            continue
        yield BlockPosition(section.cid, pack, section.offset, section.length), True
        at = section.end
