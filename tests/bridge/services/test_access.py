"""Access is recorded before anything is served, in sessions, and without it nothing is served."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from bridge.errors import AccessNotRecordable, CredentialEnded, Forbidden, StorageFault
from bridge.model import Batch
from bridge.node import Node
from bridge.services import access
from ledger import merkle
from tests.bridge.services.conftest import SENDER, VIEWER, instance, part10, recorded
from tests.bridge.services.test_store import store


@pytest.fixture
def study(node: Node) -> str:
    return store(node, part10(instance(frames=3))).key.study


def records(node: Node) -> int:
    return node.index.counts()["records"]


def test_the_opening_record_is_durable_before_the_viewing_is_given(node: Node, study: str) -> None:
    before = records(node)
    node.access.view(VIEWER, study, "TREAT")
    assert records(node) == before + 1


def test_a_session_is_one_actor_one_study_one_purpose(node: Node, study: str) -> None:
    before = records(node)
    for _ in range(5):
        node.access.view(VIEWER, study, "TREAT")
    assert records(node) == before + 1
    node.access.view(VIEWER, study, "ETREAT", "unconscious")
    node.access.view(SENDER, study, "TREAT")
    assert records(node) == before + 3


def test_many_first_requests_at_once_open_one_session(node: Node, study: str) -> None:
    before = records(node)
    threads = [threading.Thread(target=node.access.view, args=(VIEWER, study, "TREAT")) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert records(node) == before + 1


def test_ten_thousand_frames_become_one_entry_whose_root_accounts_for_each(node: Node, study: str) -> None:
    sop = "1." + "9" * 62
    for number in range(10_000):
        node.access.view(VIEWER, study, "TREAT", "ward round").saw("frame", sop, str(number + 1))
        if number % 2500 == 0:
            node.access.flush()
    node.access.close_all()
    bodies = recorded(node, "study.access")
    opening, details = bodies[0], bodies[1:]
    by = {"kind": "user", "name": "Dr Who", "role": "viewer", "address": "127.0.0.1", "how": "http"}
    assert opening == {"actor": by, "study": study, "purpose": "TREAT", "reason": "ward round", "opens": True}
    seen = [tuple(item) for body in details for item in body["items"]]
    assert sorted(seen) == sorted(("frame", sop, str(number + 1), 1) for number in range(10_000))
    (closed,) = [(root, leaves) for _, root, leaves in node.index.closed_records() if len(leaves) > 1]
    assert merkle.root(closed[1]) == closed[0] and len(closed[1]) == len(bodies)


def test_a_frame_seen_often_is_one_item_with_its_count(node: Node, study: str) -> None:
    viewing = node.access.view(VIEWER, study, "TREAT")
    for number in range(10_000):
        viewing.saw("frame", "1.2.3", str(number % 500 + 1))
    node.access.flush()
    items = [item for body in recorded(node, "study.access")[1:] for item in body["items"]]
    assert len(items) == 500 and all(item[-1] == 20 for item in items)


def test_a_download_that_outlasts_its_session_goes_on_in_the_next(
    node: Node, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewing = node.access.view(VIEWER, study, "TREAT")
    viewing.saw("instance", "1.2.3")
    monkeypatch.setattr(access, "LONGEST_S", -1.0)
    node.access.flush()
    monkeypatch.undo()
    viewing.saw("instance", "1.2.4")
    node.access.close_all()
    bodies = recorded(node, "study.access")
    assert [body.get("opens", body.get("items")) for body in bodies] == [
        True,
        [["instance", "1.2.3", "", 1]],
        True,
        [["instance", "1.2.4", "", 1]],
    ]


def test_what_was_seen_before_a_failed_closing_is_not_lost(
    node: Node, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.access.view(VIEWER, study, "TREAT").saw("instance", "1.2.3")

    def fails(batch: Batch, records: Any) -> Future[None]:
        raise StorageFault("the disk went away")

    monkeypatch.setattr(access, "SLIDING_S", -1.0)
    monkeypatch.setattr(node.index, "append", fails)
    node.access.flush()
    monkeypatch.undo()
    node.access.flush()
    assert [body["items"] for body in recorded(node, "study.access")[1:]] == [[["instance", "1.2.3", "", 1]]]
    assert node.index.open_batches("command") == []


def test_texts_of_any_length_never_keep_access_from_being_recorded(node: Node) -> None:
    for number in range(50):
        node.access.audited(VIEWER, f"{number} " + "\N{GREEK SMALL LETTER ALPHA}" * 20_000)
    node.access.flush()
    items = [item for body in recorded(node, "audit.view") for item in body["items"]]
    assert len(items) == 50 and all(len(item[0]) == access.LONGEST_TEXT for item in items)


def test_a_failed_login_names_a_credential_that_once_held_and_an_ae_title(node: Node) -> None:
    node.access.unrecognised(CredentialEnded("not valid", "revoked", "ab12", "Dr Who"), "10.0.0.7")
    node.access.unrecognised(Forbidden("this AE title may not store from this address"), "10.0.0.8", title="EVIL")
    node.access.flush()
    revoked, stranger = recorded(node, "auth.fail")
    assert revoked["actor"]["name"] == "Dr Who" and revoked["items"] == [["revoked", "ab12", 1]]
    assert (stranger["actor"]["kind"], stranger["actor"]["name"]) == ("device", "EVIL")
    assert stranger["items"] == [["unknown AE title", "this AE title may not store from this address", 1]]


def test_under_attack_refusals_share_one_run(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_REFUSED", 10)
    for number in range(50):
        node.access.refused(None, f"10.0.0.{number}", "unknown token")
    node.access.close_all()
    bodies = recorded(node, "auth.fail")
    assert len(bodies) == 12
    named = {body["actor"]["address"] for body in bodies}
    shared = {item[3] for body in bodies for item in body["items"] if len(item) > 3}
    assert named | shared == {"", *(f"10.0.0.{number}" for number in range(50))}


def test_a_session_that_is_over_is_closed_and_the_next_request_opens_another(
    node: Node, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.access.view(VIEWER, study, "TREAT").saw("instance", "1.2.3")
    closed = node.index.counts()["closed_batches"]
    monkeypatch.setattr(access, "SLIDING_S", -1.0)
    node.access.flush()
    monkeypatch.undo()
    assert node.index.counts()["closed_batches"] == closed + 1
    before = records(node)
    node.access.view(VIEWER, study, "TREAT")
    assert records(node) == before + 1


def test_when_access_cannot_be_recorded_nothing_is_given(
    node: Node, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewing = node.access.view(VIEWER, study, "TREAT")

    def fails(batch: Batch, records: Any) -> Future[None]:
        raise StorageFault("the disk went away")

    monkeypatch.setattr(node.index, "append", fails)
    with pytest.raises(AccessNotRecordable):
        node.access.view(SENDER, study, "TREAT")
    viewing.saw("frame", "1.2.3", "1")
    node.access.flush()
    with pytest.raises(AccessNotRecordable):
        viewing.saw("frame", "1.2.3", "2")
    monkeypatch.undo()
    before = records(node)
    node.access.flush()
    assert records(node) == before + 1  # nothing that was served went unrecorded
    viewing.saw("frame", "1.2.3", "2")


def test_queries_and_refusals_are_recorded_within_a_flush(node: Node) -> None:
    before = records(node)
    node.access.query(VIEWER, "study", ["PatientID", "StudyDate"], 7)
    node.access.audited(VIEWER, "entries")
    node.access.refused(None, "127.0.0.1", "unknown token")
    node.access.refused(VIEWER, "127.0.0.1", "role")
    node.access.flush()
    assert records(node) == before + 4
    (asked,) = recorded(node, "study.query")
    assert asked["items"] == [["study", "PatientID StudyDate", "7", 1]]
    assert [
        body["items"] for kind in ("audit.view", "auth.fail", "access.refused") for body in recorded(node, kind)
    ] == [
        [["entries", 1]],
        [["unknown", "unknown token", 1]],
        [["role", "role", 1]],
    ]


def test_a_session_costs_one_commit_at_its_first_request_and_none_at_the_next(
    node: Node, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended: list[int] = []
    append = node.index.append

    def counted(batch: Batch, records: Any) -> Future[int]:
        appended.append(len(records))
        return append(batch, records)

    monkeypatch.setattr(node.index, "append", counted)
    for number in range(1000):
        node.access.view(VIEWER, study, "TREAT").saw("frame", "1.2.3", str(number))
        if number == 0:
            assert appended == [1]
    node.access.flush()
    assert appended[0] == 1 and len(appended) < 20  # the process's clock flushes too
