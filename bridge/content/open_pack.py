"""A pack that this process writes: claimed by flock on the file itself, appended to, synced, cut back."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bridge.content.pack_format import HEADER, pack_number, pack_path, packs_in, sync_directory
from bridge.content.recovery import recover_pack

__all__ = ["OpenPack", "claim_pack", "create_pack"]

_IOV_MAX: Final = os.sysconf("SC_IOV_MAX")


class OpenPack:
    """One locked pack. `end` is the offset behind its last whole put, `durable` that behind its last sync, in bytes.

    One thread at a time may append or cut back; `sync` may run beside it, and `give_up` and `release` wait for it.
    """

    def __init__(self, fd: int, number: int, end: int) -> None:
        self.number = number
        self.end = end
        self.durable = end
        self._fd = fd
        self._in_sync = threading.Lock()

    def append(self, pieces: Sequence[bytes | bytearray]) -> int:
        """Write pieces at the end, with one pwritev when the kernel takes them all; the offset of the first.

        Raises OSError with `end` unchanged; bytes may then lie behind it.
        """
        start = at = self.end
        first = 0
        while first < len(pieces):
            batch = pieces[first : first + _IOV_MAX]
            at += self._write_all(batch, at)
            first += len(batch)
        self.end = at
        # Linux starts to write on this advice, so that the disk works while the rest of the recipe runs and fdatasync
        # waits less. Nothing is dropped from memory, for pages that are being written stay.
        os.posix_fadvise(self._fd, start, at - start, os.POSIX_FADV_DONTNEED)
        return start

    def _write_all(self, pieces: Sequence[bytes | bytearray], offset: int) -> int:
        left = [memoryview(piece) for piece in pieces if piece]
        total = sum(map(len, left))
        written = 0
        while left:
            count = os.pwritev(self._fd, left, offset + written)
            written += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if left:
                left[0] = left[0][count:]
        return total

    def sync(self) -> None:
        """fdatasync what `append` completed before this call (the length too: fdatasync(2)).

        Raises OSError, also when somebody removed the file or cut it short: what was written would go with it.
        """
        with self._in_sync:
            end = self.end
            os.fdatasync(self._fd)
            if self._is_cut(end):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            self.durable = end

    def is_lost(self) -> bool:
        """Whether somebody removed the file or cut it short, and everything in it had been durable until then."""
        return self.end == self.durable and self._is_cut(self.end)

    def _is_cut(self, end: int) -> bool:
        file = os.fstat(self._fd)
        return not file.st_nlink or file.st_size < end

    def cut_back(self) -> None:
        """Remove what a failed `append` left. Raises OSError."""
        os.ftruncate(self._fd, self.end)

    def give_up(self) -> None:
        """Remove everything that is not durable: it was acknowledged to nobody. Raises OSError."""
        with self._in_sync:
            if os.fstat(self._fd).st_size > self.durable:  # somebody may have cut it shorter
                os.ftruncate(self._fd, self.durable)

    def release(self) -> None:
        """Close the file, and with it give up the lock."""
        with self._in_sync:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def create_pack(directory: Path, after: int = -1) -> OpenPack:
    """Begin the pack after the highest there and after `after`: header and directory entry durable, the lock held.

    A number is never given again, though its file be gone: the index names blocks by it. Raises OSError.
    """
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)
    packs = packs_in(directory)
    number = max(pack_number(packs[-1]) if packs else -1, after) + 1
    while True:
        try:
            fd = os.open(pack_path(directory, number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            break
        except FileExistsError:
            number += 1
    try:
        # recovery in another process may hold the new file for a moment, and completes an empty one by the same header
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.pwrite(fd, HEADER, 0)
        os.fsync(fd)
        sync_directory(directory)
    except OSError:
        pack_path(directory, number).unlink()
        os.close(fd)
        raise
    return OpenPack(fd, number, len(HEADER))


def claim_pack(directory: Path, pack_bytes: int, committed_end: Callable[[int], int]) -> OpenPack | None:
    """The newest unfinished pack that no process holds and that recovery finds clean, locked; None if there is none."""
    for path in reversed(packs_in(directory)):
        pack = _claim(path, pack_bytes, committed_end)
        if pack is not None:
            return pack
    return None


def _claim(path: Path, pack_bytes: int, committed_end: Callable[[int], int]) -> OpenPack | None:
    number = pack_number(path)
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(fd).st_size < pack_bytes:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(fd).st_nlink:
                return None  # trimmed while it was being opened: what is written to it now would be lost
            found = recover_pack(fd, number, committed_end(number))
            if found.clean and found.size < pack_bytes:
                os.fdatasync(fd)
                pack, fd = OpenPack(fd, number, found.size), -1
                return pack
    except OSError:
        return None  # held by another process, or unreadable, which is fsck's to report: it must not stop an ingest
    finally:
        if fd >= 0:
            os.close(fd)
    return None
