"""An archive whose packs went to the node's own Kubo: backed up, indexed anew, brought elsewhere; its roots stay."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.bridge.services.conftest import instance, part10
from tests.node.instances import Sent, all_there, sendable
from tests.node.kubo_archive import managed_kubo
from tests.node.running_node import RunningNode

TRIMMED_S = 120.0
Trees = list[tuple[object, ...]]


@pytest.fixture
def archive(fresh_node: RunningNode) -> RunningNode:
    """A node with a Kubo of its own and next to no spool."""
    fresh_node.settings |= managed_kubo() | {
        "CAIRN_CONTENT__PACK_BYTES": str(1 << 20),
        "CAIRN_CONTENT__SPOOL_BYTES": "1",
        "CAIRN_CONTENT__CACHE_BYTES": "0",
    }
    return fresh_node


def rows(home: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{home / 'index.db'}?mode=ro", uri=True)) as index:
        return index.execute(query).fetchall()


def trees(node: RunningNode) -> Trees:
    return rows(
        node.home, "SELECT uid, origin, tree.tag, root, covered FROM tree JOIN study ON study = study.id ORDER BY 1"
    )


def packs(node: RunningNode) -> int:
    return len(list((node.home / "packs").glob("*.car")))


def wait_trimmed(node: RunningNode) -> None:
    """Until nothing is left to be brought to Kubo and the newest pack is the only one."""
    until = time.monotonic() + TRIMMED_S
    while packs(node) > 1:
        assert time.monotonic() < until, f"{node.answer('content', 'status')}\n{node.printed()}"
        time.sleep(0.1)


def wait_served(node: RunningNode) -> None:
    """Until the node's Kubo answers."""
    until = time.monotonic() + TRIMMED_S
    while node.answer("content", "status")["answers"]:
        assert time.monotonic() < until, node.printed()


def made(folder: Path) -> list[Sent]:
    """Three studies of five instances of 0.5 MB, as files."""
    folder.mkdir()
    for number in range(15):
        study = f"1.2.{number % 3}"
        made = instance(study=study, series=f"{study}.1", sop=f"{study}.1.{number}", rows=500, fill=number)
        (folder / f"{number}.dcm").write_bytes(part10(made))
    return sendable([folder])


def viewed(node: RunningNode, instances: list[Sent]) -> None:
    with node.http("viewer") as client:
        all_there(client, instances)


def test_what_kubo_alone_holds_is_backed_up_indexed_anew_and_restored(archive: RunningNode, tmp_path: Path) -> None:
    sent = made(tmp_path / "files")
    archive.start()
    archive.answer("import", str(tmp_path / "files"))
    wait_trimmed(archive)
    known = trees(archive)
    assert known and rows(archive.home, "SELECT count(*) FROM trimmed") > [(1,)]
    viewed(archive, sent)
    archive.answer("backup", str(tmp_path / "backup"))
    assert archive.stop() == 0
    assert archive.answer("fsck")["findings"] == []

    counted = archive.answer("rebuild-index")
    assert (counted["instances"], counted["studies"], counted["not_opened"]) == (len(sent), len(known), 0)
    assert trees(archive) == known
    again = RunningNode(archive.home, **archive.settings)
    others = RunningNode(tmp_path / "other"), RunningNode(tmp_path / "third")
    try:
        again.start()
        wait_served(again)
        viewed(again, sent)
        assert again.answer("fsck")["findings"] == []
        for folder in ("backup", "later"):  # into the one from before, and into a new one
            again.answer("backup", str(tmp_path / folder))
        assert again.stop() == 0, again.printed()

        for other, folder in zip(others, ("backup", "later"), strict=True):
            other.answer("restore", str(tmp_path / folder))
            assert other.answer("fsck")["findings"] == []
            other.start()
            assert trees(other) == known
            viewed(other, sent)
            assert other.stop() == 0, other.printed()
    finally:
        again.kill()
        for other in others:
            other.kill()
