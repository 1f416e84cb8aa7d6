"""`/ledger/stream`: each new entry as a server-sent event (WHATWG HTML section 9.2), until the client or node ends it.

An event's id is the entry's index, so that a client which comes back with Last-Event-ID misses nothing. Opening a
stream is recorded. A stream takes one of few places, and its credential is judged again at each heartbeat.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus

from anyio import CancelScope, WouldBlock, create_task_group, sleep
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bridge.errors import Busy, CairnError, RequestError
from bridge.model import Action
from dicomweb.authentication import authenticate
from dicomweb.exchange import Exchange, refusal
from dicomweb.ledger_api.event_json import described
from dicomweb.resource import arguments
from ledger.event import Event, EventQuery

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.5
HEARTBEAT_POLLS = 30  # a comment every 15 s, as WHATWG HTML section 9.2.7 advises
MOST_AT_ONCE, PAGE = 1000, 200
_RETRY = b"retry: 2000\n\n"
_HEARTBEAT = b":\n\n"

log = logging.getLogger("dicomweb")


def stream(exchange: Exchange) -> Response:
    """New entries as they come, as server-sent events named "entry"; Last-Event-ID resumes after that index.

    A client that missed more than 1,000 entries gets an event "gap" with the range that it must search for instead.
    """
    arguments(exchange.parameters, ())
    last = exchange.headers.get("last-event-id", "").strip()
    if last and not (last.isascii() and last.isdecimal() and len(last) < 19):
        raise RequestError("Last-Event-ID is not the index of an entry")
    exchange.node.access.audited(exchange.actor, "stream")
    newest = exchange.node.audit.search(EventQuery(limit=1))
    after = int(last) if last else newest[0].index if newest else -1
    return EventStream(exchange, after)


class EventStream(Response):
    """The entries above the index `after`, for as long as anybody listens and may."""

    def __init__(self, exchange: Exchange, after: int) -> None:
        super().__init__(None, HTTPStatus.OK, {"cache-control": "no-store", "x-accel-buffering": "no"}, MEDIA_TYPE)
        del self.headers["content-length"]
        self.exchange = exchange
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        places = self.exchange.door.streams
        try:
            places.acquire_on_behalf_of_nowait(self)
        except WouldBlock:
            await refusal(Busy("Too many follow the ledger at once"), self.exchange.headers)(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                async with create_task_group() as group:
                    group.start_soon(_until_gone, receive, group.cancel_scope)
                    await self._write(send)
                    group.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            places.release_on_behalf_of(self)

    async def _write(self, send: Send) -> None:
        """Messages, until the node stops, fails, or no longer lets this actor audit."""
        door, polls = self.exchange.door, 0
        message = _RETRY
        while not self.exchange.node.ending():
            if message:
                await send({"type": "http.response.body", "body": message, "more_body": True})
            try:
                message = await door.read(self._news)
                polls = 0 if message else polls + 1
                if not message:
                    await sleep(POLL_S)
                if polls >= HEARTBEAT_POLLS:
                    message, polls = _HEARTBEAT, 0
                    await door.read(self._judge)
            except CairnError as error:
                log.info("a stream of the ledger was ended", extra={"slug": error.slug})
                return

    def _news(self) -> bytes:
        """What happened since the last message, oldest first."""
        missed, events = since(self.exchange, self.after)
        lines = []
        if missed:
            lines.append(f"event: gap\ndata: {json.dumps({'from': self.after + 1, 'to': events[0].index - 1})}\n\n")
        for event in events:
            text = json.dumps(described(event, self.exchange.origin.url), ensure_ascii=False)
            lines.append(f"id: {event.index}\nevent: entry\ndata: {text}\n\n")
        if events:
            self.after = events[-1].index
        return "".join(lines).encode()

    def _judge(self) -> None:
        """Raise Unauthenticated or Forbidden when the credential was revoked meanwhile."""
        exchange = self.exchange
        actor = authenticate(exchange.node, exchange.method, exchange.headers, exchange.origin)
        exchange.node.authoriser.allow(actor, Action.AUDIT)


def since(exchange: Exchange, after: int) -> tuple[bool, Sequence[Event]]:
    """Whether some were left out, and the newest events above an index, oldest first, at most 1,000."""
    found: list[Event] = []
    limit, before = 1, None  # nearly always there is nothing new, which one row tells
    while len(found) < MOST_AT_ONCE:
        page = exchange.node.audit.search(EventQuery(before=before, limit=limit))
        fresh = [event for event in page if event.index > after]
        found += fresh
        if len(fresh) < limit:
            return False, found[::-1]
        before, limit = fresh[-1].index, min(PAGE, MOST_AT_ONCE - len(found)) or 1
    return found[-1].index > after + 1, found[::-1]


async def _until_gone(receive: Receive, scope: CancelScope) -> None:
    """End the scope when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
