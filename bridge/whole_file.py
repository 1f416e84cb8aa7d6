"""A file that takes its place whole or not at all, and of which nothing stays when the process writing it is killed.

Linux gives it no name until it is whole (open(2), O_TMPFILE). Where the file system does not know that, it is written
beside its place under a hidden name, which a killed process leaves behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from bridge.content.pack_format import sync_directory

__all__ = ["WholeFile"]

_AT_ONCE: Final = 1 << 20
_UNKNOWN: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_DESCRIPTORS: Final = Path("/proc/self/fd")


class WholeFile:
    """What is to lie at `path`, mode 0600, and does not yet; leaving its context without `place` discards it.

    Every method raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside: Path | None = None  # the name that it has meanwhile
        fd = _unnamed(path.parent)
        if fd is None:
            self._beside = self._other_name()
            fd = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb", _AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # what was not written for want of room is written at closing, too
            self._file.close()
        if self._beside is not None:
            self._beside.unlink(missing_ok=True)

    def write(self, pieces: Iterable[bytes]) -> int:
        """Write all of it, durably; its size in bytes. Raises what the pieces do, too."""
        size = sum(self._file.write(piece) for piece in pieces)
        self._file.flush()
        os.fsync(self._file.fileno())
        return size

    def place(self) -> None:
        """Put it where it belongs, durably, in the place of what lies there."""
        if self._beside is None:
            beside = self._other_name()
            fd = self._file.fileno()
            # linkat(2) follows the link to the file itself; os.link calls it only when a directory is given.
            os.link(_DESCRIPTORS / str(fd), beside, src_dir_fd=fd, follow_symlinks=True)
            self._beside = beside
        self._beside.replace(self._path)
        self._beside = None
        sync_directory(self._path.parent)

    def _other_name(self) -> Path:
        return self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.part")


def _unnamed(directory: Path) -> int | None:
    """A new file without a name; None where there can be none, or it could not be given one later."""
    if not hasattr(os, "O_TMPFILE") or not _DESCRIPTORS.is_dir():
        return None
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
