"""Erasing a study: its key is gone, nothing names it, and killed at any step it is carried on to its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge import crash
from bridge.config import Content, Settings
from bridge.consortium_rotation import open_keys
from bridge.crypto.erasures import Asked
from bridge.erasing import carry_on_erasures, erasing_of
from bridge.errors import Busy, ConfigError, ContentMissing, EngineFault, Gone, NotFound
from bridge.ledger_reading import ledger_home
from bridge.model import OPERATOR, Outcome
from bridge.node import Node
from bridge.sealing_process import seal_closed
from bridge.services.backup import backup, restore
from bridge.services.erase import Erased, erase
from bridge.services.fsck import fsck
from bridge.services.rebuild_index import rebuild_index
from ledger.engine.solo import DATABASE
from ledger.store import LedgerStore
from tests.bridge.services.conftest import VIEWER, instance, part10, recorded
from tests.bridge.services.test_store import store

STUDY, KEPT = "1.2.276.0.7230010.471177", "1.2.276.0.7230010.471178"  # no UID that is made begins so
NAME = "Vanished^Vera"
STEPS = [f"erase.{number}" for number in range(1, 10)] + [f"replace_key.{number}" for number in (1, 2, 3)]


def silent(text: str) -> None:
    """Report nothing."""


def filled(node: Node) -> None:
    """Two studies of two patients, one of which was viewed, all of it sealed."""
    for number in (1, 2):
        store(node, part10(instance(study=STUDY, sop=f"{STUDY}.{number}", name=NAME, fill=number)))
    store(node, part10(instance(study=KEPT, sop=f"{KEPT}.1", name="Kept^Karl")))
    viewing = node.access.view(VIEWER, STUDY, "TREAT")
    viewing.saw("instance", f"{STUDY}.1")
    node.access.close_all()
    seal_closed(node.settings, node.keystore, begin=True)
    assert leaks(node.settings.home)


def erased(node: Node, study: str = STUDY) -> Erased:
    return erase(erasing_of(node), OPERATOR, study, "asked by the patient", silent)


def reopened(home: Path) -> Node:
    settings = Settings(home=home, content=Content(reserve_bytes=0))
    return Node(settings, open_keys(settings), "command")


def leaks(home: Path) -> list[str]:
    """Where in the files of a home something of the erased study stands in clear."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return [f"{path.name}: {word}" for path in files for word in (STUDY, NAME) if word.encode() in path.read_bytes()]


def entries(home: Path, kind: str) -> int:
    settings = Settings(home=home)
    store_ = LedgerStore(ledger_home(settings) / DATABASE, readonly=True)
    try:
        return sum(1 for stored in store_.entries(0, store_.size()) if kind.encode() in stored.envelope)
    finally:
        store_.close()


