"""`cairn ledger prove` and `cairn ledger verify FILE`: a proof made by a running node holds where there is no node."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import checkpoint, cosignature
from tests.node.instances import HIGHDICOM
from tests.node.running_node import CAIRN, RunningNode


@pytest.fixture(scope="module")
def entries(node: RunningNode) -> list[dict[str, Any]]:
    """The entries after something was imported, all sealed."""
    node.answer("import", str(HIGHDICOM))
    node.cairn("ledger", "prove", record_of(node), "--out", str(node.home.parent / "first.tlog-proof"), "--wait", "60")
    found: list[dict[str, Any]] = node.answer("ledger", "entries")["entries"]
    return found


def record_of(node: RunningNode) -> str:
    """The record of an entry that is there in any case: the node's start."""
    until = time.monotonic() + 60
    while not (found := node.answer("ledger", "entries")["entries"]):
        assert time.monotonic() < until, "nothing was sealed"
    return str(found[0]["records"][0])


def alone(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command where no node is: another directory, no setting, no CAIRN_HOME."""
    done = subprocess.run(
        [CAIRN, *map(str, arguments)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def prove(node: RunningNode, id: str, out: Path) -> Path:
    assert node.answer("ledger", "prove", id, "--out", str(out), "--wait", "30") == {"id": id, "file": str(out)}
    return out


def key(node: RunningNode) -> str:
    return str(node.answer("ledger", "key")["key"])


def test_every_record_and_entry_that_is_listed_can_be_proved_and_holds_alone(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    known = [next(entry for entry in entries if entry["type"] == kind) for kind in {entry["type"] for entry in entries}]
    for entry in known:
        for id in (entry["id"], entry["records"][-1]):
            answer = alone(
                *("ledger", "verify", prove(node, id, tmp_path / "a"), "--key", key(node), "--json"), cwd=tmp_path
            )
            told = json.loads(answer.stdout)
            assert told["valid"] and told["findings"] == [] and told["kind"] == "proof"
            assert (told["entry"]["id"], told["entry"]["type"]) == (entry["id"], entry["type"])
            assert (told["record"] or {}).get("id") == (None if id == entry["id"] else id)
    assert not list(tmp_path.glob("data")), "verifying made a CAIRN_HOME"


def test_a_sentence_says_what_was_proved(node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path) -> None:
    entry = next(entry for entry in entries if entry["study"])
    path = prove(node, entry["records"][0], tmp_path / "one")
    said = alone("ledger", "verify", path, "--key", key(node), cwd=tmp_path).stdout
    for part in (entry["type"], entry["time"], entry["study"], "valid:"):
        assert part in said
    assert "No witness" in said


def test_the_proof_of_a_record_reveals_no_other_record(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if len(entry["records"]) > 4)
    told = []
    for number, id in enumerate(entry["records"][:2]):
        path = prove(node, id, tmp_path / str(number))
        told.append(json.loads(alone("ledger", "verify", path, "--key", key(node), "--json", cwd=tmp_path).stdout))
    instances = [each["record"]["body"]["instance"] for each in told]
    assert instances[0] != instances[1]
    assert instances[1] not in json.dumps(told[0])


def test_without_a_key_of_ones_own_nothing_is_proved(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = prove(node, entries[0]["id"], tmp_path / "one")
    assert "proves nothing" in alone("ledger", "verify", path, cwd=tmp_path, code=2).stderr
    for options in (
        ("--key", "not a key"),
        ("--key", key(node)[:-2]),
        ("--policy", path),
        ("--key", key(node), "--policy", path),
    ):
        alone("ledger", "verify", path, *options, cwd=tmp_path, code=2)
    alone("ledger", "verify", tmp_path / "missing", "--key", key(node), cwd=tmp_path, code=2)
    alone("ledger", "verify", "--key", key(node), cwd=tmp_path, code=2)


def test_what_does_not_hold_is_named_by_its_step(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    entry = next(entry for entry in entries if len(entry["records"]) > 4)
    text = prove(node, entry["records"][0], tmp_path / "one").read_text("utf-8")
    name = key(node).partition("+")[0]
    bad = tmp_path / "bad"
    damaged = {
        "format": text.replace("\nextra ", "\nextra"),
        "checkpoint": text.replace(f"\n\n{name}\n", f"\n\n{name}x\n"),
        "inclusion": text.replace(f"index {entry['index']}", f"index {entry['index'] + 1}"),
    }
    for step, content in damaged.items():
        bad.write_text(content, "utf-8")
        done = alone("ledger", "verify", bad, "--key", key(node), "--json", cwd=tmp_path, code=3)
        told = json.loads(done.stdout)
        assert not told["valid"] and told["step"] == step, told
        assert "NOT VALID" in alone("ledger", "verify", bad, "--key", key(node), cwd=tmp_path, code=3).stdout
    other = checkpoint.Verifier("cairn/other", checkpoint.parse_vkey(key(node)).key).vkey()
    alone("ledger", "verify", tmp_path / "one", "--key", other, cwd=tmp_path, code=3)
    bad.write_bytes(b"\xff\xfe")
    alone("ledger", "verify", bad, "--key", key(node), cwd=tmp_path, code=3)


def test_a_policy_asks_for_the_witnesses_that_it_names(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    witness = Ed25519PrivateKey.generate()
    path = prove(node, entries[0]["id"], tmp_path / "one")
    named = cosignature.cosigner("witness.example", witness.public_key()).vkey()
    policy = tmp_path / "policy"
    policy.write_text(f"log {key(node)}\nwitness w {named}\nquorum w\n")
    told = json.loads(alone("ledger", "verify", path, "--policy", policy, "--json", cwd=tmp_path, code=3).stdout)
    assert told["step"] == "witnesses"
    head, _, note = path.read_text("utf-8").partition("\n\n")
    path.write_text(f"{head}\n\n{cosignature.sign(note, 'witness.example', witness, 1_700_000_000)}", "utf-8")
    told = json.loads(alone("ledger", "verify", path, "--policy", policy, "--json", cwd=tmp_path).stdout)
    assert told["cosigned"] == [{"witness": "witness.example", "time": "2023-11-14T22:13:20.000Z"}]
    assert "Cosigned by witness.example" in alone("ledger", "verify", path, "--policy", policy, cwd=tmp_path).stdout
    policy.write_text("quorum none\n")
    assert "names no log" in alone("ledger", "verify", path, "--policy", policy, cwd=tmp_path, code=2).stderr


def test_ids_that_are_none_and_unknown_ids_are_refused(node: RunningNode, tmp_path: Path) -> None:
    node.cairn("ledger", "prove", "xyz", "--out", str(tmp_path / "x"), code=2)
    done = node.cairn("ledger", "prove", "0" * 64, "--out", str(tmp_path / "x"), "--wait", "0.3", code=1)
    assert "no entry and no record" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_later_proof_and_the_nodes_own_ledger_continue_an_older_one(
    node: RunningNode, entries: list[dict[str, Any]], tmp_path: Path
) -> None:
    first = node.home.parent / "first.tlog-proof"
    assert node.answer("ledger", "verify", "--since", str(first))["findings"] == []
    node.answer("token", "create", "--role", "viewer")
    until = time.monotonic() + 60
    while len(grown := node.answer("ledger", "entries")["entries"]) <= len(entries):
        assert time.monotonic() < until, "the new token was not sealed"
    later = prove(node, grown[-1]["id"], tmp_path / "later")
    check = ("ledger", "verify", later, "--key", key(node))
    alone(*check, "--since", later, cwd=tmp_path)
    # Of different sizes: the node proves that one continues the other.
    assert "consistency proof" in alone(*check, "--since", first, cwd=tmp_path, code=2).stderr
    told = [
        json.loads(alone("ledger", "verify", path, *check[3:], "--json", cwd=tmp_path).stdout)
        for path in (first, later)
    ]
    proof = tmp_path / "consistency"
    with node.http("auditor") as auditor:
        answer = auditor.get("/ledger/consistency", params={"from": told[0]["size"], "to": told[1]["size"]})
    proof.write_bytes(answer.content)
    alone(*check, "--since", first, "--consistency", proof, cwd=tmp_path)
    proof.write_text(json.dumps({"proof": answer.json()["proof"][:-1]}))
    bad = json.loads(
        alone(*check, "--since", first, "--consistency", proof, "--json", cwd=tmp_path, code=3).stdout,
    )
    assert bad["step"] == "consistency"
    proof.write_text("[]")
    alone(*check, "--since", first, "--consistency", proof, cwd=tmp_path, code=2)
