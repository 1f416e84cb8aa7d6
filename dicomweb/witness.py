"""`POST /witness/add-checkpoint` for members: this node cosigns their checkpoints (C2SP tlog-witness v1.0)."""

from __future__ import annotations

import logging
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bridge.errors import CairnError
from dicomweb import problems
from dicomweb.exchange import Door, refusal
from ledger.witness import MAX_REQUEST, TEXT, Answer

PATH: Final = "/witness/add-checkpoint"
log = logging.getLogger("dicomweb")


class AddCheckpoint:
    """The ASGI application of the path. Requests are authenticated by the door before they are judged."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        if scope["method"] != "POST":
            response = problems.method_not_allowed("POST")
        else:
            request = Request(scope, receive)
            try:
                body = await _body(request)
            except ClientDisconnect:
                return
            response = await self._door.write(self._answer, request, body)
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        try:
            exchange = self._door.open(request, None)
            witnessing = exchange.node.witnessing
            if witnessing is None:
                return _plain(Answer(404, TEXT, "no log is witnessed here\n"))
            return _plain(witnessing.add_checkpoint(exchange.actor.name, body))
        except CairnError as error:
            return refusal(error, {})
        except Exception:
            log.exception("unexpected fault in add-checkpoint")
            return problems.internal_error()


def _plain(answer: Answer) -> Response:
    # Starlette would append a charset to the media type, which the specification does not have.
    return Response(answer.body, answer.status, {"content-type": answer.type})


async def _body(request: Request) -> bytes:
    """The body; of one that is too long, enough to be told so."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST:
            break
    return bytes(body)
