"""Removing a pack of the spool, once its blocks are safe elsewhere; what is safe is for the caller to know.

A pack that a process writes to, or may go on with, is never removed: the lock on the file itself is held until its name
is gone, and `open_pack` looks for the name again once it has the lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from bridge.content.pack_format import pack_number, pack_path, packs_in, sync_directory
from bridge.errors import StorageFault

__all__ = ["remove_pack"]


def remove_pack(directory: Path, number: int, about_to: Callable[[], None] = lambda: None) -> bool:
    """Remove a pack's file durably; False when a process holds it, when it is the newest, or when it is gone already.

    `about_to` is called with the pack locked, before its name goes; what it raises leaves the pack as it is. The newest
    pack stays, for the number of the next one is told by it. Raises StorageFault when the disk fails.
    """
    path = pack_path(directory, number)
    packs = packs_in(directory)
    if not packs or pack_number(packs[-1]) <= number:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _fault(number, error) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        about_to()
        try:
            path.unlink()
            sync_directory(directory)
        except OSError as error:
            raise _fault(number, error) from error
    finally:
        os.close(fd)
    return True


def _fault(number: int, error: OSError) -> StorageFault:
    return StorageFault(f"pack {number} cannot be removed: {os.strerror(error.errno or 0)}")
