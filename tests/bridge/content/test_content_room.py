"""What is told of the disks that packs and databases lie on."""

import os
from pathlib import Path

from bridge.content.car import MAX_BLOCK
from bridge.content.room import is_short, kept_free, short_of_room

MIB = 1 << 20


def disk(size: int, free: int) -> os.statvfs_result:
    """A file system of 4 KiB blocks, in bytes."""
    block = 4096
    return os.statvfs_result((block, block, size // block, free // block, free // block, 0, 0, 0, 0, 255))


def test_a_small_disk_keeps_a_twentieth_free_and_a_large_one_the_reserve() -> None:
    assert kept_free(disk(40 * MIB, 0), 64 * MIB) == 2 * MIB
    assert kept_free(disk(40 << 30, 0), 64 * MIB) == 64 * MIB


def test_a_disk_is_short_when_a_block_no_longer_fits_beside_the_reserve() -> None:
    size, reserve = 40 << 30, 64 * MIB
    assert not is_short(disk(size, reserve + MAX_BLOCK), reserve)
    assert is_short(disk(size, reserve + MAX_BLOCK - 4096), reserve)
    assert is_short(disk(size, 0), 0)


def test_places_on_a_disk_with_room_and_places_that_are_not_there_are_no_finding(tmp_path: Path) -> None:
    assert short_of_room({"here": tmp_path, "gone": tmp_path / "gone"}, 0) == []
