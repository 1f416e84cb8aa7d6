"""Backups of an archive whose oldest packs are in Kubo alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.config import Content, Kubo, Settings
from bridge.content.pack_format import packs_in
from bridge.crypto.keystore import open_keystore
from bridge.errors import ContentMissing, EngineFault
from bridge.node import Node
from bridge.services.backup import backup, restore
from bridge.services.fsck import fsck
from tests.bridge.services.conftest import CHEAP, instance, part10
from tests.bridge.services.test_store import read, store
from tests.kubo_daemon import KuboDaemon

STUDY = "1.2.840.1"
EMBEDDED = Content(reserve_bytes=0)
Open = Callable[[Path, Content], Node]


def quiet(_: str) -> None:
    return None


@pytest.fixture
def open_at() -> Iterator[Open]:
    opened: list[Node] = []

    def open_(home: Path, content: Content) -> Node:
        opened.append(Node(Settings(home=home, content=content), open_keystore(home, cost=CHEAP), "command"))
        return opened[-1]

    yield open_
    for node in opened:
        if not node.closed:
            node.close()


def with_kubo(kubo: KuboDaemon) -> Content:
    return Content(engine="kubo", reserve_bytes=0, cache_bytes=0, pack_bytes=1 << 20, kubo=Kubo(api=kubo.api))


def send(node: Node, *sops: str, rows: int = 500) -> list[bytes]:
    files = [part10(instance(study=STUDY, series="1.2.1", sop=sop, rows=rows)) for sop in sops]
    for file in files:
        store(node, file)
    return files


def kept_by_kubo(node: Node) -> None:
    (tree,) = node.index.trees.of_study(STUDY)
    assert tree.root is not None
    node.content.pin(tree.root)


def trim(node: Node, number: int) -> None:
    """The pack of a number leaves the spool, as the content process has it leave."""
    node.index.content_state.trim(number, 1)
    (pack,) = [path for path in packs_in(node.settings.home / "packs") if int(path.stem) == number]
    pack.unlink()
    node.packs.release_removed()


def archive(node: Node) -> list[bytes]:
    return [read(node, one) for one in node.retrieve.locate(STUDY)]


def test_a_pack_that_left_the_spool_is_in_the_backup_all_the_same(
    open_at: Open, kubo: KuboDaemon, tmp_path: Path
) -> None:
    node = open_at(tmp_path / "home", with_kubo(kubo))
    files = send(node, *(f"1.{number}" for number in range(1, 8)))
    kept_by_kubo(node)
    numbers = [int(path.stem) for path in packs_in(tmp_path / "home" / "packs")]
    assert len(numbers) > 2
    trim(node, numbers[0])
    told: list[str] = []
    backup(tmp_path / "home", tmp_path / "backup", told.append, get=node.content.get)
    assert [line for line in told if "again" in line]
    trim(node, numbers[1])  # it is in the backup already
    told.clear()
    assert backup(tmp_path / "home", tmp_path / "backup", told.append, get=node.content.get)["pack_bytes"] == 0
    assert not [line for line in told if "again" in line]
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    other = open_at(tmp_path / "other", EMBEDDED)
    assert archive(other) == files
    assert other.index.content_state.trimmed() == set()
    assert fsck(other, quiet) == []
    send(other, "1.8")
    assert len(archive(other)) == 8 and fsck(other, quiet) == []


def test_what_nobody_needs_any_more_may_be_missing_and_what_is_needed_is_told(
    open_at: Open, fresh_kubo: KuboDaemon, tmp_path: Path
) -> None:
    fresh_kubo.start()
    node = open_at(tmp_path / "home", with_kubo(fresh_kubo))
    send(node, "1.1", rows=8)
    former = node.index.trees.of_study(STUDY)[0].root  # never given to Kubo
    send(node, "1.2", "1.3")
    send(node, "1.4", rows=900)
    kept_by_kubo(node)
    trim(node, 0)
    lost = node.retrieve.locate(STUDY, "1.2.1", "1.2")[0].object.root
    told: list[str] = []

    def get(cid: bytes) -> bytes:
        if cid == lost:
            raise ContentMissing("nobody has it")
        return node.content.get(cid)

    backup(tmp_path / "home", tmp_path / "backup", told.append, get=get)
    assert len([line for line in told if "block " in line]) == 1
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    other = open_at(tmp_path / "other", EMBEDDED)
    assert former is not None and other.index.locate_block(former) is None
    assert other.index.locate_block(lost) is not None
    assert {found.place.split()[0] for found in fsck(other, quiet)} == {"pack", "instance"}
    assert len([found for found in fsck(other, quiet) if found.place == "instance 1.2"]) == 1


def test_a_backup_without_content_leaves_the_spool_to_kubo(open_at: Open, kubo: KuboDaemon, tmp_path: Path) -> None:
    node = open_at(tmp_path / "home", with_kubo(kubo))
    files = send(node, "1.1", "1.2", "1.3")
    kept_by_kubo(node)
    backup(tmp_path / "home", tmp_path / "backup", quiet, content=False)
    node.close()
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    other = open_at(tmp_path / "other", with_kubo(kubo))
    assert archive(other) == files
    files += send(other, "1.4")
    assert archive(other) == files, "what is stored now lies in a pack that no block of before is looked for in"


def test_a_backup_is_not_finished_while_kubo_does_not_answer(
    open_at: Open, fresh_kubo: KuboDaemon, tmp_path: Path
) -> None:
    fresh_kubo.start()
    node = open_at(tmp_path / "home", with_kubo(fresh_kubo))
    send(node, "1.1", "1.2", "1.3")
    kept_by_kubo(node)
    trim(node, 0)
    fresh_kubo.stop()
    with pytest.raises(EngineFault):
        backup(tmp_path / "home", tmp_path / "backup", quiet, get=node.content.get)
    assert not (tmp_path / "backup" / "backup.json").exists()
    told: list[str] = []
    backup(tmp_path / "home", tmp_path / "backup", told.append)
    assert [line for line in told if "alone" in line]
