"""A full disk: refused as such (A700, 507), nothing acknowledged lost; the node goes on when there is room again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.instances import PYDICOM, Sent, all_there, sendable, stow
from tests.node.kubo_archive import until
from tests.node.running_node import RunningNode

DISK_BYTES = 24 << 20
FULL = 0xA700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB; mounting one needs root, which continuous integration is."""
    assert os.geteuid() == 0, "this test mounts a small tmpfs: run it as root"
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_answered_as_such_and_loses_nothing(small_disk: Path) -> None:
    node = RunningNode(small_disk / "home", CAIRN_CONTENT__RESERVE_BYTES=str(1 << 20))
    node.log = small_disk.parent / "node.log"
    large = [sent for sent in sendable([PYDICOM]) if sent.file.stat().st_size > 100_000]
    done: list[Sent] = []
    statuses: list[int] = []
    try:
        node.start()
        ballast = small_disk / "ballast"
        with node.http("admin") as client:
            for sent in large[:3]:
                assert stow(client, [sent.file.read_bytes()]).status_code == 200
                done.append(sent)
            room = os.statvfs(small_disk)
            ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - 600_000))
            for sent in large[3:]:
                response = stow(client, [sent.file.read_bytes()])
                statuses.append(response.status_code)
                if response.status_code == 200:
                    done.append(sent)
            assert 507 in statuses, statuses
            assert set(statuses) <= {200, 507}, statuses
            said = node.storescu(large[-1].file).stdout
            assert "Refused: OutOfResources" in said or "a700" in said.lower(), said
            node.kill()
            node.start()  # with batches open that cannot be closed now
            all_there(client, done)
            told = client.get("/readyz")
            assert (told.status_code, told.json()["status"]) == (200, "degraded"), told.text
            assert "the disk of CAIRN_HOME, packs, keys, ledger is full" in told.text
            assert "is full" in client.get("/console/storage").text
            room = os.statvfs(small_disk)
            with ballast.open("ab") as more:
                more.write(bytes(room.f_bavail * room.f_frsize))
            assert "is full: 0.0 MiB are free" in client.get("/readyz").text
            ballast.unlink()
            until(lambda: client.get("/readyz").json() == {"status": "ready"})
            all_there(client, done)
            for sent in large:
                assert stow(client, [sent.file.read_bytes()]).status_code == 200
            all_there(client, large)
        assert node.answer("fsck")["findings"] == []
        assert node.answer("ledger", "verify")["findings"] == []
        assert node.stop() == 0, node.printed()
    finally:
        node.kill()
