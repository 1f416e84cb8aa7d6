"""Breaking the glass across hospitals over HTTP.

`POST /api/emergencies?of=MEMBER&study=UID` for clinicians, with `Cairn-Purpose: ETREAT` and a `Cairn-Reason`; and
`POST /consortium/emergencies` for members, by which the one that broke the glass says for which study, and why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from starlette.responses import JSONResponse, Response

from bridge.errors import BodyTooLarge, Forbidden, RequestError
from bridge.model import Action, Role
from dicomweb.exchange import Exchange
from dicomweb.media_types import JSON
from dicomweb.purpose import CODES, checked
from dicomweb.resource import Parameter, Resource, Transaction, arguments
from ledger.types import EMERGENCY

ROOT: Final = "/api"
MEMBERS_PATH: Final = "/consortium/emergencies"
LARGEST: Final = 8 << 10
PARAMETERS: Final = (
    Parameter("of", "The member whose study it is.", {"type": "string"}, required=True),
    Parameter("study", "Its Study Instance UID, or its tag at that member.", {"type": "string"}, required=True),
)


def break_glass(exchange: Exchange) -> Response:
    """Take another hospital's study in an emergency: it comes within seconds where that hospital's policy lets it.

    `202 {"emergency": id}`: recorded on the ledger, alerted at both hospitals, to be reviewed at both.
    """
    told = arguments(exchange.parameters, PARAMETERS)
    if exchange.actor.role not in (Role.CLINICIAN, Role.ADMIN):
        raise Forbidden("breaking the glass is for clinicians and administrators")
    why = _reason(exchange.headers)
    entry = exchange.node.break_glass(exchange.actor, told["of"][0], told["study"][0], why)
    return JSONResponse({"emergency": entry}, 202, {"cache-control": "no-store"})


def _reason(headers: Mapping[str, str]) -> str:
    """Why the glass is broken. Raises RequestError that names the header which is missing or says something else."""
    missing = [name for name in ("Cairn-Purpose", "Cairn-Reason") if not headers.get(name.lower(), "").strip()]
    needs = f"breaking the glass needs Cairn-Purpose: {EMERGENCY}, and why in Cairn-Reason"
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise RequestError(f"{' and '.join(missing)} {verb} missing: {needs}; purposes are {CODES}")
    code, why = checked(headers["cairn-purpose"], headers["cairn-reason"])
    if code != EMERGENCY or why is None:
        raise RequestError(f"{needs}; {code} is another purpose of {CODES}")
    return why


RESOURCES: Final = (
    Resource("/emergencies", {"POST": Transaction("emergency", break_glass, Action.STORE, PARAMETERS, (JSON,))}),
)


def take(exchange: Exchange, body: bytes) -> Response:
    """For members: 202 when the study's key is on its way, 403 for what does not hold, 404 where the study is not held,
    503 while the entry is not final here."""
    if len(body) > LARGEST:
        raise BodyTooLarge(f"a request has at most {LARGEST} bytes")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("the request is no JSON") from None
    exchange.node.accept_emergency(exchange.actor, asked)
    return JSONResponse({}, 202)
