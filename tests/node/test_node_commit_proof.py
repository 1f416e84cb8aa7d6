"""An entry of a real consortium, proved by CometBFT's commit: two files and the genesis are enough, and no byte of them
is free."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge import ledger_offline
from bridge.config import load
from bridge.invocation import perform
from tests.node.running_demo import RunningDemo
from tests.node.running_node import CAIRN

WAIT_S = 60.0


class Files(NamedTuple):
    """What an auditor is handed, and the id of the entry that it is about."""

    id: str
    proof: Path
    commit: Path
    genesis: Path

    def verify(self, *, code: int = 0) -> dict[str, Any]:
        """What `cairn ledger verify` says where there is no node."""
        done = subprocess.run(
            [CAIRN, "ledger", "verify", self.proof, "--commit", self.commit, "--genesis", self.genesis, "--json"],
            env={name: value for name, value in os.environ.items() if not name.startswith("CAIRN_")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDemo]:
    running = RunningDemo(tmp_path_factory.mktemp("commit") / "hospitals", members=1)
    try:
        yield running.start()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def files(demo: RunningDemo, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    demo.cairn(0, "token", "create", "--role", "viewer")
    until = time.monotonic() + WAIT_S
    while not (made := [each for each in entries(demo) if each["finality"] == "final"]):
        assert time.monotonic() < until
        time.sleep(0.1)
    found = Files(made[-1]["id"], folder / "proof", folder / "commit", folder / "genesis.json")
    demo.cairn(0, "ledger", "prove", found.id, "--out", found.proof, "--commit", found.commit, "--wait", "30")
    shutil.copy(demo.home(0) / "consortium/genesis.json", found.genesis)
    return found


def entries(demo: RunningDemo) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = demo.answer(0, "ledger", "entries")["entries"]
    return found


def test_an_entry_is_shown_to_who_has_the_genesis_and_two_files(files: Files) -> None:
    said = files.verify()
    assert (said["valid"], said["kind"], said["entry"]["id"]) == (True, "proof", files.id)
    assert (said["member"], said["committed"]["signed"], said["committed"]["of"]) == ("h0", 1, 1)


@pytest.mark.parametrize("name", ["proof", "commit"])
def test_bytes_that_were_changed_are_found(files: Files, name: str, tmp_path: Path) -> None:
    good: Path = getattr(files, name)
    content = good.read_bytes()
    for at in range(0, len(content), max(1, len(content) // 7)):
        damaged = tmp_path / name
        damaged.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        changed = files._replace(**{name: damaged})
        assert ledger_offline.verify_commit(changed.proof, changed.commit, changed.genesis)["findings"]
    assert changed.verify(code=3)["valid"] is False


def test_an_entry_that_is_not_there_is_not_proved(demo: RunningDemo, tmp_path: Path) -> None:
    out = tmp_path / "none"
    demo.cairn(0, "ledger", "prove", "00" * 32, "--out", out, "--commit", out, code=1)


def test_the_files_are_asked_for_together(files: Files) -> None:
    for arguments in (
        ["--commit", files.commit],
        ["--genesis", files.genesis],
        ["--key", "x", "--commit", files.commit],
    ):
        done = subprocess.run([CAIRN, "ledger", "verify", files.proof, *arguments], capture_output=True, check=False)
        assert done.returncode == 2


def test_a_shared_log_that_is_damaged_is_told_by_file_and_page_wherever_the_damage_is(
    demo: RunningDemo, files: Files
) -> None:
    """SQLite's header has 100 bytes, of which many keep it from opening the file at all."""
    assert demo.stop() == 0
    assert demo.answer(0, "ledger", "verify")["findings"] == []
    settings, _ = load(None, {"CAIRN_HOME": str(demo.home(0))})
    database = demo.home(0) / "consortium/ledger/ledger.db"
    kept = database.read_bytes()
    for at in [0, 17, 18, 28, 47, 60, 71, 100, 103, *range(4096, len(kept), len(kept) // 4)]:
        database.write_bytes(kept[:at] + bytes([kept[at] ^ 0x40]) + kept[at + 1 :])
        found = perform(settings, "ledger-verify", {})["findings"]
        assert {"place": "ledger.db", "what": f"page {at // 4096 + 1} is not as the ledger wrote it"} in found, at
    database.write_bytes(b"x" + kept[1:])
    told = demo.cairn(0, "ledger", "verify", code=3).stdout
    assert "ledger.db: page 1 is not as the ledger wrote it" in told and "not a database" in told
    database.write_bytes(kept)
    assert demo.answer(0, "ledger", "verify")["findings"] == []
