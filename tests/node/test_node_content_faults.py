"""What goes wrong with a Kubo under a running node: ingest and viewing go on, /readyz says what is wrong, nothing is
lost, and it is mended without anybody's help."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bridge.content import cid as cids
from tests.kubo_daemon import KuboDaemon
from tests.kubo_proxy import KuboProxy
from tests.node.instances import Sent, sendable
from tests.node.kubo_archive import MIB, OTHERS, SERIES, Archive, until
from tests.node.running_node import RunningNode


@pytest.fixture
def archive(fresh_node: RunningNode, fresh_kubo: KuboDaemon) -> Archive:
    """Both running, one series stored and in Kubo."""
    archive = Archive(fresh_node, fresh_kubo)
    fresh_kubo.start()
    fresh_node.start()
    archive.store(sendable([SERIES]))
    archive.settled()
    return archive


@pytest.fixture
def more() -> list[Sent]:
    """Instances of other studies."""
    return sendable([OTHERS])


def test_a_kubo_that_is_down_gets_everything_when_it_is_back(archive: Archive, more: list[Sent]) -> None:
    archive.kubo.kill()
    archive.degraded("Kubo cannot be reached")
    archive.store(more)
    archive.view()
    status = archive.node.answer("content", "status")
    assert status["answers"] and status["faults"][0]["name"] == "engine"
    assert "Kubo" in archive.node.cairn("content", "repair", code=1).stderr
    archive.kubo.start()
    archive.nothing_wrong()


def test_a_node_starts_and_stores_and_stops_while_kubo_is_down(archive: Archive, more: list[Sent]) -> None:
    archive.kubo.kill()
    assert archive.node.stop() == 0
    archive.node.start()
    archive.store(more)
    archive.view()
    assert archive.node.stop() == 0
    archive.kubo.start()
    archive.node.start()
    archive.nothing_wrong()


def test_a_kubo_that_is_paused_gets_everything_when_it_goes_on(archive: Archive, more: list[Sent]) -> None:
    with archive.kubo.paused():
        archive.store(more)
        archive.degraded("Kubo does not answer")
        archive.view()
    archive.nothing_wrong()


def test_a_node_stops_while_kubo_is_paused(archive: Archive, more: list[Sent]) -> None:
    with archive.kubo.paused():
        archive.store(more)
        archive.degraded("Kubo does not answer")
        assert archive.node.stop() == 0, archive.node.printed()
    archive.node.start()
    archive.nothing_wrong()


@pytest.fixture
def by_proxy(fresh_node: RunningNode, fresh_kubo: KuboDaemon) -> Iterator[tuple[Archive, KuboProxy]]:
    """As `archive`, with a proxy between them."""
    fresh_kubo.start()
    with KuboProxy(fresh_kubo) as proxy:
        archive = Archive(fresh_node, fresh_kubo, proxy.url)
        fresh_node.start()
        archive.store(sendable([SERIES]))
        archive.settled()
        yield archive, proxy
        if fresh_node.runs:
            assert fresh_node.stop() == 0, fresh_node.printed()


def test_a_kubo_that_says_who_it_is_and_reads_nothing_is_a_fault(
    by_proxy: tuple[Archive, KuboProxy], more: list[Sent]
) -> None:
    archive, proxy = by_proxy
    proxy.hang("block/get", "block/put", "dag/import", "dag/stat")
    assert httpx.post(f"{proxy.url}/api/v0/id", timeout=5.0).status_code == 200
    archive.degraded("Kubo does not answer in time")
    archive.store(more)
    archive.view()
    proxy.release()
    archive.nothing_wrong()


def test_a_kubo_that_is_slow_gets_everything_and_nobody_waits_for_it(
    by_proxy: tuple[Archive, KuboProxy], more: list[Sent]
) -> None:
    archive, proxy = by_proxy
    proxy.delay_s = 1.0
    archive.store(more)
    archive.view()
    assert archive.numbers()[0] + archive.numbers()[1] > 0, "the engine is behind, and everything is there all the same"
    proxy.delay_s = 0.0
    archive.nothing_wrong()


def test_pins_that_are_gone_are_brought_again(archive: Archive) -> None:
    for root in archive.kubo.pins():
        archive.kubo.call("pin/rm", root)
    assert archive.kubo.pins() == set()
    until(lambda: archive.kubo.pins() == archive.roots())
    archive.nothing_wrong()
    assert "has lost pins" in archive.node.printed()


def test_blocks_that_were_collected_as_garbage_are_brought_again(archive: Archive, more: list[Sent]) -> None:
    archive.store(more)
    archive.settled()
    for root in archive.kubo.pins():
        archive.kubo.call("pin/rm", root)
    assert archive.kubo.post("repo/gc").status_code == 200
    assert not archive.kubo.holds(cids.to_text(archive.leaves()[0]))
    archive.view()
    until(lambda: archive.kubo.pins() == archive.roots())
    archive.nothing_wrong()


def test_blocks_that_were_damaged_or_removed_below_their_pins_are_mended(archive: Archive) -> None:
    damaged, emptied, removed = [archive.kubo.block_file(cid) for cid in archive.leaves()[:3]]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    for file, content in ((damaged, bytes(data)), (emptied, b"")):
        file.chmod(0o644)
        file.write_bytes(content)
    removed.unlink()
    archive.view()
    said = archive.node.cairn("content", "repair")
    assert "mended" in said.stderr and "reading back 1 of" in said.stderr
    assert "blocks mended 3" in said.stdout
    archive.nothing_wrong()
    assert archive.node.answer("content", "repair")["mended"] == 0


def test_packs_that_somebody_removed_are_made_again_while_the_node_runs(archive: Archive, more: list[Sent]) -> None:
    for _ in range(2):  # the second time those are gone that the process of the command writes
        for pack in (archive.node.home / "packs").iterdir():
            pack.unlink()
        archive.view()
        assert archive.node.answer("fsck", "--content")["findings"] == []
    archive.store(more)
    archive.nothing_wrong()


def test_a_block_that_is_damaged_everywhere_is_told_and_the_others_are_served(
    archive: Archive, more: list[Sent]
) -> None:
    archive.store(more)
    archive.settled()
    lost = archive.leaves()[0]
    archive.kubo.block_file(lost).unlink()
    (pack,) = {path for path in (archive.node.home / "packs").iterdir() if lost in path.read_bytes()}
    content = pack.read_bytes()
    at = content.index(lost) + len(lost) + 1
    with pack.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    result = archive.node.answer("content", "repair", code=3)
    assert len(result["lost"]) == 1 and cids.to_text(lost) in result["lost"][0]["what"]
    archive.degraded("1 study is not whole")
    with pack.open("r+b") as file:
        file.seek(at)
        file.write(content[at : at + 1])
    archive.nothing_wrong()


def test_a_kubo_whose_disk_is_full_gets_everything_when_there_is_room(
    fresh_node: RunningNode, tmp_path: Path, more: list[Sent]
) -> None:
    assert os.geteuid() == 0, "this test mounts a small tmpfs: run it as root"
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={32 * MIB}", "tmpfs", disk], check=True)
    kubo = KuboDaemon(disk / "kubo")
    try:
        kubo.start()
        archive = Archive(fresh_node, kubo)
        fresh_node.start()
        archive.store(more[:1])
        archive.settled()
        room = os.statvfs(disk)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - 20_000))
        archive.store(sendable([SERIES]))
        archive.degraded("Kubo's disk is full")
        archive.store(more[1:])
        archive.view()
        ballast.unlink()
        archive.nothing_wrong()
        assert fresh_node.stop() == 0, fresh_node.printed()
    finally:
        fresh_node.kill()
        kubo.kill()
        subprocess.run(["umount", "--lazy", disk], check=True)


STEPS = [f"keep_content.{number}" for number in range(1, 6)]


@pytest.mark.parametrize("step", STEPS)
def test_a_content_process_killed_at_a_step_goes_on_where_it_was(
    fresh_node: RunningNode, fresh_kubo: KuboDaemon, more: list[Sent], step: str
) -> None:
    archive = Archive(fresh_node, fresh_kubo)
    fresh_kubo.start()
    first, second = archive_halves()
    fresh_node.start()
    archive.store(first)
    archive.settled()
    assert fresh_node.stop() == 0
    fresh_node.start(CAIRN_CRASH_AT=step)
    archive.store(second)
    fresh_node.wait_printed('"worker": "content-0", "status": 9')
    archive.store(more)
    archive.view()
    fresh_node.kill()
    fresh_node.start()
    archive.nothing_wrong()


def archive_halves() -> tuple[list[Sent], list[Sent]]:
    """The instances of one study, in two parts."""
    instances = sendable([SERIES])
    assert len({sent.study for sent in instances}) == 1
    return instances[:2], instances[2:]
