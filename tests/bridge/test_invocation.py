"""Commands: done by the running node, or here; a node that is just starting is waited for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge import invocation
from bridge.config import Settings
from bridge.control import ControlServer, Report
from bridge.crypto.keystore import open_keystore
from bridge.errors import InUse
from bridge.runlock import RunLock


def answer(command: str, arguments: Mapping[str, object], report: Report) -> object:
    return {"command": command}


def test_a_node_that_holds_the_lock_and_does_not_listen_yet_is_waited_for(tmp_path: Path) -> None:
    open_keystore(tmp_path)
    answers: list[object] = []
    with RunLock(tmp_path):
        asking = threading.Thread(
            target=lambda: answers.append(invocation.perform(Settings(home=tmp_path), "status", {}))
        )
        asking.start()
        asking.join(0.6)
        assert asking.is_alive()
        server = ControlServer(tmp_path / "run" / "cairn.sock", answer)
        asking.join(60)
        server.close()
    assert answers == [{"command": "status"}]


def test_a_home_that_another_process_holds_for_long_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocation, "STARTING_S", 0.3)
    open_keystore(tmp_path)
    with RunLock(tmp_path), pytest.raises(InUse, match="a node runs"):
        invocation.perform(Settings(home=tmp_path), "status", {})
