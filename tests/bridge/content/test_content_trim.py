"""Packs of the spool that are removed: never one that is written to, never the newest, and nobody goes on with one."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from bridge.content import cid as cids
from bridge.content.open_pack import claim_pack, create_pack
from bridge.content.pack_format import packs_in
from bridge.content.packs import PackStore
from bridge.content.recovery import recover
from bridge.content.trim import remove_pack
from bridge.errors import ContentMissing
from bridge.model import Block


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Three packs that nobody writes to: 0, 1 and 2."""
    for _ in range(3):
        create_pack(tmp_path).release()
    return tmp_path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_pack_that_nobody_holds_is_removed(packs: Path) -> None:
    assert remove_pack(packs, 1)
    assert [path.name for path in packs_in(packs)] == ["00000000.car", "00000002.car"]
    assert not remove_pack(packs, 1)


def test_the_newest_pack_stays_so_that_no_number_is_given_twice(packs: Path) -> None:
    assert not remove_pack(packs, 2)
    for number in (0, 1):
        assert remove_pack(packs, number)
    new = create_pack(packs)
    new.release()
    assert new.number == 3


def test_a_pack_that_is_written_to_stays(packs: Path) -> None:
    with (packs / "00000000.car").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not remove_pack(packs, 0)
    assert (packs / "00000000.car").exists()


def test_a_pack_is_locked_while_the_last_look_is_taken_and_stays_when_that_fails(packs: Path) -> None:

    def look() -> None:
        with (packs / "00000001.car").open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise ContentMissing("not there")

    with pytest.raises(ContentMissing):
        remove_pack(packs, 1, look)
    assert (packs / "00000001.car").exists()


def test_nobody_goes_on_with_a_pack_that_was_removed_while_they_opened_it(
    packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is had only once the name is gone, as between a claim's open and its lock."""
    (packs / "00000002.car").unlink()
    lock = fcntl.flock

    def removed_first(fd: int, operation: int) -> None:
        (packs / "00000001.car").unlink(missing_ok=True)
        lock(fd, operation)

    monkeypatch.setattr("bridge.content.open_pack.fcntl.flock", removed_first)
    claimed = claim_pack(packs, 1 << 30, lambda pack: 0)
    assert claimed is not None
    assert claimed.number == 0
    claimed.release()


def test_recovery_passes_over_a_pack_that_is_removed_meanwhile(packs: Path) -> None:
    def committed_end(pack: int) -> int:
        (packs / "00000001.car").unlink(missing_ok=True)
        return 0

    assert [found.pack for found in recover(packs, committed_end)] == [0, 2]


def test_what_a_reader_held_of_a_removed_pack_is_let_go(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "web-0", lambda cid: None, pack_bytes=1)
    blocks = [Block(cids.make(cids.RAW, data), data) for data in (b"one", b"two")]
    for block in blocks:
        store.put([block])
        store.sync()
    assert [store.get(block.cid) for block in blocks] == [b"one", b"two"]
    descriptors = open_files()
    assert remove_pack(tmp_path / "packs", 0)
    assert store.get(blocks[0].cid) == b"one", "a reader that has it open still reads it"
    store.release_removed()
    assert open_files() == descriptors - 1
    with pytest.raises(ContentMissing):
        store.get(blocks[0].cid)
    assert store.get(blocks[1].cid) == b"two"
    store.close()
