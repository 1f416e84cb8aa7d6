"""Recovery of packs after a crash: it never destroys (DESIGN section 3).

Only a pack whose lock is free is touched, and nothing is cut but one incomplete section at its end, and only beyond
the highest position committed in the index. Complete sections that nothing refers to stay, as countable garbage;
damage elsewhere is left for `cairn fsck` to report.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bridge.content.pack_format import HEADER, MAX_SECTION, find_section, pack_number, packs_in, pread_full, section_at
from bridge.errors import StorageFault

__all__ = ["PackRecovery", "recover", "recover_pack"]


class PackRecovery(NamedTuple):
    """What was found and done at the end of one pack.

    `size` is the file's length in bytes now, `cut` how many bytes of an incomplete section were removed, `garbage` how
    many complete sections lie beyond the committed end, and `garbage_bytes` their length; `clean` says that the pack
    may be appended to: every byte beyond the committed end belongs to an intact section.
    """

    pack: int
    size: int
    cut: int
    garbage: int
    garbage_bytes: int
    clean: bool


def recover(directory: Path, committed_end: Callable[[int], int]) -> list[PackRecovery]:
    """Recover every pack of `directory` that no process holds; those held are left out of the answer.

    Parameters
    ----------
    committed_end
        For a pack number, the offset behind the last byte that the index refers to; 0 when it refers to none.

    One that cannot be opened is left out too. Raises StorageFault when a pack cannot be read or cut.
    """
    found: list[PackRecovery] = []
    for path in packs_in(directory):
        pack = pack_number(path)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # trimmed meanwhile, or not to be read: that is fsck's to report, and must not stop the node
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(recover_pack(fd, pack, committed_end(pack)))
            except BlockingIOError:
                continue
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageFault(f"pack {pack}: {os.strerror(error.errno or 0)}") from error
    return found


def recover_pack(fd: int, pack: int, committed: int) -> PackRecovery:
    """Recover one pack that the caller has locked; `committed` is its committed end. Raises OSError."""
    size = os.fstat(fd).st_size
    if size < len(HEADER):
        return _begin_again(fd, pack, size, committed)
    at = max(committed, len(HEADER))
    sound = size >= committed and pread_full(fd, len(HEADER), 0) == HEADER
    start, count = at, 0
    while at < size:
        section, intact = section_at(fd, at, size)
        if section is None or not intact:
            break
        at, count = section.end, count + 1
    cut = 0
    if at < size and _is_torn(fd, at, size):
        os.ftruncate(fd, at)
        os.fdatasync(fd)
        cut = size - at
    return PackRecovery(pack, size - cut, cut, count, max(at - start, 0), sound and at >= size - cut)


def _begin_again(fd: int, pack: int, size: int, committed: int) -> PackRecovery:
    """A pack that ended within its header never held a block; it is completed, unless the index says otherwise."""
    if committed or not HEADER.startswith(pread_full(fd, size, 0)):
        return PackRecovery(pack, size, 0, 0, 0, clean=False)
    os.pwrite(fd, HEADER, 0)
    os.fdatasync(fd)
    return PackRecovery(pack, len(HEADER), 0, 0, 0, clean=True)


def _is_torn(fd: int, at: int, size: int) -> bool:
    """Whether what lies from `at` to the end is one section that a write did not complete, and nothing else.

    More than a section's length, a section that is complete but damaged, or an intact one further on, means damage.
    """
    if size - at > MAX_SECTION or section_at(fd, at, size)[0] is not None:
        return False
    return find_section(fd, at + 1, size) is None
