"""Blocks read from elsewhere, kept on the node's disk: a cache that may be deleted at any time.

Each block is a file of its own, verified whenever it is read, so that nothing needs to be durable and several processes
may share the directory. Nothing here raises: what cannot be cached is read from elsewhere again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Final

from bridge.content import cid as cids
from bridge.content.room import kept_free

__all__ = ["DiskCache"]

_LOOK_AGAIN: Final = 16  # the directory is counted anew when a sixteenth of the limit was written by this process
_LEFT: Final = 0.9
_FRESH_S: Final = 60.0


class DiskCache:
    """Blocks below a directory, at most about `limit` bytes; those used longest ago go first. Thread-safe.

    Parameters
    ----------
    directory
        Where they lie; made at the first `put`.
    limit
        Bytes; 0: nothing is kept.
    reserve
        Free space in bytes that is left on the disk, at most a twentieth of it.
    """

    def __init__(self, directory: Path, limit: int, reserve: int = 0) -> None:
        self._directory = directory
        self._limit = limit
        self._reserve = reserve
        self._lock = threading.Lock()
        self._unseen: int | None = None  # bytes written since the directory was counted; None: never counted

    def get(self, cid: bytes) -> bytes | None:
        """The block, verified, or None. A damaged one is removed."""
        path = self._path(cid)
        try:
            data = path.read_bytes()
            if not cids.verify(cid, data):
                path.unlink()
                return None
            if time.time() - path.stat().st_mtime > _FRESH_S:
                os.utime(path)
        except OSError:
            return None
        return data

    def has(self, cid: bytes) -> bool:
        """Whether a file is there for the block; not read."""
        return self._path(cid).exists()

    def put(self, cid: bytes, data: bytes) -> None:
        """Keep a verified block, if it fits."""
        if len(data) > self._limit:
            return
        path = self._path(cid)
        part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk = os.statvfs(path.parent)
            if disk.f_bavail * disk.f_frsize < kept_free(disk, self._reserve) + len(data):
                return
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            return
        self._make_room(len(data))

    def drop(self, cid: bytes) -> None:
        """Forget a block."""
        with contextlib.suppress(OSError):
            self._path(cid).unlink()

    def _path(self, cid: bytes) -> Path:
        name = cids.to_text(cid)
        return self._directory / name[-3:-1] / name

    def _make_room(self, written: int) -> None:
        with self._lock:
            if self._unseen is not None:
                self._unseen += written
                if self._unseen < self._limit // _LOOK_AGAIN:
                    return
            self._unseen = 0
            files = sorted(self._files())
            size = sum(length for _, length, _ in files)
            if size <= self._limit:
                return
            for _, length, path in files:
                if size <= self._limit * _LEFT:
                    break
                with contextlib.suppress(OSError):
                    Path(path).unlink()
                size -= length

    def _files(self) -> list[tuple[float, int, str]]:
        """(time of last use, length, path) of every file, unfinished ones of a crash too."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._directory) as shards:
            for shard in shards:
                with contextlib.suppress(OSError), os.scandir(shard) as entries:
                    for entry in entries:
                        status = entry.stat()
                        found.append((status.st_mtime, status.st_size, entry.path))
        return found
