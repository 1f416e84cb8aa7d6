"""What members post to each other's listener: a small body, read whole before the door lets it in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from anyio import fail_after
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bridge.errors import Busy, CairnError
from dicomweb import problems
from dicomweb.exchange import Door, Exchange, refusal

log = logging.getLogger("dicomweb")
BODY_S: Final = 30.0
"""Seconds within which a body, of some kilobytes, must be there."""
AT_ONCE: Final = 200.0
A_SECOND: Final = 20.0
"""Posts of one member to one path: more would keep the others' waiting for the threads that write."""
Answer = Callable[[Exchange, bytes], Response]


class Allowance:
    """How much each member may post: so many at once, and so many a second after that. Pure; for one thread."""

    def __init__(self) -> None:
        self._left: dict[str | None, tuple[float, float]] = {}

    def takes(self, member: str | None, now: float) -> bool:
        """Whether a post of a member is taken at `now` (seconds)."""
        left, at = self._left.get(member, (AT_ONCE, now))
        left = min(AT_ONCE, left + (now - at) * A_SECOND)
        self._left[member] = (left - 1.0, now) if left >= 1.0 else (left, now)
        return left >= 1.0


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
        self._allowance = Allowance()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        if scope["method"] != "POST":
            response = problems.method_not_allowed("POST")
        else:
            request = Request(scope, receive)
            try:
                with fail_after(BODY_S):
                    body = await self._body(request)
            except ClientDisconnect:
                return
            except TimeoutError:
                response = problems.problem(
                    *(408, "slow-body", f"The body did not come within {BODY_S:.0f} seconds.", "Send it faster."),
                    {"connection": "close"},
                )
            else:
                response = await self._admitted(request, body)
        await response(scope, receive, send)

    async def _admitted(self, request: Request, body: bytes) -> Response:
        if self._allowance.takes(request.scope.get("state", {}).get("member"), time.monotonic()):
            return await self._door.write(self._answer, request, body)
        return refusal(Busy("this member posts too much at a time"), {})

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
