"""Tiles, entry bundles and the checkpoint as files below one directory, as C2SP tlog-tiles serves them.

A full tile is written once and never again. Files are complete from the moment they have their name (written aside,
renamed), and the checkpoint is written last, so that who reads always finds what it covers. All of it can be made again
from the database, so it is made durable by `sync` alone, and what a loss of power has torn before that, `repair` mends.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ledger.merkle import HASH_SIZE
from ledger.page_digests import sync_directory
from ledger.tiles import ENTRIES, HEIGHT, WIDTH, Tile, bundle_bytes, parse_path, subtree_root, tiles

CHECKPOINT = "checkpoint"
_ASIDE = ".tmp"

#: Reads a range [start, end) of leaves or of envelopes from the log.
RangeReader = Callable[[int, int], list[bytes]]


class TileFiles:
    """The published log below `directory`. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unsynced: set[Path] = set()

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

    def publish(self, size: int, since: int, note: str | None, leaves: RangeReader, envelopes: RangeReader) -> None:
        """Write what a tree of `size` leaves has and one of `since` had not, then the checkpoint when one is given."""
        for tile in tiles(size, since):
            self._write_tile(tile, leaves, envelopes, sure=False)
        if note is not None:
            self._write(self._directory / CHECKPOINT, note.encode())

    def sync(self) -> None:
        """Make durable what was published; directories after the files in them, the checkpoint last."""
        files = [path for path in self._unsynced if not path.is_dir()]
        for path in sorted(files, key=lambda path: path.name == CHECKPOINT):
            with suppress(FileNotFoundError), path.open("rb") as file:  # a partial tile may be gone again
                os.fsync(file.fileno())
        for directory in sorted(self._unsynced.difference(files), reverse=True):
            sync_directory(directory)
        self._unsynced.clear()

    def repair(self, size: int, synced: int, leaves: RangeReader, envelopes: RangeReader) -> None:
        """Write the tiles of a tree of `size` leaves that a crash kept from being written; clear what it left aside.

        Files beyond `synced` leaves may have been torn: those that do not hold what they should are written anew.
        """
        for left in self._directory.rglob(f"*{_ASIDE}"):
            left.unlink()
        for path, file in list(self.files()) if synced < size else []:
            tile = parse_path(path)
            ends = tile.number * WIDTH + tile.width << max(tile.level, 0) * HEIGHT if tile else 0
            # Those above level 0 are made from other tiles, which may be torn as well.
            if (
                tile
                and synced < ends <= size
                and (tile.level > 0 or file.read_bytes() != self._content(tile, leaves, envelopes))
            ):
                file.unlink()
        for tile in tiles(size):
            self._write_tile(tile, leaves, envelopes, sure=True)

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

    def _write_tile(self, tile: Tile, leaves: RangeReader, envelopes: RangeReader, sure: bool) -> None:
        """Write a tile that is not there; unless `sure` of one that is, also one that does not hold what it should."""
        path = self._directory / tile.path()
        if not (path.exists() and sure):
            content = self._content(tile, leaves, envelopes)
            # Of a log that lost its last transactions, the files may be there before the entries are made again.
            if not path.exists() or path.read_bytes() != content:
                self._write(path, content)
        if tile.width == WIDTH:
            # The partial ones may go once the full one is there (tlog-tiles, Partial Tiles).
            shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)

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
        """The widest narrower partial tile that is there: its hashes need not be computed again."""
        directory = self._directory / f"{tile._replace(width=WIDTH).path()}.p"
        there = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
        width = max((width for width in there if width < tile.width), default=0)
        content = (directory / str(width)).read_bytes() if width else b""
        return content if len(content) == width * HASH_SIZE else b""

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file whole."""
        directory = path.parent
        while not directory.exists():
            directory = directory.parent
            self._unsynced.add(directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + _ASIDE)
        aside.write_bytes(content)
        aside.replace(path)
        self._unsynced |= {path, path.parent}
