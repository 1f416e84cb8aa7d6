"""How much room the disks have, and what of it is kept for the databases: one rule for who puts and for who tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.content import car

__all__ = ["is_short", "kept_free", "short_of_room"]

_AT_MOST: Final = 20  # a twentieth of the disk: a small one is not refused whole
_MIB: Final = 1 << 20


def kept_free(disk: os.statvfs_result, reserve: int) -> int:
    """Bytes of a disk that blocks leave free: `reserve`, but at most a twentieth of it."""
    return min(reserve, disk.f_blocks * disk.f_frsize // _AT_MOST)


def is_short(disk: os.statvfs_result, reserve: int) -> bool:
    """Whether a block of the largest size no longer fits beside what is kept free."""
    return disk.f_bavail * disk.f_frsize < kept_free(disk, reserve) + car.MAX_BLOCK


def short_of_room(places: Mapping[str, Path], reserve: int) -> list[str]:
    """What is to be told of the disks on which these places (name -> directory) lie: each disk once.

    A place that is not there, or whose disk cannot be asked, is left out: who uses it says what is wrong.
    """
    disks: dict[int, tuple[os.statvfs_result, list[str]]] = {}
    for name, place in places.items():
        try:
            device, disk = place.stat().st_dev, os.statvfs(place)
        except OSError:
            continue
        disks.setdefault(device, (disk, []))[1].append(name)
    return [_told(disk, names, reserve) for disk, names in disks.values() if is_short(disk, reserve)]


def _told(disk: os.statvfs_result, names: list[str], reserve: int) -> str:
    free, kept = disk.f_bavail * disk.f_frsize / _MIB, kept_free(disk, reserve) / _MIB
    return (
        f"the disk of {', '.join(names)} is full: {free:,.1f} MiB are free, and {kept:,.1f} MiB are kept for the"
        " databases (content.reserve_bytes); what does not fit is refused until there is room"
    )
