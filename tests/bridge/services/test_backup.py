"""Backup while running, restore, and the index made again from packs and keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import consortium_setup as setup
from bridge import unfinished
from bridge.config import Content, Settings, load
from bridge.consortium import SharedConsortium, own_consortium
from bridge.crypto.keystore import open_keystore
from bridge.crypto.next_key import make_next, read_next
from bridge.errors import CapacityError, ConfigError, NotFound
from bridge.index.aside import set_aside
from bridge.node import Node
from bridge.offline import opened, rebuilt
from bridge.services.backup import backup, restore
from bridge.services.fsck import fsck
from bridge.services.rebuild_index import rebuild_index
from tests.bridge.services.conftest import instance, part10
from tests.bridge.services.test_store import read, store


def quiet(_: str) -> None:
    return None


def test_a_node_comes_back_from_a_backup_made_while_it_ran(node: Node, home: Path, tmp_path: Path) -> None:
    kept, file = store(node, part10(instance())), part10(instance())
    second = store(node, file)
    backup(home, tmp_path / "backup", quiet)
    later = store(node, part10(instance()))
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    other = Node(
        Settings(home=tmp_path / "other", content=Content(reserve_bytes=0)),
        open_keystore(tmp_path / "other"),
        "command",
    )
    try:
        assert other.retrieve.locate(*kept.key)
        assert read(other, other.retrieve.locate(*second.key)[0]) == file
        with pytest.raises(NotFound):
            other.retrieve.locate(*later.key)
        assert fsck(other, quiet) == []
        assert store(other, part10(instance())).key
    finally:
        other.close()


def test_a_member_of_a_consortium_stays_one_but_its_validators_key_is_never_copied(home: Path, tmp_path: Path) -> None:
    settings, keystore = Settings(home=home), open_keystore(home)
    card = setup.make_card(settings, keystore, setup.place_of(settings, "h0"))
    setup.join(settings, setup.found("north", 1, [card]))
    seed = make_next(home)
    backup(home, tmp_path / "backup", quiet)
    other = tmp_path / "other"
    restore(tmp_path / "backup", other, quiet)
    after = load(None, {"CAIRN_HOME": str(other)})[0]
    assert after.ledger.engine == "cometbft" and after.members.key == other / "consortium" / "tls.key"
    seen = own_consortium(after, open_keystore(other))
    assert seen is not None and seen.own() == SharedConsortium(home, [card.key]).own()
    assert read_next(other) == seed
    assert not [path for path in (tmp_path / "backup").rglob("*") if path.name.startswith("priv_validator")]
    moved = setup.make_card(after, open_keystore(other), setup.place_of(after, "h0"))
    assert moved.consensus != card.consensus and (moved.certificate, moved.address) == (card.certificate, card.address)


def test_a_second_backup_into_the_same_folder_copies_only_what_is_new(node: Node, home: Path, tmp_path: Path) -> None:
    store(node, part10(instance(rows=256)))
    first = backup(home, tmp_path / "backup", quiet)["pack_bytes"]
    assert backup(home, tmp_path / "backup", quiet)["pack_bytes"] == 0
    store(node, part10(instance()))
    assert 0 < backup(home, tmp_path / "backup", quiet)["pack_bytes"] < first


def test_what_a_crash_left_behind_in_a_pack_is_not_copied(
    open_node: Callable[[], Node], home: Path, tmp_path: Path
) -> None:
    first = open_node()
    keys = [store(first, part10(instance())).key]
    first.close()
    (pack,) = (home / "packs").glob("*.car")
    with pack.open("ab") as torn:
        torn.write(b"\xff\x7f" + bytes(5000))  # the head of a section whose end never came
    backup(home, tmp_path / "backup", quiet)
    again = open_node()
    keys.append(store(again, part10(instance())).key)
    backup(home, tmp_path / "backup", quiet)
    assert fsck(again, quiet) == []
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    kept = (tmp_path / "other" / "packs" / pack.name).read_bytes()
    assert kept == pack.read_bytes()[: len(kept)]
    other = Node(
        Settings(home=tmp_path / "other", content=Content(reserve_bytes=0)),
        open_keystore(tmp_path / "other"),
        "command",
    )
    try:
        assert fsck(other, quiet) == []
        assert all(other.retrieve.locate(*key) for key in keys)
    finally:
        other.close()


def test_restore_refuses_a_home_that_is_not_empty_and_a_backup_that_is_not_finished(
    node: Node, home: Path, tmp_path: Path
) -> None:
    backup(home, tmp_path / "backup", quiet)
    with pytest.raises(ConfigError, match="not empty"):
        restore(tmp_path / "backup", home, quiet)
    (tmp_path / "backup" / "backup.json").unlink()
    with pytest.raises(ConfigError, match="no finished backup"):
        restore(tmp_path / "backup", tmp_path / "other", quiet)


def test_the_index_is_made_again_from_packs_and_keys(open_node: Callable[[], Node], home: Path) -> None:
    first = open_node()
    files = [part10(instance(frames=2)) for _ in range(3)]
    keys = [store(first, file).key for file in files]
    before = [json for key in keys for _, json in first.index.metadata(*key)]
    first.close()
    assert set_aside(home / "index.db") is not None
    again = open_node()
    assert rebuild_index(again, quiet)["instances"] == 3
    assert [json for key in keys for _, json in again.index.metadata(*key)] == before
    assert [read(again, again.retrieve.locate(*key)[0]) for key in keys] == files
    assert fsck(again, quiet) == []


def test_a_backup_never_takes_the_place_of_a_node(node: Node, home: Path, tmp_path: Path) -> None:
    kept = store(node, part10(instance()))
    (tmp_path / "link").symlink_to(home)
    open_keystore(tmp_path / "other")
    for place in (home, tmp_path / "link", home / "packs", home / "keys" / "new", tmp_path / "other"):
        with pytest.raises(ConfigError, match="another folder"):
            backup(home, place, quiet)
    backup(home, home / "backup", quiet)
    assert node.retrieve.locate(*kept.key)
    assert fsck(node, quiet) == []


def test_one_backup_at_a_time_is_made_into_a_folder(node: Node, home: Path, tmp_path: Path) -> None:
    store(node, part10(instance()))
    refused: list[CapacityError] = []

    def report(text: str) -> None:
        if text.startswith("copying pack"):
            with pytest.raises(CapacityError, match="another backup") as error:
                backup(home, tmp_path / "backup", quiet)
            refused.append(error.value)

    backup(home, tmp_path / "backup", report)
    assert refused
    backup(home, tmp_path / "backup", quiet)


class Killed(BaseException):
    """In the place of a kill -9."""


def killed_when(said: str) -> Callable[[str], None]:
    def report(text: str) -> None:
        if text.startswith(said):
            raise Killed

    return report


@pytest.mark.parametrize("said", ["restoring index.db", "restoring keys/keys.db", "copying pack"])
def test_a_restore_that_did_not_end_is_no_archive_and_is_done_again(
    node: Node, home: Path, tmp_path: Path, said: str
) -> None:
    kept = store(node, part10(instance()))
    backup(home, tmp_path / "backup", quiet)
    other = tmp_path / "other"
    other.mkdir()
    (other / "cairn.toml").write_text("[log]\nlevel = 'error'\n")
    with pytest.raises(Killed):
        restore(tmp_path / "backup", other, killed_when(said))
    settings = Settings(home=other, content=Content(reserve_bytes=0))
    with pytest.raises(ConfigError, match="restore"):
        unfinished.refuse(other)
    with pytest.raises(ConfigError, match="restore"):
        rebuilt(settings, quiet)
    restore(tmp_path / "backup", other, quiet)
    unfinished.refuse(other)
    assert (other / "cairn.toml").read_text() == "[log]\nlevel = 'error'\n"
    restored = Node(settings, open_keystore(other), "command")
    try:
        assert restored.retrieve.locate(*kept.key)
        assert fsck(restored, quiet) == []
    finally:
        restored.close()


@pytest.mark.parametrize("said", ["copying index", "copying keys", "copying pack"])
def test_a_backup_that_was_not_brought_up_to_date_to_its_end_is_not_restored(
    node: Node, home: Path, tmp_path: Path, said: str
) -> None:
    store(node, part10(instance()))
    backup(home, tmp_path / "backup", quiet)
    later = store(node, part10(instance()))
    with pytest.raises(Killed):
        backup(home, tmp_path / "backup", killed_when(said))
    with pytest.raises(ConfigError, match="no finished backup"):
        restore(tmp_path / "backup", tmp_path / "other", quiet)
    backup(home, tmp_path / "backup", quiet)
    restore(tmp_path / "backup", tmp_path / "other", quiet)
    settings = Settings(home=tmp_path / "other", content=Content(reserve_bytes=0))
    restored = Node(settings, open_keystore(tmp_path / "other"), "command")
    try:
        assert restored.retrieve.locate(*later.key)
        assert fsck(restored, quiet) == []
    finally:
        restored.close()


def test_an_index_that_was_not_made_to_its_end_is_not_taken_for_one(open_node: Callable[[], Node], home: Path) -> None:
    node = open_node()
    kept = store(node, part10(instance()))
    node.close()
    settings = Settings(home=home, content=Content(reserve_bytes=0))
    with pytest.raises(Killed):
        rebuilt(settings, killed_when("reading pack"))
    with pytest.raises(ConfigError, match="rebuild-index"), opened(settings, create=False):
        pass
    assert rebuilt(settings, quiet)["instances"] == 1
    with opened(settings, create=False) as again:
        assert again.retrieve.locate(*kept.key)
        assert fsck(again, quiet) == []
