"""An auditor goes through the console in a real Chromium, over a real node that was stored to and viewed from."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger import checkpoint, proof
from tests.node.instances import PYDICOM, sendable
from tests.node.running_node import RunningNode

HERE = Path(__file__).resolve().parent
NAMES = ("CT_small.dcm", "MR_small.dcm")
SENT = [sent for sent in sendable([PYDICOM]) if sent.file.name in NAMES]
CT = next(sent for sent in SENT if sent.file.name == "CT_small.dcm")


@pytest.fixture
def seen(fresh_node: RunningNode, tmp_path: Path) -> dict[str, Any]:
    """What the way through the console showed."""
    fresh_node.start()
    assert fresh_node.storescu(*(sent.file for sent in SENT)).returncode == 0
    with fresh_node.http("viewer") as client:
        assert client.get(f"/dicom-web{CT.path}/frames/1", headers={"accept": "*/*"}).status_code == 200
        assert client.get("/console/").status_code == 403
    with fresh_node.http("clinician") as client:
        emergency = {"cairn-purpose": "ETREAT", "cairn-reason": "emergency room", "accept": "*/*"}
        assert client.get(f"/dicom-web{CT.path}", headers=emergency).status_code == 200
    # A viewing becomes an entry when its session is over, which the end of the node brings about.
    fresh_node.stop()
    fresh_node.start()
    link = fresh_node.answer("login-link", "--name", "Ada Auditor", "--role", "auditor")["url"]
    pictures = Path(os.environ.get("CAIRN_TEST_PICTURES", str(tmp_path)))
    done = subprocess.run(
        ["node", HERE / "console.mjs", link, f"{fresh_node.url}/console/", CT.study, pictures],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, found
    return found


def test_an_auditor_goes_through_the_console_without_one_error(seen: dict[str, Any], fresh_node: RunningNode) -> None:
    assert "cairn login-link --name WHO --role auditor" in seen["outside"]
    assert seen["afterLogin"] == "/console/"
    for name in ("consoleErrors", "failedRequests", "badAnswers", "foreign", "breaches"):
        assert seen[name] == [], name

    # By keyboard: past the header at once, and never without a visible focus.
    assert (seen["firstStop"], seen["skippedTo"]) == ("Skip to filters and entries", "content")
    assert seen["stops"][:2] == ["Review", "about"]  # an emergency waits for its review
    assert seen["unseenFocus"] == []

    # What was stored and viewed is told.
    assert seen["patientEntries"] >= 3
    assert seen["views"] == 2
    assert "clinician" in seen["sentence"]
    assert "emergency treatment" in seen["sentence"]
    assert "CompressedSamples, CT1 (1CT1)" in seen["sentence"]

    # The browser verifies the proof, as the ledger's own library does with the file that was downloaded.
    assert "Verified in this browser" in seen["verdict"]
    assert "Not verified" in seen["verdictOfAnotherKey"]
    assert seen["downloaded"].endswith(".tlog-proof")
    key = fresh_node.answer("ledger", "key")["key"]
    assert seen["key"] == key
    verifier = checkpoint.parse_vkey(key)
    shown = proof.verify(
        Path(seen["proof"]).read_text("utf-8"), verifier.name, Ed25519PublicKey.from_public_bytes(verifier.key)
    )
    assert shown.entry.type.startswith("study.")

    # Light and dark, wide and narrow.
    assert seen["accessibility"] == {}
    assert seen["sizes"] == {}

    # Without script.
    assert seen["plainRows"] >= 6
    assert seen["plainButtonHidden"]

    # All of it was recorded.
    fresh_node.stop()
    fresh_node.start()
    with fresh_node.http("auditor") as client:
        found = recorded(client)
        details = client.get(f"/ledger/entries/{found['id']}").json()["details"]
    items = [item[0] for detail in details for item in detail["body"]["items"]]
    pages = {"timeline", "health", "storage", "alerts", "emergencies", f"study {CT.study}", f"content {CT.study}"}
    assert pages <= set(items)


def recorded(client: httpx.Client) -> dict[str, Any]:
    """The one entry of the auditor's readings, as soon as the audit trail has followed the ledger."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = client.get("/ledger/entries", params={"type": "audit.view", "actor": "Ada Auditor"})
        if found := answer.json()["entries"]:
            assert len(found) == 1
            entry: dict[str, Any] = found[0]
            return entry
        time.sleep(0.1)
    raise AssertionError("no reading was recorded")
