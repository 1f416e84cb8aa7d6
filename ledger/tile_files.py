"""Tiles, entry bundles and the checkpoint as files below one directory, as C2SP tlog-tiles serves them.

A full tile is written once and never again. Files are complete from the moment they have their name (written aside,
fsync, rename, fsync of the directory). The checkpoint is written last, so that what it covers is always there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ledger.merkle import HASH_SIZE
from ledger.page_digests import sync_directory
from ledger.tiles import ENTRIES, WIDTH, Tile, bundle_bytes, subtree_root, tiles

CHECKPOINT = "checkpoint"
_ASIDE = ".tmp"

#: Reads a range [start, end) of leaves or of envelopes from the log.
RangeReader = Callable[[int, int], list[bytes]]


class TileFiles:
    """The published log below `directory`. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, tile: Tile) -> bytes:
        """A tile's bytes; of a partial hash tile also from a wider or the full one. Raises FileNotFoundError."""
        path = self._directory / tile.path()
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if tile.level == ENTRIES or tile.width == WIDTH:
                raise
            whole = self._directory / tile._replace(width=WIDTH).path()
            return whole.read_bytes()[: tile.width * HASH_SIZE]

    def publish(self, size: int, since: int, note: str, leaves: RangeReader, envelopes: RangeReader) -> None:
        """Write what a tree of `size` leaves has and one of `since` had not, then the checkpoint."""
        self._write_tiles(size, since, leaves, envelopes)
        self._write(self._directory / CHECKPOINT, note.encode())
        sync_directory(self._directory)

    def repair(self, size: int, leaves: RangeReader, envelopes: RangeReader) -> None:
        """Write the tiles of a tree of `size` leaves that a crash kept from being written; clear what it left aside."""
        for left in self._directory.rglob(f"*{_ASIDE}"):
            left.unlink()
        self._write_tiles(size, 0, leaves, envelopes)

    def checkpoint(self) -> str | None:
        """The published checkpoint; None when there is none yet."""
        try:
            return (self._directory / CHECKPOINT).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file below tile/, by its path there, without those that a crash left aside."""
        for path in sorted((self._directory / "tile").rglob("*")):
            if path.is_file() and path.suffix != _ASIDE:
                yield path.relative_to(self._directory).as_posix(), path

    def _write_tiles(self, size: int, since: int, leaves: RangeReader, envelopes: RangeReader) -> None:
        touched: set[Path] = set()
        for tile in tiles(size, since):
            path = self._directory / tile.path()
            if not path.exists():
                touched |= self._write(path, self._content(tile, leaves, envelopes))
            if tile.width == WIDTH:
                # The partial ones may go once the full one is there (tlog-tiles, Partial Tiles).
                shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)
        for directory in sorted(touched, reverse=True):
            sync_directory(directory)

    def _content(self, tile: Tile, leaves: RangeReader, envelopes: RangeReader) -> bytes:
        first = tile.number * WIDTH
        if tile.level == ENTRIES:
            return bundle_bytes(envelopes(first, first + tile.width))
        if tile.level == 0:
            return b"".join(leaves(first, first + tile.width))
        known = self._narrower(tile)
        fresh = range(first + len(known) // HASH_SIZE, first + tile.width)
        return known + b"".join(subtree_root(self.read(Tile(tile.level - 1, below, WIDTH))) for below in fresh)

    def _narrower(self, tile: Tile) -> bytes:
        """The partial tile one hash narrower, when it is there: its hashes need not be computed again."""
        path = self._directory / tile._replace(width=tile.width - 1).path()
        content = path.read_bytes() if tile.width > 1 and path.exists() else b""
        return content if len(content) == (tile.width - 1) * HASH_SIZE else b""

    def _write(self, path: Path, content: bytes) -> set[Path]:
        """Write a file whole; the directories whose entries have changed by it."""
        touched = {path.parent}
        missing = path.parent
        while not missing.exists():
            missing = missing.parent
            touched.add(missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + _ASIDE)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        return touched
