"""Access is recorded before anything is served, in sessions, and without it nothing is served."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from bridge.errors import AccessNotRecordable, StorageFault
from bridge.model import Batch
from bridge.node import Node
from bridge.services import access
from tests.bridge.services.conftest import SENDER, VIEWER, instance, part10
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


def test_ten_thousand_frames_become_few_records_that_account_for_each(node: Node, study: str) -> None:
    viewing = node.access.view(VIEWER, study, "TREAT")
    before = records(node)
    for number in range(10_000):
        viewing.saw("frame", "1.2.3", str(number % 500 + 1))
    node.access.flush()
    assert records(node) == before + 3  # 500 different frames, 200 to a record


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
    node.access.query(VIEWER, "studies")
    node.access.refused(None, "127.0.0.1", "unknown token")
    node.access.refused(VIEWER, "127.0.0.1", "role")
    node.access.flush()
    assert records(node) == before + 3
