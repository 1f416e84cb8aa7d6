"""Two hospitals without a consortium, each a real node that cosigns the other's checkpoints; and one that rewrites its
history, which its own verification does not find and the other does."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from bridge.crypto.keystore import open_keystore
from ledger import checkpoint
from tests.conftest import ended_well
from tests.node.audit_repository import Authority
from tests.node.instances import HIGHDICOM, sendable
from tests.node.running_node import CAIRN, RunningNode, free_ports

SENT = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
WAIT_S = 60.0


class Hospital(NamedTuple):
    """A node, the listener where its members meet it, its public keys, and what it shows as a client."""

    node: RunningNode
    url: str
    keys: dict[str, str]
    client: Callable[[], httpx.Client]

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.node.answer("ledger", "entries")["entries"]
        return found

    def witnessed(self) -> bool:
        """Whether an entry of just now is witnessed, and so all before it."""
        return self.entries()[-1]["finality"] == "witnessed"

    def rules(self) -> dict[str, str]:
        """What was found by the rules, in words by rule, as the ledger's records tell it."""
        with self.node.http("auditor") as client:
            page = client.get("/console/alerts").text
        return {rule: page for rule in ("second-history", "witness-refused") if f"<b>{rule}</b>" in page}


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Hospital]]:
    folder = tmp_path_factory.mktemp("witnessing")
    authority, names, ports = Authority(folder), ("north", "south"), free_ports(2)
    identities = [authority.issue(name, "127.0.0.1") for name in names]
    nodes = [RunningNode(folder / name) for name in names]
    for node in nodes:
        open_keystore(node.home, None)  # as a first start does
    keys = [node.answer("key", "show") for node in nodes]
    hospitals = []
    for own, other in ((0, 1), (1, 0)):
        settings = folder / f"{names[own]}.toml"
        settings.write_text(
            f'[members]\nport = {ports[own]}\ncertificate = "{identities[own].certificate}"\n'
            f'key = "{identities[own].key}"\n[[members.peers]]\nname = "{names[other]}"\n'
            f'certificate = "{identities[other].certificate}"\nurl = "https://127.0.0.1:{ports[other]}"\n'
            f'witness = "{keys[other]["cosigner"]}"\nlog = "{keys[other]["verifier"]}"\n',
            "utf-8",
        )
        nodes[own].settings["CAIRN_CONFIG"] = str(settings)

        def client(own: int = own) -> httpx.Client:
            import ssl

            context = ssl.create_default_context(cafile=str(authority.file))
            context.load_cert_chain(identities[own].certificate, identities[own].key)
            return httpx.Client(verify=context, timeout=30.0, trust_env=False)

        hospitals.append(Hospital(nodes[own], f"https://127.0.0.1:{ports[own]}", keys[own], client))
    try:
        for node in nodes:
            node.start()
        nodes[0].cairn("import", str(SENT.file))
        yield hospitals[0], hospitals[1]
        for node in nodes:
            if node.runs:
                ended_well(node)
    finally:
        for node in nodes:
            node.kill()


def test_every_entry_of_each_is_witnessed_by_the_other(pair: tuple[Hospital, Hospital]) -> None:
    for hospital in pair:
        wait_for(hospital.witnessed)
        assert {entry["finality"] for entry in hospital.entries()} == {"witnessed"}


def test_a_proof_shows_the_cosignature_to_who_has_the_policy_and_nothing_else(
    pair: tuple[Hospital, Hospital], tmp_path: Path
) -> None:
    north, south = pair
    policy, file = tmp_path / "policy", tmp_path / "entry.tlog-proof"
    policy.write_text(north.node.cairn("ledger", "key").stdout)
    assert "quorum witnesses" in policy.read_text()
    stored = next(entry for entry in north.entries() if entry["type"] == "study.import")
    north.node.cairn("ledger", "prove", stored["id"], "--out", str(file), "--wait", "30")
    done = subprocess.run(
        [CAIRN, "ledger", "verify", file, "--policy", policy, "--json"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = json.loads(done.stdout)
    assert (done.returncode, said["valid"], said["entry"]["id"]) == (0, True, stored["id"])
    name = south.keys["cosigner"].partition("+")[0]
    assert [each["witness"] for each in said["cosigned"]] == [name]


def test_the_checkpoint_is_published_with_its_cosignature(pair: tuple[Hospital, Hospital]) -> None:
    north = pair[0]
    wait_for(north.witnessed)
    with north.node.http("auditor") as client:
        wait_for(lambda: len(checkpoint.split_note(client.get("/ledger/checkpoint").text)[1]) == 2)


def test_while_a_witness_is_away_entries_are_signed_and_afterwards_witnessed(pair: tuple[Hospital, Hospital]) -> None:
    north, south = pair
    wait_for(north.witnessed)
    assert south.node.stop() == 0
    north.node.cairn("token", "create", "--role", "viewer")
    wait_for(lambda: north.entries()[-1]["finality"] == "signed")
    south.node.start()
    wait_for(north.witnessed)


def test_only_members_are_answered_and_of_strangers_nothing_is_cosigned(pair: tuple[Hospital, Hospital]) -> None:
    north, south = pair
    with south.client() as client:
        path = f"{north.url}/witness/add-checkpoint"
        assert client.get(path).status_code == 405
        assert client.post(path, content=b"old 0\n").status_code == 400
        with north.node.http("auditor") as own:
            note = own.get("/ledger/checkpoint").text
        answer = client.post(path, content=b"old 0\n\n" + note.encode())
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
        with south.node.http("auditor") as own:
            note = own.get("/ledger/checkpoint").text
        answer = client.post(path, content=b"old 0\n\n" + note.encode())
        assert (answer.status_code, answer.headers["content-type"]) == (409, "text/x.tlog.size")
        assert client.post(path, content=b"x" * 400_000).status_code == 400
    with httpx.Client(verify=False, trust_env=False) as nobody, pytest.raises(httpx.TransportError):
        nobody.post(path, content=b"")


def test_a_history_that_was_rewritten_is_valid_to_its_owner_and_found_by_the_other(
    pair: tuple[Hospital, Hospital],
) -> None:
    north, south = pair
    wait_for(north.witnessed)
    assert (north.rules(), south.rules()) == ({}, {})
    assert north.node.stop() == 0
    shutil.rmtree(north.node.home / "ledger")
    with closing(sqlite3.connect(north.node.home / "index.db")) as index:
        index.execute("UPDATE batch SET purpose = 'HRESCH' WHERE type = 'study.import'")
        index.commit()
    north.node.start()
    wait_for(lambda: len(north.entries()) > 3)
    assert north.node.answer("ledger", "verify")["findings"] == []
    wait_for(lambda: south.rules() and north.rules())
    assert "north" in south.rules()["second-history"]
    assert "south" in north.rules()["witness-refused"]
    assert {entry["finality"] for entry in north.entries()[-2:]} == {"signed"}
    assert north.node.stop() == 0
    assert south.witnessed() or south.node.runs
