"""What a node records of itself: its keys once, settings that changed by name, never a secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import config, start_stop
from bridge.config import Content, Index, Settings
from bridge.crypto.keystore import open_keystore
from bridge.crypto.next_key import adopt_next, make_next
from bridge.errors import StorageFull
from bridge.node import Node
from bridge.services.access import SYSTEM
from bridge.start_stop import DEFAULT, difference
from tests.bridge.services.conftest import CHEAP, recorded

PROCESSES = ("dimse-0", "web-0", "ledger-0")


@pytest.fixture
def start(tmp_path: Path) -> Callable[[Settings], list[dict[str, object]]]:
    """Start and stop a node with settings; every config.change recorded so far."""

    def run(settings: Settings) -> list[dict[str, object]]:
        node = Node(settings, open_keystore(settings.home, cost=CHEAP), "web-0")
        start_stop.started(node, PROCESSES, keys_are_new=True)
        start_stop.stopped(node)
        found = recorded(node, "config.change")
        node.close()
        return found

    return run


def test_settings_that_changed_are_told_by_name(
    start: Callable[[Settings], list[dict[str, object]]], tmp_path: Path
) -> None:
    plain = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    assert start(plain) == [] and start(plain) == []
    other = replace(plain, content=Content(reserve_bytes=0, hash="sha2-256"))
    (changed,) = start(other)
    assert changed["changes"] == [{"setting": "content.hash", "from": DEFAULT, "to": "sha2-256"}]
    assert start(plain)[1]["changes"] == [{"setting": "content.hash", "from": "sha2-256", "to": DEFAULT}]


def test_another_ledger_key_is_recorded_at_the_first_start_with_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    told = []
    for rotate in (False, True, False):
        keystore = open_keystore(settings.home, cost=CHEAP)
        if rotate:
            make_next(settings.home, cost=CHEAP)
            adopt_next(settings.home)
            keystore = open_keystore(settings.home, cost=CHEAP)
        node = Node(settings, keystore, "web-0")
        start_stop.started(node, PROCESSES, keys_are_new=False)
        start_stop.record_keys(node, SYSTEM)
        told = recorded(node, "admin.key")
        node.close()
    assert [one["did"] for one in told] == ["created", "rotated"]
    assert told[1]["former"] == told[0]["signing"] != told[1]["signing"]


def test_keys_are_recorded_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    node = Node(settings, open_keystore(settings.home, cost=CHEAP), "web-0")
    for new in (False, True, True):
        start_stop.started(node, PROCESSES, keys_are_new=new)
    assert len(recorded(node, "admin.key")) == 1
    assert [body["processes"] for body in recorded(node, "app.start")] == [list(PROCESSES)] * 3
    node.close()


def test_a_start_that_cannot_be_recorded_does_not_keep_the_node_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    node = Node(settings, open_keystore(settings.home, cost=CHEAP), "web-0")

    def full(*_: object, **__: object) -> None:
        raise StorageFull("the disk is full")

    monkeypatch.setattr(node.access, "administered", full)
    start_stop.started(node, PROCESSES, keys_are_new=True)
    start_stop.stopped(node)
    assert [record.getMessage() for record in caplog.records] == ["a start or stop could not be recorded"] * 3
    node.close()


def test_a_secret_is_never_told_but_its_change_is() -> None:
    one, two = (
        config.recordable(replace(Settings(), index=Index(url=f"postgresql://u:{word}@h/d")), b"k" * 32)["index.url"]
        for word in ("sesame", "tiger")
    )
    assert one != two and "sesame" not in one and "postgresql" not in one


def test_long_values_are_cut_and_their_change_is_seen() -> None:
    origins = ["x" * 300 + end for end in "ab"]
    told = [
        config.recordable(replace(Settings(), ledger=replace(Settings().ledger, origin=origin)), b"k" * 32)
        for origin in origins
    ]
    assert all(len(one["ledger.origin"]) < 200 for one in told) and told[0] != told[1]
    assert config.recordable(Settings(), b"k" * 32) == {}


def test_the_difference_of_settings() -> None:
    before, now = {"a.b": "1", "a.c": "2"}, {"a.c": "3", "a.d": "4"}
    assert difference(before, now) == [
        {"setting": "a.b", "from": "1", "to": DEFAULT},
        {"setting": "a.c", "from": "2", "to": "3"},
        {"setting": "a.d", "from": DEFAULT, "to": "4"},
    ]
    assert difference(now, now) == []
