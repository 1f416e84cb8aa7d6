"""How glibc's malloc keeps what an image frees, for the next one.

By default buffers of an image's size go back to the kernel when they are freed, so that each image's every page is
faulted in and zeroed again: a fifth of the CPU time of storing a CT slice of 0.5 MB.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # mallopt(3)
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
KEPT: Final = 16 << 20
"""Bytes of free memory that each of the arenas keeps at most."""
LARGEST: Final = 4 << 20
"""Buffers up to this many bytes are taken from arenas; larger ones are mapped and unmapped as ever."""
ARENAS: Final = 4
"""More would each keep memory of their own, while Python's threads seldom allocate at the same time."""


def keep_freed_memory() -> None:
    """Set malloc up for this process and those it forks; without glibc nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for name, value in ((_M_MMAP_THRESHOLD, LARGEST), (_M_TRIM_THRESHOLD, KEPT), (_M_ARENA_MAX, ARENAS)):
            mallopt(name, value)
