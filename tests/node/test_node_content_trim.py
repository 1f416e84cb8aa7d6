"""The spool beside a real Kubo: the oldest packs go once Kubo was read back, and are served from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.content.pack_format import pack_number
from tests.bridge.services.conftest import instance, part10
from tests.kubo_daemon import KuboDaemon
from tests.node.instances import Sent, all_there, sendable, stow
from tests.node.kubo_archive import MIB, Archive, until
from tests.node.running_node import RunningNode

TRIMMED_AT = [f"trim_spool.{number}" for number in (1, 2, 3)]


@pytest.fixture
def spooling(fresh_node: RunningNode, fresh_kubo: KuboDaemon) -> Archive:
    """Packs of 1 MiB of which only the newest may stay; not started."""
    archive = Archive(fresh_node, fresh_kubo)
    fresh_node.settings |= {"CAIRN_CONTENT__PACK_BYTES": str(MIB), "CAIRN_CONTENT__SPOOL_BYTES": "0"}
    return archive


def store(archive: Archive) -> list[Sent]:
    """Send three studies of four instances of half a MiB, more than a few packs hold."""
    folder = archive.node.home.with_name("send")
    folder.mkdir()
    for number in range(12):
        study = f"1.2.826.0.1.3680043.10.511.77.{number % 3}"
        (folder / f"{number}.dcm").write_bytes(part10(instance(study=study, rows=512, fill=number)))
    instances = sendable([folder])
    with archive.node.http("clinician") as client:
        for sent in instances:
            assert stow(client, [sent.file.read_bytes()]).status_code == 200
    archive.sent += instances
    assert pack_number(packs(archive)[-1]) > 2
    return instances


def packs(archive: Archive) -> list[Path]:
    return sorted((archive.node.home / "packs").iterdir())


def trimmed(archive: Archive) -> int:
    return int(archive.node.answer("content", "status")["spool"]["trimmed"])


def test_what_was_trimmed_is_served_from_kubo_byte_for_byte(spooling: Archive) -> None:
    spooling.kubo.start()
    spooling.node.start()
    store(spooling)
    until(lambda: trimmed(spooling) and len(packs(spooling)) == 1, spooling.node.printed)
    assert trimmed(spooling) == pack_number(packs(spooling)[0])
    spooling.nothing_wrong()
    assert spooling.node.stop() == 0
    spooling.node.start()
    spooling.view()


def test_nothing_is_trimmed_beside_a_kubo_that_does_not_fsync(spooling: Archive) -> None:
    spooling.kubo.make_durable(False)
    spooling.kubo.start()
    spooling.node.start()
    store(spooling)
    spooling.degraded("does not fsync")
    until(lambda: spooling.numbers() == (0, 0))
    assert [pack_number(pack) for pack in packs(spooling)] == list(range(len(packs(spooling))))
    assert trimmed(spooling) == 0
    spooling.view()


def test_what_the_cache_has_is_viewed_while_kubo_is_down_and_the_rest_when_it_is_back(spooling: Archive) -> None:
    spooling.kubo.start()
    spooling.node.start()
    instances = store(spooling)
    until(lambda: trimmed(spooling) and len(packs(spooling)) == 1, spooling.node.printed)
    seen, unseen = instances[:3], instances[3:]
    with spooling.node.http("viewer") as client:
        all_there(client, seen)
        spooling.kubo.kill()
        all_there(client, seen)

        def statuses() -> set[int]:
            return {client.get(f"/dicom-web{sent.path}").status_code for sent in unseen}

        assert statuses() <= {200, 503}
        spooling.kubo.start()
        until(lambda: statuses() == {200})
        all_there(client, unseen)
    assert spooling.node.answer("fsck")["findings"] == []


@pytest.mark.parametrize("step", TRIMMED_AT)
def test_a_process_killed_while_it_trims_loses_nothing(spooling: Archive, step: str) -> None:
    spooling.kubo.start()
    spooling.node.start(CAIRN_CRASH_AT=step)
    store(spooling)
    spooling.node.wait_printed('"worker": "content-0", "status": 9')
    spooling.node.kill()
    spooling.node.start()
    until(lambda: len(packs(spooling)) == 1, spooling.node.printed)
    spooling.nothing_wrong()


def test_what_is_damaged_in_the_only_copy_here_is_fetched_from_a_peer_of_kubo(
    fresh_node: RunningNode, kubo_pair: tuple[KuboDaemon, KuboDaemon]
) -> None:
    first, second = kubo_pair
    archive = Archive(fresh_node, first)
    fresh_node.settings |= {"CAIRN_CONTENT__PACK_BYTES": str(MIB), "CAIRN_CONTENT__SPOOL_BYTES": "0"}
    fresh_node.start()
    store(archive)
    until(lambda: trimmed(archive) and len(packs(archive)) == 1, fresh_node.printed)
    for root in archive.roots():
        second.call("pin/add", root)
    damaged, removed = [first.block_file(cid) for cid in archive.leaves()[:2]]
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    removed.unlink()
    assert archive.node.answer("content", "repair")["mended"] == 2
    archive.nothing_wrong()
