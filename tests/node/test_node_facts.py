"""Every kind of fact is recorded where it happens: driven at a real node's doors, read back with its keys."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import config
from bridge.offline import opened
from tests.bridge.services.conftest import recorded
from tests.node.instances import DICOM_ANY, HIGHDICOM, Sent, sendable, stow
from tests.node.running_node import RunningNode

SENT = sendable([HIGHDICOM])
CT = next(sent for sent in SENT if sent.file.name == "ct_image.dcm")
OTHER = next(sent for sent in SENT if sent.path.split("/")[2] != CT.path.split("/")[2])
STUDY = CT.path.split("/")[2]
JSON = {"accept": "application/dicom+json"}
SEEN_S = 30.0


@contextmanager
def facts(node: RunningNode) -> Iterator[Any]:
    """kind -> the bodies of its records, of a node that has stopped."""
    settings, _ = config.load(None, {**node.environment(), "CAIRN_CONFIG": ""})
    with opened(settings, create=False) as stores:
        yield lambda kind: recorded(stores, kind)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def look(client: httpx.Client, sent: Sent, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"/dicom-web{sent.path}", headers={"accept": DICOM_ANY, **named}).status_code


@pytest.fixture
def known_peers(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text('[[dimse.peers]]\nae_title = "KNOWN"\nhost = "127.0.0.1"\nport = 104\nallow = ["store"]\n')
    return file


def test_every_kind_of_fact_is_recorded_where_it_happens(
    fresh_node: RunningNode, known_peers: Path, tmp_path: Path
) -> None:
    node = fresh_node
    node.settings["CAIRN_CONFIG"] = str(known_peers)
    node.start()
    with node.http("clinician") as clinician:
        for _ in range(2):
            assert stow(clinician, [CT.file.read_bytes()]).status_code == 200
    node.answer("import", str(OTHER.file))
    with node.http("viewer") as viewer:
        assert look(viewer, CT, cairn_purpose="ETREAT", cairn_reason="unconscious") == 200
        assert look(viewer, CT, cairn_purpose="ETREAT") == 400
        assert viewer.get("/dicom-web/studies?PatientName=Doe*&StudyDate=20200101-", headers=JSON).status_code < 300
        assert stow(viewer, [CT.file.read_bytes()]).status_code == 403
    assert "Rejected" in node.storescu(CT.file).stdout
    leaver = node.answer("token", "create", "--role", "viewer", "--name", "leaver")
    node.answer("token", "revoke", "leaver")
    link = node.answer("login-link", "--role", "viewer", "--name", "guest")["url"]
    with node.http(None) as client:
        assert client.get("/dicom-web/studies", headers=bearer(leaver["token"])).status_code == 401
        assert client.get("/dicom-web/studies", headers=bearer("cairn_" + "x" * 43)).status_code == 401
        assert client.get(link).status_code == 303
        assert client.get(link).status_code == 401
    node.answer("ledger", "entries")
    node.answer("backup", str(tmp_path / "backup"))
    assert node.stop() == 0, node.printed()

    with facts(node) as of:
        assert [body["outcome"] for body in of("study.store")] == ["new", "again"]
        assert [body["outcome"] for body in of("study.import")] == ["new"]
        opening, details = of("study.access")
        assert (opening["study"], opening["purpose"], opening["reason"]) == (STUDY, "ETREAT", "unconscious")
        assert (opening["actor"]["name"], opening["actor"]["address"], opening["actor"]["how"]) == (
            *("viewer", "127.0.0.1", "http"),
        )
        assert details["items"] == [["instance", CT.path.rsplit("/", 1)[1], "", 1]]
        (asked,) = of("study.query")
        assert asked["items"][0][:2] == ["study", "PatientName StudyDate"] and "Doe" not in str(asked)
        assert [body["actor"]["name"] for body in of("access.refused")] == ["viewer"]
        failures = {body["actor"]["name"]: body["items"] for body in of("auth.fail")}
        assert failures["leaver"] == [["revoked", leaver["id"], 1]]
        assert sum(item[-1] for item in failures["unknown"]) == 2
        assert failures["TESTER"] == [["unknown AE title", "this AE title may not store from this address", 1]]
        administered = [(body["did"], body["name"]) for body in of("admin.token")]
        assert {("created", "leaver"), ("revoked", "leaver"), ("login link", "guest")} <= set(administered)
        (made,) = of("admin.key")
        assert made["did"] == "created" and len(made["signing"]) == 32
        (started,) = of("app.start")
        assert {"web-0", "ledger-0", "dimse-0"} <= set(started["processes"]) and started["version"]
        assert "KNOWN" in started["settings"]["dimse.peers"]
        assert len(of("app.stop")) == 1 and of("config.change") == []
        assert of("audit.view")[0]["items"] == [["ledger-entries", 1]]
        (copied,) = of("archive.export")
        assert copied["path"] == str(tmp_path / "backup") and copied["content"] is True


def test_alerts_are_raised_once_listed_reviewed_and_told_over_starts(fresh_node: RunningNode) -> None:
    node = fresh_node
    node.settings |= {"CAIRN_ALERTS__FAILED_LOGINS": "3"}
    node.start()
    with node.http("clinician") as clinician:
        assert stow(clinician, [CT.file.read_bytes()]).status_code == 200
    with node.http("viewer") as viewer:
        assert look(viewer, CT, cairn_purpose="ETREAT", cairn_reason="unconscious") == 200
    with node.http(None) as client:
        for _ in range(4):
            assert client.get("/dicom-web/studies", headers=bearer("wrong")).status_code == 401
    assert node.stop() == 0
    told = node.answer("ledger", "alerts")
    assert [alert["rule"] for alert in told["alerts"]] == ["failed-logins"]
    (waiting,) = told["unreviewed"]
    assert "break-glass" in waiting["what"] and "unconscious" in waiting["what"]
    assert node.answer("ledger", "alerts", "--since", "0s")["alerts"] == []
    node.cairn("ledger", "review", "ab" * 32, "--note", "x", code=1)
    node.cairn("ledger", "review", waiting["id"], "--note", " ", code=1)
    node.answer("ledger", "review", waiting["id"], "--note", "the patient was in shock")

    node.settings |= {"CAIRN_WEB__QUERY_LIMIT": "500"}
    for _ in range(2):  # it is not raised again by another start
        node.start()
        until = time.monotonic() + SEEN_S
        while "security.alert" not in [entry["type"] for entry in node.answer("ledger", "entries")["entries"]]:
            assert time.monotonic() < until, node.printed()
        assert node.answer("ledger", "alerts")["unreviewed"] == []
        assert node.stop() == 0
    with facts(node) as of:
        (alert,) = of("security.alert")
        assert (alert["rule"], alert["severity"]) == ("failed-logins", 4) and len(alert["entries"]) == 1
        (review,) = of("audit.review")
        assert review["entry"].hex() == waiting["id"] and review["note"] == "the patient was in shock"
        (change,) = of("config.change")
        assert change["changes"] == [{"setting": "web.query_limit", "from": "the default", "to": "500"}]
        assert len(of("app.start")) == 3 and len(of("admin.key")) == 1
    assert node.answer("ledger", "verify")["findings"] == []
