"""What members post: read whole within bounds of size, time and number, one member's apart from another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from node_in_memory import FakeNode
from starlette.responses import JSONResponse, Response

from dicomweb import posting
from dicomweb.exchange import Door, Exchange
from dicomweb.members import MembersDoor
from dicomweb.posting import AT_ONCE, Allowance, Post

LARGEST = 100


def posted(post: Post, chunks: Iterator[bytes | None], member: str | None = "north") -> tuple[int, Any, bool]:
    """Status, body and whether the connection is to be closed; None among the chunks: nothing more ever comes."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        chunk = next(chunks, b"")
        if chunk is None:
            await anyio.sleep_forever()
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "headers": [],
        "query_string": b"",
        "path_params": {},
        "client": ("192.0.2.7", 1),
        "state": {"member": member},
    }

    async def ask() -> None:
        await post(scope, receive, send)  # type: ignore[arg-type]

    anyio.run(ask)
    start, body = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    return start["status"], json.loads(body), (b"connection", b"close") in start["headers"]


@pytest.fixture
def post() -> Post:
    def judge(exchange: Exchange, body: bytes) -> Response:
        return JSONResponse({"of": exchange.actor.name, "bytes": len(body)})

    door: Door = MembersDoor(FakeNode())  # type: ignore[arg-type]
    return Post(door, LARGEST, judge)


def test_a_body_is_judged_when_it_is_whole(post: Post) -> None:
    assert posted(post, iter([b"1" * 40, b"2" * 40])) == (200, {"of": "north", "bytes": 80}, False)
    assert posted(post, iter([])) == (200, {"of": "north", "bytes": 0}, False)


def test_no_more_is_read_than_shows_that_it_is_too_large(post: Post) -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield b"x" * 60

    assert posted(post, endless())[1] == {"of": "north", "bytes": 120}
    assert len(read) == 2


def test_a_body_that_does_not_come_is_given_up_and_the_connection_with_it(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "BODY_S", 0.05)
    status, problem, closes = posted(post, iter([b"1", None]))
    assert (status, problem["type"], closes) == (408, "urn:cairn:problem:slow-body", True)
    assert posted(post, iter([b"1"]))[0] == 200


def test_a_member_that_floods_is_told_to_wait_and_the_others_are_not(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "A_SECOND", 0.0)
    statuses = [posted(post, iter([b"1"]))[0] for _ in range(int(AT_ONCE) + 3)]
    assert statuses == [200] * int(AT_ONCE) + [503] * 3
    assert posted(post, iter([b"1"]), "south")[0] == 200


def test_nobody_is_answered_who_is_no_member(post: Post) -> None:
    assert posted(post, iter([b"1"]), None)[0] == 401


def test_what_was_used_up_comes_back_with_time() -> None:
    allowance = Allowance()
    assert sum(allowance.takes("north", 0.0) for _ in range(1_000)) == 200
    assert sum(allowance.takes("north", 1.0) for _ in range(1_000)) == 20
    assert sum(allowance.takes("north", 1_000.0) for _ in range(1_000)) == 200
