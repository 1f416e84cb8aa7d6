"""What members post to each other's listener: a small body, read whole before the door lets it in."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bridge.errors import CairnError
from dicomweb import problems
from dicomweb.exchange import Door, Exchange, refusal

log = logging.getLogger("dicomweb")
Answer = Callable[[Exchange, bytes], Response]


class Post:
    """The ASGI application of a path that takes POST alone. The door authenticates before anything is judged.

    Parameters
    ----------
    answer
        What is done with the body; runs in a thread. What it raises of the house's errors is told as a problem. Of a
        body of more than `largest` bytes it gets enough to see that.
    """

    def __init__(self, door: Door, largest: int, answer: Answer) -> None:
        self._door, self._largest, self._judge = door, largest, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        if scope["method"] != "POST":
            response = problems.method_not_allowed("POST")
        else:
            request = Request(scope, receive)
            try:
                body = await self._body(request)
            except ClientDisconnect:
                return
            response = await self._door.write(self._answer, request, body)
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        try:
            return self._judge(self._door.open(request, None), body)
        except CairnError as error:
            return refusal(error, {})
        except Exception:
            log.exception("unexpected fault in what a member posted")
            return problems.internal_error()

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._largest:
                break
        return bytes(body)
