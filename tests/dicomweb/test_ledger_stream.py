"""`/ledger/stream`: server-sent events over a real socket; it resumes, it beats, it ends, and it has few places."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from ledger_in_memory import Ledger, some
from node_in_memory import Client, FakeNode

from bridge import errors
from dicomweb import exchange
from dicomweb.app import create_app
from dicomweb.ledger_api import stream as ledger_stream

AUDITOR = {"authorization": "Bearer auditor"}
PATH = "/ledger/stream"


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    return some().attach(node)


@pytest.fixture
def served(node: FakeNode, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A client of a real server in front of the node, with one place for a stream."""
    monkeypatch.setattr(exchange, "STREAMS", 1)
    monkeypatch.setattr(ledger_stream, "POLL_S", 0.01)
    config = uvicorn.Config(
        create_app(node),  # type: ignore[arg-type]
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", headers=AUDITOR) as client:
            yield client
        node.stopped = server.should_exit = True
        thread.join()


def message(lines: Iterator[str]) -> dict[str, str]:
    """The next message of a stream: its fields, "" for a comment; nothing when the stream has ended."""
    found: dict[str, str] = {}
    for line in lines:
        if not line:
            return found
        name, _, value = line.partition(":")
        found[name] = value.strip()
    return found


def opened(response: httpx.Response) -> Iterator[str]:
    """The lines after the first message, which tells how soon to come back."""
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    lines = response.iter_lines()
    assert message(lines) == {"retry": "2000"}
    return lines


def test_each_new_entry_is_a_message_with_its_index_as_id(served: httpx.Client, node: FakeNode, ledger: Ledger) -> None:
    with served.stream("GET", PATH) as response:
        lines = opened(response)
        for number in (7, 8):
            event = ledger.add("study.query", {"näme": "ü"})
            found = message(lines)
            assert (found["id"], found["event"]) == (str(number), "entry")
            data = json.loads(found["data"])
            assert (data["index"], data["id"]) == (number, event.id.hex())
            assert served.get(data["links"]["self"]).json()["index"] == number
    assert node.recorded[0] == ("audited", "auditor", "stream")


@pytest.mark.parametrize(("last", "indices"), [("3", [4, 5, 6]), ("0", [1, 2, 3, 4, 5, 6])])
def test_last_event_id_resumes_after_that_entry(served: httpx.Client, last: str, indices: list[int]) -> None:
    with served.stream("GET", PATH, headers={"last-event-id": last}) as response:
        lines = opened(response)
        assert [int(message(lines)["id"]) for _ in indices] == indices


def test_pages_of_what_was_missed_leave_nothing_out(served: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_stream, "PAGE", 2)
    with served.stream("GET", PATH, headers={"last-event-id": "0"}) as response:
        lines = opened(response)
        assert [int(message(lines)["id"]) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_who_missed_too_many_is_told_which(served: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_stream, "MOST_AT_ONCE", 3)
    with served.stream("GET", PATH, headers={"last-event-id": "0"}) as response:
        lines = opened(response)
        gap = message(lines)
        assert (gap["event"], json.loads(gap["data"])) == ("gap", {"from": 1, "to": 3})
        assert [int(message(lines)["id"]) for _ in range(3)] == [4, 5, 6]


@pytest.mark.parametrize("last", ["x", "-1", "9" * 20, "１"])
def test_another_last_event_id_is_refused(client: Client, ledger: Ledger, last: str) -> None:
    response = client.get(PATH, headers={"last-event-id": last.encode()})  # type: ignore[dict-item]
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")


def test_a_comment_keeps_the_connection_when_nothing_happens(
    served: httpx.Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_stream, "HEARTBEAT_POLLS", 2)
    with served.stream("GET", PATH) as response:
        lines = opened(response)
        assert [message(lines) for _ in range(3)] == [{"": ""}] * 3
        ledger.add("app.stop")
        while not (found := message(lines)).get("id"):
            assert found == {"": ""}
        assert found["id"] == "7"


def test_a_credential_that_is_revoked_ends_the_stream(
    served: httpx.Client, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_stream, "HEARTBEAT_POLLS", 2)

    def revoked(credential: str, address: str) -> Any:
        raise errors.Unauthenticated("revoked")

    with served.stream("GET", PATH) as response:
        lines = opened(response)
        monkeypatch.setattr(node, "identify", revoked)
        assert [line for line in lines if line.startswith("id")] == []


def test_a_node_that_stops_ends_the_stream(served: httpx.Client, node: FakeNode) -> None:
    with served.stream("GET", PATH) as response:
        lines = opened(response)
        node.stopped = True
        assert list(lines) == []


def test_a_trail_that_fails_ends_the_stream_so_that_the_client_comes_back(
    served: httpx.Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(query: Any) -> Any:
        raise errors.StorageFault("the disk failed")

    with served.stream("GET", PATH) as response:
        lines = opened(response)
        monkeypatch.setattr(ledger.trail, "search", failing)
        assert list(lines) == []


def test_streams_have_so_many_places_and_give_them_back(served: httpx.Client, ledger: Ledger) -> None:
    with served.stream("GET", PATH) as response:
        lines = opened(response)
        with httpx.Client(base_url=served.base_url, headers=AUDITOR) as other:
            refused = other.get(PATH)
        event = ledger.add("app.stop")
        assert message(lines)["id"] == str(event.index)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["type"] == "urn:cairn:problem:busy"
    while (status := _status(served)) == 503:  # the server notices within a poll that the client has gone
        pass
    assert status == 200


def _status(client: httpx.Client) -> int:
    with client.stream("GET", PATH) as response:
        return response.status_code
