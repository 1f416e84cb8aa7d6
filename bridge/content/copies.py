"""The copies of a block that this node answers for, read one by one and mended one by one: for those who check them.

A read of the content store takes the first copy that is whole, so that a damaged one beside it would never be seen.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from bridge.content import car
from bridge.content import cid as cids
from bridge.content.pack_format import pack_path, pread_full
from bridge.content.packs import PackStore
from bridge.errors import ContentCorrupt, ContentMissing, StorageFault, StorageFull
from bridge.model import Block, BlockPosition

__all__ = ["Copy", "PackCopy", "write_again"]


class Copy(Protocol):
    """One place in which blocks lie."""

    @property
    def name(self) -> str:
        """Which, in a word: "packs", "kubo"."""

    def holds(self, cid: bytes) -> bool:
        """Whether the block ought to lie there."""

    def where(self, cid: bytes) -> str:
        """Where the block lies there, in words."""

    def read(self, cid: bytes) -> bytes:
        """The block as it lies there, verified. Raises ContentMissing, ContentCorrupt; EngineFault: not to be had."""

    def mend(self, block: Block) -> None:
        """Put a verified block there anew, durably. Raises StorageFull, StorageFault, EngineFault."""


class PackCopy:
    """The node's own packs.

    Parameters
    ----------
    packs
        The store.
    directory
        Where its files lie.
    trimmed
        The packs whose files were removed: nothing is missed in them.
    moved
        Told, with the block durable there, where a block lies now that could not be written where it lay.
    """

    name = "packs"

    def __init__(
        self,
        packs: PackStore,
        directory: Path,
        trimmed: Callable[[], Collection[int]],
        moved: Callable[[BlockPosition], None],
    ) -> None:
        self._packs = packs
        self._directory = directory
        self._trimmed = trimmed
        self._moved = moved

    def holds(self, cid: bytes) -> bool:
        """As Copy: its position is known and its pack was not trimmed."""
        position = self._packs.position(cid)
        return position is not None and position.pack not in self._trimmed()

    def where(self, cid: bytes) -> str:
        """As Copy."""
        position = self._packs.position(cid)
        return f"pack {position.pack:08d}.car at byte {position.offset}" if position else "packs"

    def read(self, cid: bytes) -> bytes:
        """As Copy: the whole section, its head too; from the disk, where the system lets go of what it remembers."""
        position = self._packs.position(cid)
        if position is None:
            raise ContentMissing(f"block {cids.to_text(cid)} is not held")
        try:
            return _read_section(pack_path(self._directory, position.pack), position)
        except FileNotFoundError:
            raise ContentMissing(f"{self.where(cid)}: the pack is gone") from None
        except OSError as error:
            raise ContentCorrupt(f"{self.where(cid)}: {os.strerror(error.errno or 0)}") from error

    def mend(self, block: Block) -> None:
        """As Copy: where it lay, so that the file is byte for byte what it was; else at the end of the packs."""
        position = self._packs.position(block.cid)
        if position is not None and len(block.data) == position.length:
            try:
                write_again(self._directory, position, block)
                return
            except FileNotFoundError:
                pass  # the whole pack is lost
            except OSError as error:
                raise _fault(position, error) from error
        (position,) = self._packs.put([block])
        self._packs.sync()
        self._moved(position)


def write_again(directory: Path, position: BlockPosition, block: Block) -> None:
    """Write a block's section anew where it lies, durably, without touching a byte beside it. Raises OSError.

    Raises ValueError for bytes that are not the block. A pack that a process appends to is not disturbed: what is
    written lies below its end. A crash in between leaves the block as damaged as it was.
    """
    if len(block.data) != position.length or not cids.verify(block.cid, block.data):
        raise ValueError("these bytes are not the block")
    head = car.section_head(block.cid, position.length)
    start, section = position.offset - len(head), head + bytes(block.data)
    fd = os.open(pack_path(directory, position.pack), os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < start:
            raise FileNotFoundError  # cut off before it: written here it would leave a hole
        written = 0
        while written < len(section):
            written += os.pwrite(fd, section[written:], start + written)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _read_section(path: Path, position: BlockPosition) -> bytes:
    """The block of a section that is whole. Raises ContentCorrupt, OSError."""
    head = car.section_head(position.cid, position.length)
    start, size = position.offset - len(head), len(head) + position.length
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, start, size, os.POSIX_FADV_DONTNEED)
        section = pread_full(fd, size, start)
    finally:
        os.close(fd)
    data = section[len(head) :]
    if len(section) != size or not section.startswith(head) or not cids.verify(position.cid, data):
        raise ContentCorrupt(f"{path.name} at byte {position.offset} is damaged")
    return data


def _fault(position: BlockPosition, error: OSError) -> StorageFault | StorageFull:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the disk is full")
    return StorageFault(f"pack {position.pack} cannot be written: {os.strerror(error.errno or 0)}")
