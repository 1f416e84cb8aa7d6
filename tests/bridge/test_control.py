"""The local socket: answers, progress, errors, and who may connect."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.control import ControlServer, Failed, Report, ask
from bridge.errors import ContentCorrupt


def perform(name: str, arguments: Mapping[str, Any], report: Report) -> object:
    if name == "damaged":
        raise ContentCorrupt("block 1 is damaged")
    if name == "broken":
        raise ZeroDivisionError
    report("half way")
    return {"name": name, **arguments}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run" / "cairn.sock"
    server = ControlServer(path, perform)
    yield path
    server.close()
    assert not path.exists()


def test_a_command_is_answered_with_its_progress(path: Path) -> None:
    told: list[str] = []
    assert ask(path, "status", {"a": 1}, told.append) == {"name": "status", "a": 1}
    assert told == ["half way"]


def test_errors_keep_their_detail_advice_and_exit_code(path: Path) -> None:
    with pytest.raises(Failed) as caught:
        ask(path, "damaged", {}, print)
    assert (caught.value.detail, caught.value.code) == ("block 1 is damaged", 3)
    assert "fsck" in caught.value.advice


def test_a_fault_in_the_node_is_an_answer_not_a_hang(path: Path) -> None:
    with pytest.raises(Failed, match="the node failed"):
        ask(path, "broken", {}, print)


def test_only_the_owner_may_connect(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_path_longer_than_a_socket_address_still_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / "cairn.sock"
    server = ControlServer(path, perform)
    assert ask(path, "status", {}, print) == {"name": "status"}
    server.close()
