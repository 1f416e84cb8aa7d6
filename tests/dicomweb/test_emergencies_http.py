"""Breaking the glass over HTTP: who may, what must be said; and what members ask on their own listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from node_in_memory import Client, FakeNode

from bridge import errors
from dicomweb.members import create_app

ASKED = "/api/emergencies?of=h0&study=1.2.3"
WHY = {"cairn-purpose": "ETREAT", "cairn-reason": "unconscious patient"}
MEMBERS = "/consortium/emergencies"


@pytest.fixture
def broken(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the node was asked for."""
    seen: list[tuple[Any, ...]] = []

    def break_glass(actor: Any, member: str, study: str, reason: str) -> str:
        seen.append((actor.name, member, study, reason))
        return "ab" * 32

    monkeypatch.setattr(node, "break_glass", break_glass, raising=False)
    return seen


@pytest.mark.parametrize("role", ["clinician", "admin"])
def test_a_clinician_breaks_the_glass_with_purpose_and_reason(
    anonymous: Client, broken: list[tuple[Any, ...]], role: str
) -> None:
    answer = anonymous.post(ASKED, headers={"authorization": f"Bearer {role}", **WHY})
    assert (answer.status_code, answer.json()) == (202, {"emergency": "ab" * 32})
    assert broken == [(role, "h0", "1.2.3", "unconscious patient")]


@pytest.mark.parametrize("role", ["viewer", "device", "auditor"])
def test_nobody_else_may(anonymous: Client, broken: list[tuple[Any, ...]], role: str) -> None:
    assert anonymous.post(ASKED, headers={"authorization": f"Bearer {role}", **WHY}).status_code == 403
    assert anonymous.post(ASKED, headers=WHY).status_code == 401
    assert broken == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (ASKED, {}),
        (ASKED, {"cairn-purpose": "TREAT", "cairn-reason": "why"}),
        (ASKED, {"cairn-purpose": "ETREAT"}),
        ("/api/emergencies?of=h0", WHY),
        ("/api/emergencies?study=1.2.3", WHY),
        (ASKED + "&more=1", WHY),
    ],
)
def test_what_is_not_whole_is_refused(
    client: Client, broken: list[tuple[Any, ...]], path: str, headers: dict[str, str]
) -> None:
    assert client.post(path, headers=headers).status_code == 400
    assert broken == []


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ({"cairn-reason": "why"}, "Cairn-Purpose is missing"),
        ({"cairn-purpose": "ETREAT", "cairn-reason": " "}, "Cairn-Reason is missing"),
        ({}, "Cairn-Purpose and Cairn-Reason are missing"),
        ({"cairn-purpose": "TREAT", "cairn-reason": "why"}, "TREAT is another purpose"),
        ({"cairn-purpose": "emergency", "cairn-reason": "why"}, "not an HL7 purpose of use code"),
    ],
)
def test_what_is_missing_is_named_with_the_codes_that_there_are(
    client: Client, broken: list[tuple[Any, ...]], left: dict[str, str], words: str
) -> None:
    detail = client.post(ASKED, headers=left).json()["detail"]
    assert words in detail and "ETREAT (emergency treatment (break-glass))" in detail and "TREAT (treatment)" in detail
    assert broken == []


@pytest.fixture
def members(node: FakeNode, portal: BlockingPortal) -> Iterator[Client]:
    """The members' listener, over a connection of h1."""
    app = create_app(node)  # type: ignore[arg-type]

    async def with_member(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {"member": "h1"}}, receive, send)

    made = Client(portal, with_member)
    yield made
    portal.call(made.http.aclose)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 202),
        (errors.Forbidden("not so"), 403),
        (errors.NotFound("no such study"), 404),
        (errors.Busy("not final yet"), 503),
        (errors.RequestError("no such request"), 400),
        (RuntimeError("a bug"), 500),
    ],
)
def test_a_member_is_answered_by_what_holds(
    node: FakeNode, members: Client, monkeypatch: pytest.MonkeyPatch, error: Exception | None, status: int
) -> None:
    seen: list[tuple[str, object]] = []

    def accept(actor: Any, asked: object) -> None:
        seen.append((actor.name, asked))
        if error is not None:
            raise error

    monkeypatch.setattr(node, "accept_emergency", accept, raising=False)
    monkeypatch.setattr(node, "allow", lambda actor, action: None)
    assert members.post(MEMBERS, json={"entry": "00"}).status_code == status
    assert seen == [("h1", {"entry": "00"})]


def test_a_members_request_is_small_json(node: FakeNode, members: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "accept_emergency", lambda actor, asked: None, raising=False)
    monkeypatch.setattr(node, "allow", lambda actor, action: None)
    assert members.post(MEMBERS, content=b"<xml>").status_code == 400
    assert members.post(MEMBERS, content=b" " * 9000).status_code == 413
    assert members.get(MEMBERS).status_code == 405


def test_members_ask_what_they_are_to_keep(node: FakeNode, members: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def wanted(member: str, after: int) -> dict[str, object]:
        asked.append((member, after))
        return {"replicas": []}

    monkeypatch.setattr(node, "replicas_wanted", wanted, raising=False)
    monkeypatch.setattr(node, "allow", lambda actor, action: None)
    assert members.get("/consortium/replicas").json() == {"replicas": []}
    assert members.get("/consortium/replicas?after=17").status_code == 200
    assert asked == [("h1", 0), ("h1", 17)]
    for wrong in ("after=-1", "after=x", "before=1", "after=1&after=2"):
        assert members.get(f"/consortium/replicas?{wrong}").status_code == 400
