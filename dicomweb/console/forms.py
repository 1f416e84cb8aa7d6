"""What the console's forms change: studies are shared and taken back, emergencies reviewed, changes put to the vote.

By administrators alone, from this server's own pages (`Door.write` refuses a request that another site makes).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from bridge.errors import BodyTooLarge, CairnError, NotFound, RequestError, Unauthenticated
from bridge.model import Action
from dicomweb import problems
from dicomweb.console import consortium, emergencies, page, proposals, sharing
from dicomweb.console.html import Html, path
from dicomweb.exchange import Door, Exchange, headers_of, refusal
from dicomweb.node import Membership

log = logging.getLogger("dicomweb")
_MAX_FORM: Final = 32 << 10  # a card, percent-encoded, and little besides
_HEADERS: Final = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
Fields = Mapping[str, str]


def grant(exchange: Exchange, fields: Fields) -> str:
    """Share a study; the way to its page. Raises NotFound, RequestError."""
    study = fields.get("study", "")
    membership = _membership(exchange)
    expires = fields.get("expires") or None
    membership.grant(exchange.actor, study, fields.get("to", ""), fields.get("purpose", ""), expires)
    return path("console", "studies", study) + "#sharing"


def revoke(exchange: Exchange, fields: Fields) -> str | Html:
    """Revoke a grant, once that is sure; the way to the list. Raises NotFound, RequestError."""
    membership, grant = _membership(exchange), _id(fields.get("grant", "")).hex()
    if fields.get("sure") != "yes":
        return sharing.sure(exchange, grant)
    membership.revoke(exchange.actor, grant)
    return sharing.SECTION


def vote(exchange: Exchange, fields: Fields) -> str:
    """Vote on a proposal; the way to the consortium. Raises NotFound, RequestError."""
    if fields.get("vote") not in ("yes", "no"):
        raise RequestError("a vote is yes or no")
    proposal = _id(fields.get("proposal", ""))
    final = _membership(exchange).vote(exchange.actor, proposal, fields["vote"] == "yes")
    return f"{consortium.SECTION}#p-{proposal.hex()[:16]}" if final else f"{consortium.SECTION}?sent=vote"


def _membership(exchange: Exchange) -> Membership:
    if exchange.node.membership is None:
        raise NotFound("this node is in no consortium")
    return exchange.node.membership


def _id(given: str) -> bytes:
    if len(given) != 64 or any(digit not in "0123456789abcdef" for digit in given):
        raise RequestError("an entry's id has 64 hexadecimal digits")
    return bytes.fromhex(given)


@dataclass(frozen=True, slots=True)
class _Visitor:
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Form:
    """What is done with a form: `act` gives the way on, or a whole page; `back` leads to where it is filled in."""

    act: Callable[[Exchange, Fields], str | Html]
    back: str


class ConsoleForm:
    """The ASGI application that takes one form: POST, from this server's own pages or with a token."""

    methods = ("POST",)

    def __init__(self, door: Door, form: Form) -> None:
        self.door = door
        self.form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["method"] != "POST":
            response: Response = problems.method_not_allowed("POST")
        else:
            try:
                response = await self.door.write(self._answer, request, await _body(request))
            except BodyTooLarge as error:
                response = refusal(error, headers_of(scope["headers"]))
            except ClientDisconnect:
                return
        await response(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        headers = headers_of(request.scope["headers"])
        try:
            exchange = self.door.open(request, Action.ADMINISTER)
            done = self.form.act(exchange, _fields(body))
            if isinstance(done, Html):
                return page.answer(_Visitor(), done)
            return RedirectResponse(done, 303, _HEADERS)
        except CairnError as error:
            if "text/html" not in headers.get("accept", ""):
                return refusal(error, headers)
            if isinstance(error, Unauthenticated):
                return page.login_needed(_Visitor(), error)
            refusal(error, headers)  # which logs what an operator must hear of
            return page.refused(_Visitor(), error, self.form.back)
        except Exception:
            log.exception("unexpected fault in a form of the console")
            return problems.internal_error()


def _fields(body: bytes) -> Fields:
    try:
        found = parse_qs(body.decode("utf-8"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        raise RequestError("the form cannot be read") from None
    return {name: values[0].strip() for name, values in found.items()}


async def _body(request: Request) -> bytes:
    """The body of a small form. Raises BodyTooLarge, ClientDisconnect."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            raise BodyTooLarge(f"The form exceeds {_MAX_FORM} bytes")
    return body


FORMS: Final[Mapping[str, Form]] = {
    sharing.GRANTS: Form(grant, sharing.SECTION),
    sharing.REVOCATIONS: Form(revoke, sharing.SECTION),
    consortium.VOTES: Form(vote, consortium.SECTION),
    emergencies.REVIEWS: Form(emergencies.review, emergencies.SECTION),
    proposals.CHECKS: Form(proposals.check, proposals.SECTION),
    proposals.PROPOSALS: Form(proposals.propose, proposals.SECTION),
}
"""What is done with each form, by the path that it is sent to."""
