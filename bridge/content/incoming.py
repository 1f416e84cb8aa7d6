"""A tree on its way here from another member: its blocks in one CAR on the disk, so that what broke off goes on.

What came whole is kept and not fetched again; a section that was cut is cut off. Blocks that this node holds already
are not fetched at all. The file lies beside the packs, is bounded, and goes when the tree was taken in or given up.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self, cast

from bridge.content import car, dag
from bridge.content import cid as cids
from bridge.content.at_hand import at_hand_only
from bridge.content.car import CarReader
from bridge.content.car_transfer import MAX_BLOCKS, Car, is_held
from bridge.content.passed import PassedCids
from bridge.errors import CarInvalid, ContentCorrupt, ContentMissing, StorageFault, StorageFull
from bridge.ports import ContentStore

__all__ = ["Delivered", "Incoming", "Source"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_LOOKED_EVERY: Final = 16 << 20
"""Bytes after which what came from others meanwhile is counted again."""


class Source(Protocol):
    """Another member's gateway. Errors as `bridge.content.gateway_client.GatewayClient`."""

    def __call__(self, cid: bytes, /) -> bytes:
        """The block."""

    def tree(self, root: bytes, file: BinaryIO, most: int) -> int:
        """Write the CAR of a tree to a file."""


class Incoming:
    """The tree below one root, as far as it has come; to be used by one thread.

    Parameters
    ----------
    directory
        Where the files of all trees on their way lie.
    root
        The tree's root.
    held
        This node's content: what it has is not fetched.
    most
        Bytes that the directory may hold.
    require_room
        Raises StorageFull when the disk does not take so many bytes more.
    of
        Who gives it, in letters and digits: the same tree from another is on its way by itself.

    Raises StorageFull, StorageFault.
    """

    def __init__(
        self,
        directory: Path,
        root: bytes,
        held: ContentStore,
        most: int,
        require_room: Callable[[int], None],
        *,
        of: str = "",
    ) -> None:
        self._root = root
        self._held = held
        self._most = most
        self._require_room = require_room
        self._path = directory / f"{of}{'-' if of else ''}{cids.to_text(root)}.car"
        self._places: dict[bytes, tuple[int, int]] = {}
        self._end = 0
        with _faults():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._others, self._unseen = self._beside(), 0
            self._file = cast(BinaryIO, os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b"))
            try:
                self._read_again()
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def file(self) -> BinaryIO:
        """The CAR, to be read when all has come."""
        return self._file

    @property
    def size(self) -> int:
        """The CAR's bytes so far."""
        return self._end

    def fetch(self, source: Source, *, partly_held: bool = False, doubted: bool = False) -> None:
        """Fetch what is missing: the whole tree at once when nothing of it is here, else block by block.

        `partly_held`: an earlier state of the tree is held, so that most of what lies below a new root is. `doubted`:
        what the index names is read before it is believed to be held, for blocks of this tree were lost.

        Raises what the source does, StorageFull when there is no room (what came is kept), StorageFault, CarInvalid
        for a tree of too many blocks or whose blocks are not what they must be.
        """
        with _faults():
            has = partial(is_held, self._held) if doubted else self._held.has
            begun = has(self._root) or (partly_held and not doubted)
            if not begun and not self._places:
                self._fetch_all(source)
            self._begin()
            self._fetch_rest(source, has)
            self._file.flush()

    def discard(self) -> None:
        """Remove the file; nothing is kept of what came."""
        self.close()
        with _faults():
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the file; what came stays for the next time."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _fetch_all(self, source: Source) -> None:
        self._file.seek(0)
        try:
            source.tree(self._root, cast(BinaryIO, _Bounded(self._file, self._room)), self._left())
        finally:
            self._read_again()

    def _begin(self) -> None:
        if not self._end:
            self._file.seek(0)
            self._end = self._file.write(car.encode_header([self._root]))

    def _fetch_rest(self, source: Source, has: Callable[[bytes], bool]) -> None:
        def get(cid: bytes) -> bytes:
            data = self._get(cid)
            if data is None:
                data = self._add(cid, source(cid))
            return data

        try:
            for cid, data in dag.order(self._root, get, passed=PassedCids()):
                if data is None and cid not in self._places and not has(cid):
                    self._add(cid, source(cid))
        except ContentCorrupt as error:
            raise CarInvalid(error.detail) from None

    def _get(self, cid: bytes) -> bytes | None:
        place = self._places.get(cid)
        if place is not None:
            self._file.seek(place[0])
            return self._file.read(place[1])
        if not self._held.has(cid):
            return None
        try:
            with at_hand_only():
                return self._held.get(cid)
        except (ContentMissing, ContentCorrupt):
            return None  # it is fetched anew, and so healed

    def _add(self, cid: bytes, data: bytes) -> bytes:
        if len(self._places) >= MAX_BLOCKS:
            raise CarInvalid(f"the tree has more than {MAX_BLOCKS} blocks")
        head = car.section_head(cid, len(data))
        self._file.seek(self._end)
        _Bounded(self._file, self._room).write(head + data)
        self._places[cid] = (self._end + len(head), len(data))
        self._end += len(head) + len(data)
        return data

    def _beside(self) -> int:
        """Bytes of the other trees that are on their way."""
        found = 0
        for entry in os.scandir(self._path.parent):
            with contextlib.suppress(FileNotFoundError):  # taken in meanwhile
                found += entry.stat().st_size if entry.name != self._path.name else 0
        return found

    def _room(self, written: int, size: int) -> None:
        self._unseen += size
        if self._unseen > _LOOKED_EVERY:
            self._others, self._unseen = self._beside(), 0
        if written + size > self._left():
            raise StorageFull("the studies that are being fetched from members have no room for more")
        self._require_room(size)

    def _left(self) -> int:
        return self._most - self._others - self._end

    def _read_again(self) -> None:
        """Take up what an earlier attempt left: every section that is whole."""
        self._file.flush()
        self._file.seek(0)
        self._places, self._end = {}, 0
        try:
            reader = CarReader(self._file.read)
            if reader.roots == (self._root,):
                self._end = reader.offset
                for block in reader:
                    self._places[block.cid] = (reader.offset - len(block.data), len(block.data))
                    self._end = reader.offset
        except ContentCorrupt:
            pass  # cut short: what is behind it comes again
        self._file.truncate(self._end)


class Delivered(Car):
    """A CAR whose tree may lack blocks that this node holds; they count as if they were in it.

    Raises CarInvalid as `Car`, for what is neither there nor here.
    """

    def __init__(self, file: BinaryIO, root: bytes, held: ContentStore) -> None:
        self._held = held
        super().__init__(file, root)

    def get(self, cid: bytes) -> bytes:
        """The block, from the file or else from this node. Raises CarInvalid, ContentMissing for one lost meanwhile."""
        if self.has(cid):
            return super().get(cid)
        try:
            with at_hand_only():
                return self._held.get(cid)
        except (ContentMissing, ContentCorrupt) as error:
            if self._held.has(cid):  # it could be read when the rest was fetched: the next time it is fetched too
                raise ContentMissing(error.detail) from None
            raise CarInvalid(error.detail) from None

    def _place(self, cid: bytes) -> tuple[int, int]:
        if not self.has(cid) and self._held.has(cid):
            return 0, 0
        return super()._place(cid)


class _Bounded:
    """A file that asks for room before it is written to."""

    def __init__(self, file: BinaryIO, room: Callable[[int, int], None]) -> None:
        self._file = file
        self._room = room
        self._written = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        size = len(memoryview(data))
        self._room(self._written, size)
        self._written += size
        return self._file.write(data)


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("there is no space left for what is fetched from members") from error
        raise StorageFault(f"what is fetched from members cannot be kept: {os.strerror(error.errno or 0)}") from error
