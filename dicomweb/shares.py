"""`POST /consortium/shares` for members: the package of a grant to this node, a study key file of version 2."""

from __future__ import annotations

import logging
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bridge.errors import BodyTooLarge, CairnError
from dicomweb import problems
from dicomweb.exchange import Door, refusal

PATH: Final = "/consortium/shares"
LARGEST: Final = 64 << 10
"""Bytes of a package: docs/study-transfer.md."""
log = logging.getLogger("dicomweb")


class TakeShare:
    """The ASGI application of the path: 202 with the state that the grant is in now, 403 for what does not hold, 503
    while the grant is not final here."""

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
            if len(body) > LARGEST:
                raise BodyTooLarge(f"a package has at most {LARGEST} bytes")
            return JSONResponse({"state": exchange.node.accept_share(exchange.actor, body)}, 202)
        except CairnError as error:
            return refusal(error, {})
        except Exception:
            log.exception("unexpected fault in taking a share")
            return problems.internal_error()


async def _body(request: Request) -> bytes:
    """The body; of one that is too long, enough to be told so."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            break
    return bytes(body)
