"""Blocks that are read one after another, where the index is asked for many at once where they lie.

To ask for each by itself costs as much as to read and verify it from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from bridge.content import car
from bridge.errors import ContentCorrupt, ContentMissing
from bridge.model import BlockPosition

__all__ = ["Located", "Packs", "section"]

MANY: Final = 16
"""Links of a block from which on it is asked at once where all of them lie."""


class Packs(Protocol):
    """Where most blocks lie, by position. Both raise ContentMissing, ContentCorrupt."""

    def at(self, position: BlockPosition) -> bytes:
        """The block, verified."""

    def section(self, position: BlockPosition) -> bytes:
        """The section of a CAR that it lies in, verified."""


class Located:
    """Some blocks of a tree. What is not known to lie somewhere, or no longer lies there, is got by its CID.

    `positions` tells where those of many blocks lie that the index knows; `get` is a content store's.
    """

    def __init__(
        self,
        packs: Packs,
        positions: Callable[[Iterable[bytes]], Mapping[bytes, BlockPosition]],
        get: Callable[[bytes], bytes],
    ) -> None:
        self._packs, self._ask, self._get = packs, positions, get
        self._positions: dict[bytes, BlockPosition] = {}

    def learn(self, blocks: Iterable[bytes]) -> None:
        """Ask where the blocks lie; kept until each is got."""
        self._positions.update(self._ask(blocks))

    def told(self, links: Sequence[bytes]) -> None:
        """Ask for the blocks below one, when there are many."""
        if len(links) >= MANY:
            self.learn(links)

    def size(self, cid: bytes) -> int | None:
        """The length of a block; None when it is not known where it lies."""
        position = self._positions.get(cid)
        return position.length if position is not None else None

    def get(self, cid: bytes) -> bytes:
        """The block, verified, and forget where it lies. Raises ContentMissing, ContentCorrupt."""
        return self._read(cid, self._packs.at) or self._get(cid)

    def section(self, cid: bytes, data: bytes | None = None) -> bytes:
        """The block as a section of a CAR; read now, as `get`, unless `data` is it."""
        if data is not None:
            return section(cid, data)
        return self._read(cid, self._packs.section) or section(cid, self._get(cid))

    def _read(self, cid: bytes, read: Callable[[BlockPosition], bytes]) -> bytes | None:
        position = self._positions.pop(cid, None)
        if position is None:
            return None
        try:
            return read(position)
        except (ContentMissing, ContentCorrupt):  # it has moved since, or lies elsewhere too
            return None


def section(cid: bytes, data: bytes | bytearray) -> bytes:
    """A block as a section of a CAR (CAR v1): its head, then the block."""
    return b"".join((car.section_head(cid, len(data)), data))