def test_an_erased_study_cannot_be_opened_searched_or_named_any_more(home: Path, open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    (tree,) = node.index.trees.of_study(STUDY)
    done = erased(node)
    assert (done.instances, done.keys, done.tags, done.released) == (2, 1, (tree.tag,), True)
    assert done.entries[0] is not None
    with pytest.raises(ContentMissing):
        node.keys.open(tree.tag, 0)
    with pytest.raises(Gone):
        node.retrieve.locate(STUDY)
    with pytest.raises(NotFound):
        node.retrieve.locate(f"{STUDY}.99")
    assert node.index.trees.of_study(STUDY) == [] and node.keys.tags_of(STUDY) == []
    assert fsck(node, silent) == []
    assert [record["reason"] for record in recorded(node, "study.erase")] == ["asked by the patient"]
    assert leaks(home) == []
    node.close()
    assert leaks(home) == []


def test_the_others_are_wrapped_under_another_key_and_open_as_before(home: Path, open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    former = node.keystore.key_encryption_key
    assert erased(node).wrapped_anew == 1
    (kept,) = node.retrieve.locate(KEPT)
    node.retrieve.verify(kept)
    node.close()
    again = reopened(home)
    try:
        assert again.keystore.key_encryption_key != former
        again.retrieve.verify(again.index.instance(kept.id))
    finally:
        again.close()


def test_another_process_goes_on_with_the_key_that_took_the_place(home: Path, open_node: Callable[[], Node]) -> None:
    """A door that had the keystore open before takes new studies in, and they open after a restart."""
    first, door = open_node(), None
    filled(first)
    door = Node(first.settings, first.keystore, "dimse-0")
    try:
        (kept,) = door.retrieve.locate(KEPT)
        erased(first)
        door.retrieve.verify(kept)
        assert store(door, part10(instance(study="1.2.3"))).outcome is Outcome.NEW
    finally:
        door.close()
    first.close()
    again = reopened(home)
    try:
        assert fsck(again, silent) == []
    finally:
        again.close()


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_it_is_carried_on_at_the_next_start(
    home: Path, open_node: Callable[[], Node], step: str
) -> None:
    node = open_node()
    filled(node)
    node.close()
    killed_at(home, step)
    again = reopened(home)
    try:
        carry_on_erasures(again)
        seal_closed(again.settings, again.keystore, begin=False)
        assert again.erasures.going_on() == [] and again.erasures.unreleased() == []
        with pytest.raises(Gone):
            again.retrieve.locate(STUDY)
        (kept,) = again.retrieve.locate(KEPT)
        again.retrieve.verify(kept)
        assert fsck(again, silent) == []
        assert len(recorded(again, "study.erase")) == 1
    finally:
        again.close()
    assert leaks(home) == [] and not (home / "keys" / "replacing.json").exists()
    assert entries(home, "study.erase") == 1


def killed_at(home: Path, step: str) -> None:
    """Erase in a process of its own, which dies there."""
    child = os.fork()
    if not child:
        try:
            crash._name, crash._left = step, 1
            erased(reopened(home))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_asked_for_again_it_is_carried_on_too(home: Path, open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    node.close()
    killed_at(home, "erase.4")
    again = reopened(home)
    try:
        assert erased(again).instances == 2
        with pytest.raises(Gone):
            erased(again)
        with pytest.raises(NotFound):
            erased(again, "1.2.3.4")
    finally:
        again.close()


def test_sent_again_it_is_a_new_study_with_a_new_key_and_tag(open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    (before,) = node.index.trees.of_study(STUDY)
    reception = node.store.reception(VIEWER)
    incoming = reception.begin()
    incoming.write(part10(instance(study=STUDY, name=NAME)))
    incoming.commit()  # its batch is open while the study is erased
    erased(node)
    incoming = reception.begin()
    incoming.write(part10(instance(study=STUDY, name=NAME)))
    assert incoming.commit().outcome is Outcome.NEW
    reception.close()
    (after,) = node.index.trees.of_study(STUDY)
    assert after.tag != before.tag
    (held,) = node.retrieve.locate(STUDY)
    node.retrieve.verify(held)
    assert fsck(node, silent) == []


def test_without_what_unlocks_the_keystore_nothing_is_destroyed(home: Path, open_node: Callable[[], Node]) -> None:
    """The other keys could not be wrapped anew."""
    node = open_node()
    filled(node)
    (home / "keys" / "unlock").rename(home / "keys" / "aside")
    with pytest.raises(ConfigError):
        erased(node)
    assert node.erasures.going_on() == [] and len(node.retrieve.locate(STUDY)) == 2
    (home / "keys" / "aside").rename(home / "keys" / "unlock")
    assert erased(node).keys == 1


def test_what_began_before_an_erasure_and_ends_after_it_is_to_be_sent_again(open_node: Callable[[], Node]) -> None:
    """Its key is gone: acknowledged it would be lost."""
    node = open_node()
    filled(node)
    incoming = node.store.reception(VIEWER).begin()
    incoming.write(part10(instance(study=STUDY, name=NAME, frames=40, rows=400)))
    assert incoming._writer is not None
    erased(node)
    with pytest.raises(Busy, match="send it again"):
        incoming.commit()


def test_while_it_goes_on_no_key_of_the_study_is_made(open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    node.erasures.begin(STUDY, Asked("system", "operator", "command", ""), 1)
    node.keys.delete(STUDY)
    with pytest.raises(Busy):
        store(node, part10(instance(study=STUDY, name=NAME)))
    store(node, part10(instance(study=KEPT, name="Kept^Karl")))


def test_while_it_goes_on_what_is_asked_for_is_gone_and_not_damaged(open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    (held, _) = node.retrieve.locate(STUDY)
    node.erasures.begin(STUDY, Asked("system", "operator", "command", ""), 1)
    node.retrieve.verify(held)
    node.keys.delete(STUDY)
    with pytest.raises(Gone):
        b"".join(node.retrieve.part10(node.access.view_kept(VIEWER, bytes(16), "TREAT"), held))
    assert node.index.counts()["damaged"] == 0


def test_an_engine_that_does_not_answer_is_asked_again_to_let_go(
    open_node: Callable[[], Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = open_node()
    filled(node)
    (tree,) = node.index.trees.of_study(STUDY)

    def down(root: bytes) -> None:
        raise EngineFault("Kubo does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(node.content, "unpin", down)
        assert erased(node).released is False
        assert [roots for _, roots in node.erasures.unreleased()] == [(tree.root,)]
        carry_on_erasures(node)
    asked: list[bytes] = []
    monkeypatch.setattr(node.content, "unpin", asked.append)
    carry_on_erasures(node)
    assert asked == [tree.root] and node.erasures.unreleased() == []


def test_an_index_made_again_has_nothing_of_it(home: Path, open_node: Callable[[], Node]) -> None:
    node = open_node()
    filled(node)
    erased(node)
    node.close()
    for file in home.glob("index.db*"):
        file.unlink()
    again = reopened(home)
    try:
        said: list[str] = []
        counts = rebuild_index(again, said.append)
        assert (counts["instances"], counts["not_opened"]) == (1, 0)
        assert any("erased" in line for line in said)
        with pytest.raises(Gone):
            again.retrieve.locate(STUDY)
        assert fsck(again, silent) == []
    finally:
        again.close()


def test_an_older_backup_brings_it_back_until_it_is_erased_again(
    home: Path, open_node: Callable[[], Node], tmp_path: Path
) -> None:
    node = open_node()
    filled(node)
    backup(home, tmp_path / "backup", silent)
    erased(node)
    tags = [tag for tag, _, _ in node.erasures.ended()]
    node.close()
    restore(tmp_path / "backup", tmp_path / "other", silent)
    again = reopened(tmp_path / "other")
    try:
        assert len(again.retrieve.locate(STUDY)) == 2
        asked = Asked("system", "operator", "command", "erased before")
        assert again.erasures.begin_again(tags, asked, 2) == 1
        carry_on_erasures(again)
        with pytest.raises(Gone):
            again.retrieve.locate(STUDY)
        assert again.erasures.begin_again(tags, asked, 3) == 0
    finally:
        again.close()
    assert leaks(tmp_path / "other") == []
