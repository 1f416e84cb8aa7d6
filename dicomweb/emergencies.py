"""Breaking the glass across hospitals over HTTP.

`POST /api/emergencies?of=MEMBER&study=UID` for clinicians, with `Cairn-Purpose: ETREAT` and a `Cairn-Reason`; and
`POST /consortium/emergencies` for members, by which the one that broke the glass says for which study, and why.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from bridge.errors import BodyTooLarge, CairnError, Forbidden, RequestError
from bridge.model import Action, Role
from dicomweb import problems
from dicomweb.exchange import Door, Exchange, refusal
from dicomweb.media_types import JSON
from dicomweb.purpose import checked
from dicomweb.resource import Parameter, Resource, Transaction, arguments
from ledger.types import EMERGENCY

ROOT: Final = "/api"
MEMBERS_PATH: Final = "/consortium/emergencies"
LARGEST: Final = 8 << 10
log = logging.getLogger("dicomweb")
PARAMETERS: Final = (
    Parameter("of", "The member whose study it is.", {"type": "string"}, required=True),
    Parameter("study", "Its Study Instance UID, or its tag at that member.", {"type": "string"}, required=True),
)


def break_glass(exchange: Exchange) -> Response:
    """Take another hospital's study in an emergency: it comes within seconds where that hospital's policy lets it.

    `202 {"emergency": id}`: recorded on the ledger, alerted at both hospitals, to be reviewed at both.
    """
    told = arguments(exchange.parameters, PARAMETERS)
    code, why = checked(exchange.headers.get("cairn-purpose", ""), exchange.headers.get("cairn-reason", ""))
    if exchange.actor.role not in (Role.CLINICIAN, Role.ADMIN):
        raise Forbidden("breaking the glass is for clinicians and administrators")
    if code != EMERGENCY or why is None:
        raise RequestError("breaking the glass needs Cairn-Purpose: ETREAT and a Cairn-Reason")
    entry = exchange.node.break_glass(exchange.actor, told["of"][0], told["study"][0], why)
    return JSONResponse({"emergency": entry}, 202, {"cache-control": "no-store"})


RESOURCES: Final = (
    Resource("/emergencies", {"POST": Transaction("emergency", break_glass, Action.STORE, PARAMETERS, (JSON,))}),
)


class TakeEmergency:
    """The ASGI application of the members' path: 202 when the study's key is on its way, 403 for what does not hold,
    404 where the study is not held, 503 while the entry is not final here."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        if scope["method"] != "POST":
            response = problems.method_not_allowed("POST")
        else:
            request = Request(scope, receive)
            body = bytearray()
            try:
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > LARGEST:
                        break
            except ClientDisconnect:
                return
            response = await self._door.write(self._answer, request, bytes(body))
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        try:
            exchange = self._door.open(request, None)
            if len(body) > LARGEST:
                raise BodyTooLarge(f"a request has at most {LARGEST} bytes")
            try:
                asked = json.loads(body)
            except ValueError:
                raise RequestError("the request is no JSON") from None
            exchange.node.accept_emergency(exchange.actor, asked)
            return JSONResponse({}, 202)
        except CairnError as error:
            return refusal(error, {})
        except Exception:
            log.exception("unexpected fault in taking an emergency")
            return problems.internal_error()
