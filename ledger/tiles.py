"""The log as static files: C2SP tlog-tiles (tiles of height 8, entry bundles).

A tile of level l holds up to 256 hashes of perfect subtrees over 256**l leaves; a full one is immutable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from ledger.errors import CodecError
from ledger.merkle import HASH_SIZE, NodeReader

WIDTH = 256  # hashes in a full tile, entries in a full bundle
HEIGHT = 8  # tree levels that one tile spans
ENTRIES = -1  # the level that stands for entry bundles


class Tile(NamedTuple):
    """A tile's place: level (ENTRIES for a bundle), number within the level, width 1..256."""

    level: int
    number: int
    width: int

    def path(self) -> str:
        """Its path below the log's prefix: tile/<L>/<N>[.p/<W>], N in groups of three digits (x001/x234/067)."""
        digits = f"{self.number % 1000:03d}"
        rest = self.number // 1000
        while rest:
            digits = f"x{rest % 1000:03d}/{digits}"
            rest //= 1000
        level = "entries" if self.level == ENTRIES else str(self.level)
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{digits}{suffix}"


_PATH = re.compile(r"tile/(entries|\d{1,2})((?:/x\d{3})*/\d{3})(?:\.p/(\d{1,3}))?")


def parse_path(path: str) -> Tile | None:
    """The tile of a path below the log's prefix; None when the path is not one a tile has."""
    found = _PATH.fullmatch(path)
    if not found:
        return None
    level, digits, width = found.groups()
    tile = Tile(
        ENTRIES if level == "entries" else int(level),
        int(digits.replace("/", "").replace("x", "")),
        int(width) if width else WIDTH,
    )
    return tile if tile.path() == path and tile.width > 0 else None


def tiles(size: int, since: int = 0) -> Iterator[Tile]:
    """The tiles and bundles of a tree of `size` leaves that a tree of `since` leaves does not have alike.

    Per level: every full tile that was not full at `since`, and the partial one if its width has changed.
    """
    yield from _level(ENTRIES, size, since)
    level = 0
    while size:
        yield from _level(level, size, since)
        size >>= HEIGHT
        since >>= HEIGHT
        level += 1


def _level(level: int, hashes: int, before: int) -> Iterator[Tile]:
    full, width = divmod(hashes, WIDTH)
    for index in range(before // WIDTH, full):
        yield Tile(level, index, WIDTH)
    if width and hashes != before:
        yield Tile(level, full, width)


def tile_bytes(tile: Tile, read: NodeReader) -> bytes:
    """A tile's content: its hashes one after the other."""
    first, shift = tile.number * WIDTH, tile.level * HEIGHT
    return b"".join(read(shift, first + number) for number in range(tile.width))


def bundle_bytes(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry behind its length as a big-endian uint16. Raises CodecError beyond 65,535 bytes."""
    if any(len(entry) > 0xFFFF for entry in entries):
        raise CodecError("an entry longer than 65,535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def split_bundle(bundle: bytes) -> list[bytes]:
    """The entries of a bundle; raises CodecError when lengths and bytes do not agree."""
    entries, at = [], 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        entry = bundle[at + 2 : at + 2 + length]
        if at + 2 > len(bundle) or len(entry) != length:
            raise CodecError("the bundle ends within an entry")
        entries.append(entry)
        at += 2 + length
    return entries


_KNOWN = 64  # tiles: more than a proof needs, which reads a tile for several of its hashes


def node_reader(size: int, read_tile: Callable[[Tile], bytes]) -> NodeReader:
    """A reader of perfect subtree roots from the tiles of a tree of `size` leaves.

    `read_tile` is asked once for each tile, as wide as the tree has it; raises CodecError when it gives another length.
    """
    known: dict[Tile, bytes] = {}

    def read(level: int, index: int) -> bytes:
        tile_level, inner = divmod(level, HEIGHT)
        first = index << inner
        width = min(WIDTH, (size >> (tile_level * HEIGHT)) - first // WIDTH * WIDTH)
        tile = Tile(tile_level, first // WIDTH, width)
        content = known.get(tile) or read_tile(tile)
        if len(known) < _KNOWN:
            known[tile] = content
        if len(content) != width * HASH_SIZE:
            raise CodecError(f"{tile.path()} has another length than its width", tile.path())
        start = first % WIDTH * HASH_SIZE
        return subtree_root(content[start : start + (HASH_SIZE << inner)])

    return read


def subtree_root(hashes: bytes) -> bytes:
    """The root over a power of two of hashes laid end to end: a full tile's is a hash of the tile above."""
    row = [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]
    while len(row) > 1:
        row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]
