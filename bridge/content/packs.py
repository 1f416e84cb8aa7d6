"""The embedded content store: append-only pack files, one fdatasync for a group, every read verified.

A writing process owns its pack by flock on the file itself. What a failed write or fsync leaves in doubt is never
called durable: the kernel may have dropped the dirty pages and report success the next time ("fsyncgate"), so the
store then refuses to write until it is reopened or `renew`ed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bridge.content import car, room
from bridge.content import cid as cids
from bridge.content.open_pack import OpenPack, claim_pack, create_pack
from bridge.content.pack_format import pack_path, pread_full
from bridge.errors import CairnError, ContentCorrupt, ContentMissing, StorageFault, StorageFull
from bridge.model import Block, BlockPosition

__all__ = ["PackStore"]

_RECENT: Final = 16_384  # positions, about 5 MB; what is in flight between put and the index's commit is far less
_READERS: Final = 64
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class PackStore:
    """Blocks in `home/packs`, as `bridge.ports.ContentStore`; safe to use from many threads of one process.

    Parameters
    ----------
    home
        CAIRN_HOME; `packs` is made in it.
    owner
        The name of the writing process ("dimse-0", "web-0", "command"), for messages.
    locate
        The index's position of a CID, or None. Blocks put by this process are found before the index knows them.
    pack_bytes
        The size in bytes at which a new pack is begun.
    reserve_bytes
        Free space in bytes that `put` leaves on the disk, at most a twentieth of it. Pages and roots may take half of
        it: without them nothing that is stored gets to a content engine, and from a full disk.
    committed_end
        As `recovery.recover`: when given, the first `put` goes on with an unfinished pack that no process holds, after
        recovering it; otherwise it begins a new one.
    last_pack
        The highest number that the index names, -1 for none: a new pack gets a higher one, though no file be there.

    Make it after a fork, not before.
    """

    def __init__(
        self,
        home: Path,
        owner: str,
        locate: Callable[[bytes], BlockPosition | None],
        *,
        pack_bytes: int = 1 << 30,
        reserve_bytes: int = 0,
        committed_end: Callable[[int], int] | None = None,
        last_pack: Callable[[], int] = lambda: -1,
    ) -> None:
        self.owner = owner
        self._directory = home / "packs"
        self._locate = locate
        self._pack_bytes = pack_bytes
        self._reserve = reserve_bytes
        self._committed_end = committed_end
        self._last_pack = last_pack
        self._append = threading.Lock()  # held while bytes are appended; taken before _state
        self._state = threading.Condition()
        self._pack: OpenPack | None = None
        self._full: list[OpenPack] = []  # rotated out, to be synced and released by the next sync
        self._written = 0  # how many puts were appended
        self._durable = 0  # how many of them are on stable storage
        self._syncing = False
        self._failure: CairnError | None = None
        self._epoch = 0  # counts failures, so that who put before one is told even after `renew`
        self._mine = threading.local()  # .epoch: when this thread last put something not yet synced
        self._recent: OrderedDict[bytes, BlockPosition] = OrderedDict()
        self._readers: OrderedDict[int, _Reader] = OrderedDict()

    def put(self, blocks: Sequence[Block]) -> Sequence[BlockPosition]:
        """Append blocks; not yet durable. All or nothing.

        Raises StorageFull when the disk is (what was written of them is cut off again, and a later put may succeed),
        StorageFault when writing fails otherwise or failed before, ValueError for a block beyond 2 MiB or a CID that
        is not sha2-256 or blake3.
        """
        pieces: list[bytes | bytearray] = []
        relative: list[tuple[bytes, int, int]] = []
        size, closing = 0, True
        for cid, data in blocks:
            parts = cids.parse(cid)
            closing = closing and parts.codec == cids.DAG_CBOR
            if parts.hash == cids.IDENTITY or len(data) > car.MAX_BLOCK:
                raise ValueError("a block has at most 2 MiB and a CID of sha2-256 or blake3")
            head = car.section_head(cid, len(data))
            relative.append((cid, size + len(head), len(data)))
            pieces += (head, data)
            size += len(head) + len(data)
        with self._append:
            self._raise_failure()
            try:
                self._leave_reserve(size, 2 if closing else 1)
                pack = self._writable()
            except OSError as error:
                raise self._error(error) from error
            try:
                start = pack.append(pieces)
            except OSError as error:
                raise self._refused(pack, error) from error
            positions = [BlockPosition(cid, pack.number, start + at, length) for cid, at, length in relative]
            with self._state:
                self._written += 1
                self._mine.epoch = self._epoch
                for position in positions:
                    self._recent[position.cid] = position
                    self._recent.move_to_end(position.cid)
                while len(self._recent) > _RECENT:
                    self._recent.popitem(last=False)
        return positions

    def sync(self) -> None:
        """Make everything put so far durable; callers that wait together share one fdatasync.

        Raises StorageFull or StorageFault when it failed for something put and not yet durable, then and for every
        later call: such blocks may be lost and must be put again after `renew` or in a new process.
        """
        with self._state:
            target, epoch = self._written, self._epoch
            if self._mine.__dict__.pop("epoch", epoch) != epoch:
                raise self._failure_again()
            while True:
                if self._epoch != epoch:
                    raise self._failure_again()
                if self._durable >= target:
                    return
                if self._failure is not None:
                    raise self._failure_again()
                if not self._syncing:
                    break
                self._state.wait()
            self._syncing = True
        try:
            self._lead_sync()
        finally:
            with self._state:
                self._syncing = False
                self._state.notify_all()
        with self._state:
            if self._epoch != epoch or self._durable < target:
                raise self._failure_again()

    def get(self, cid: bytes) -> bytes:
        """The block, verified. Raises ContentMissing, or ContentCorrupt naming the pack and offset."""
        position = self.position(cid)
        if position is None:
            raise ContentMissing(f"block {cids.to_text(cid)} is not held")
        return self.at(position)

    def at(self, position: BlockPosition) -> bytes:
        """The block that is said to lie somewhere, verified. Errors as `get`."""
        data = self._read(position.pack, position.offset, position.length, partial(_where, position))
        if len(data) != position.length or not cids.verify(position.cid, data):
            raise ContentCorrupt(f"{_where(position)} is damaged")
        return data

    def section(self, position: BlockPosition) -> bytes:
        """The section of a CAR that it lies in: its head and the block, verified. Errors as `get`."""
        head = car.section_head(position.cid, position.length)
        size, start = len(head) + position.length, position.offset - len(head)
        data = self._read(position.pack, start, size, partial(_where, position))
        whole = len(data) == size and data.startswith(head)
        if not whole or not cids.verify(position.cid, memoryview(data)[len(head) :]):
            raise ContentCorrupt(f"{_where(position)} is damaged")
        return data

    def read(self, pack: int, offset: int, length: int) -> bytes:
        """A stretch of a pack as it lies there, not verified. Raises ContentMissing, ContentCorrupt if it is short."""
        where = f"the stretch of pack {pack} at byte {offset}"
        data = self._read(pack, offset, length, lambda: where)
        if len(data) != length:
            raise ContentCorrupt(f"{where} is cut short")
        return data

    def has(self, cid: bytes) -> bool:
        """Whether the block is held (neither read nor verified)."""
        return self.position(cid) is not None

    def position(self, cid: bytes) -> BlockPosition | None:
        """Where the block lies: as put by this process a short while ago, else as the index says."""
        with self._state:
            recent = self._recent.get(cid)
        return recent if recent is not None else self._locate(cid)

    def release(self, cids: Iterable[bytes]) -> None:
        """Forget where blocks lie that this process put: the index has forgotten them. Their bytes stay."""
        with self._state:
            for cid in cids:
                self._recent.pop(cid, None)

    def require_room(self, size: int) -> None:
        """Make sure, as far as can be told, that so many bytes can be put. Raises StorageFull, StorageFault."""
        try:
            self._leave(size)
        except OSError as error:
            raise self._error(error) from error

    def renew(self) -> None:
        """Begin anew after a failure, with a new pack at the next put.

        Call it only when no caller of an earlier `put` still waits to `sync`: its blocks are lost.
        """
        with self._append, self._state:
            if self._failure is None:
                return
            self._durable = self._written
            self._failure = None

    def release_removed(self) -> None:
        """Close what this process still reads of packs whose file was removed, so that the disk gets their room."""
        with self._state:
            for pack in [pack for pack, reader in self._readers.items() if not os.fstat(reader.fd).st_nlink]:
                del self._readers[pack]

    @property
    def refuses(self) -> bool:
        """Whether an I/O error has ended writing: what was put is in doubt, and only a fresh start writes again."""
        with self._state:
            return self._failure is not None

    def close(self) -> None:
        """Sync and release what is held open; errors as `sync`, after the release."""
        try:
            self.sync()
        finally:
            with self._append, self._state:
                for pack in (*self._full, *([self._pack] if self._pack else [])):
                    pack.release()
                self._pack, self._full = None, []
                self._recent.clear()
                self._readers.clear()

    def _read(self, pack: int, offset: int, length: int, where: Callable[[], str]) -> bytes:
        try:
            reader = self._reader(pack)  # this reference keeps the descriptor open
            return pread_full(reader.fd, length, offset)
        except FileNotFoundError:
            raise ContentMissing(f"{where()}: the pack is gone") from None
        except OSError as error:
            raise ContentCorrupt(f"{where()}: {os.strerror(error.errno or 0)}") from error

    def _lead_sync(self) -> None:
        with self._state:
            upto = self._written
            current, full = self._pack, list(self._full)
        try:
            for pack in (*full, *([current] if current else [])):
                pack.sync()
        except OSError as error:
            with self._append:
                self._poison(error)
            return
        with self._state:
            if self._failure is not None:
                return  # a write failed meanwhile: what fdatasync said no longer covers what was put
            self._durable = upto
            self._full = [pack for pack in self._full if pack not in full]
        for pack in full:
            pack.release()

    def _writable(self) -> OpenPack:
        pack = self._pack
        if pack is not None and pack.end >= self._pack_bytes:
            with self._state:
                self._full.append(pack)
                self._pack = pack = None
        elif pack is not None and pack.is_lost():  # its blocks are fsck's to report; nothing that waits is in it
            with self._state:
                self._pack = None
            pack.release()
            pack = None
        if pack is None:
            if self._committed_end is not None:
                pack = claim_pack(self._directory, self._pack_bytes, self._committed_end)
                self._committed_end = None  # once: what this process fills later is its own
            pack = pack or create_pack(self._directory, self._last_pack())
            with self._state:
                self._pack = pack
        return pack

    def _leave_reserve(self, size: int, part: int) -> None:
        if self._reserve:
            self._leave(size, part)

    def _leave(self, size: int, part: int = 1) -> None:
        """Raise OSError when so many bytes do not fit beside the reserve, or the `part`-th part of it."""
        try:
            disk = os.statvfs(self._directory)
        except FileNotFoundError:
            self._directory.mkdir(parents=True, exist_ok=True)
            disk = os.statvfs(self._directory)
        if disk.f_bavail * disk.f_frsize < size + room.kept_free(disk, self._reserve) // part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _refused(self, pack: OpenPack, error: OSError) -> CairnError:
        """The error of a failed append; anything but a full disk, or a tail that cannot be cut, poisons the store."""
        if error.errno not in _FULL:
            return self._poison(error)
        try:
            pack.cut_back()
        except OSError as worse:
            return self._poison(worse)
        return self._error(error)

    def _error(self, error: OSError) -> CairnError:
        if error.errno in _FULL:
            return StorageFull("the disk is full")
        return StorageFault(f"{self.owner}: writing packs failed: {os.strerror(error.errno or 0)}")

    def _poison(self, error: OSError) -> CairnError:
        """Give up what is not durable. Called with _append held."""
        with self._state:
            self._failure = failure = self._error(error)
            self._epoch += 1
            lost = [*self._full, *([self._pack] if self._pack else [])]
            self._pack, self._full = None, []
            durable = {pack.number: pack.durable for pack in lost}
            for cid in [c for c, p in self._recent.items() if p.offset >= durable.get(p.pack, p.offset + 1)]:
                del self._recent[cid]
            self._state.notify_all()
        for pack in lost:
            with contextlib.suppress(OSError):  # best effort: recovery and scan cope with what stays
                pack.give_up()
            pack.release()
        return failure

    def _raise_failure(self) -> None:
        with self._state:
            if self._failure is not None:
                raise self._failure_again()

    def _failure_again(self) -> CairnError:
        failure = self._failure
        if failure is None:
            return StorageFault(f"{self.owner}: blocks put before were lost in a failed write")
        return type(failure)(failure.detail)

    def _reader(self, pack: int) -> _Reader:
        with self._state:
            reader = self._readers.get(pack)
            if reader is not None:
                self._readers.move_to_end(pack)
                return reader
        reader = _Reader(pack_path(self._directory, pack))
        with self._state:
            self._readers[pack] = reader
            while len(self._readers) > _READERS:
                self._readers.popitem(last=False)
        return reader


def _where(position: BlockPosition) -> str:
    return f"block {cids.to_text(position.cid)} in pack {position.pack} at byte {position.offset}"


class _Reader:
    """A descriptor for reading, closed with the last reference, so that no pread meets a closed or reused one."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
