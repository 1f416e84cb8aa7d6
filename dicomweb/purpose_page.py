"""`/purpose`: where a person says why, for what is opened in this browser from then on."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qs, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from bridge.errors import BodyTooLarge, CairnError, RequestError, Unauthenticated
from bridge.model import Action
from dicomweb import problems
from dicomweb.authentication import local_path
from dicomweb.exchange import Door, headers_of, refusal
from dicomweb.login import login_needed
from dicomweb.purpose import DEFAULT, PURPOSE_COOKIE, checked, purpose_of
from ledger.types import PURPOSES

CHOSEN_S: Final = 4 * 3600
_MAX_FORM: Final = 8192
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "referrer-policy": "no-referrer",
}
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cairn: purpose of use</title>
<meta name="viewport" content="width=device-width"><style>:root{{color-scheme:light dark}}
body{{font-family:sans-serif;max-width:40em;margin:4em auto;padding:0 1em;line-height:1.5}}
label{{display:block;padding:.3em 0;min-height:24px}}input{{width:24px;height:24px;vertical-align:middle}}
textarea,button{{font:inherit}}textarea{{width:100%;box-sizing:border-box}}button{{padding:.4em 1.5em}}</style>
<main><h1>Why do you look at images?</h1><p>You are {who}. What you open in this browser is recorded with this purpose,
for four hours or until you choose another. Access in an emergency needs a reason, and somebody will review it.</p>
<form method="post"><fieldset><legend>Purpose</legend>{choices}</fieldset>
<label for="reason">Reason</label><textarea id="reason" name="reason" rows="3" maxlength="500">{reason}</textarea>
<p><button>Choose</button></p></form></main></html>
"""


class PurposePage:
    """`/purpose`: GET shows the choices, POST sets the cookie and goes on to `next`, a path of this server."""

    methods = ("GET", "HEAD", "POST")

    def __init__(self, door: Door) -> None:
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["method"] in ("GET", "HEAD"):
            response = await self.door.read(show, self.door, request)
        elif scope["method"] == "POST":
            try:
                response = await self.door.write(choose, self.door, request, await _form(request))
            except BodyTooLarge as error:
                response = refusal(error, headers_of(scope["headers"]))
            except ClientDisconnect:
                return
        else:
            response = problems.method_not_allowed("GET, HEAD, POST")
        await response(scope, receive, send)


def show(door: Door, request: Request) -> Response:
    """The page, with what is chosen now; blocking."""
    headers = headers_of(request.scope["headers"])
    try:
        exchange = door.open(request, Action.RETRIEVE)
    except Unauthenticated as error:
        return login_needed() if "text/html" in headers.get("accept", "") else refusal(error, headers)
    except CairnError as error:
        return refusal(error, headers)
    try:
        now, reason = purpose_of(headers)
    except RequestError:
        now, reason = DEFAULT, None
    choices = "".join(
        f'<label><input type="radio" name="purpose" value="{code}"{" checked" if code == now else ""}> '
        f"{escape(words)} ({code})</label>"
        for code, words in PURPOSES.items()
        if code != "BTG"  # ETREAT is what asks for a reason and a review
    )
    who = escape(f"{exchange.actor.name} ({exchange.actor.role})")
    return HTMLResponse(_PAGE.format(who=who, choices=choices, reason=escape(reason or "")), headers=_HEADERS)


def choose(door: Door, request: Request, form: bytes) -> Response:
    """Set or, for treatment without a reason, remove the cookie; only from this server's own page; blocking."""
    headers = headers_of(request.scope["headers"])
    try:
        exchange = door.open(request, Action.RETRIEVE)
        fields = parse_qs(form.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
        purpose, reason = checked(fields.get("purpose", [DEFAULT])[0], fields.get("reason", [""])[0])
    except ValueError:
        return refusal(RequestError("The form has too many fields"), headers)
    except CairnError as error:
        return refusal(error, headers)
    target = parse_qs(request.scope["query_string"].decode("latin-1")).get("next", [None])[0]
    response = RedirectResponse(
        local_path(target), 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    )
    if (purpose, reason) == (DEFAULT, None):
        response.delete_cookie(PURPOSE_COOKIE, path="/")
    else:
        value = urlencode({"purpose": purpose, "reason": reason or ""})
        response.set_cookie(
            *(PURPOSE_COOKIE, value, CHOSEN_S),
            httponly=True,
            samesite="lax",
            secure=exchange.origin.secure,
            path="/",
        )
    return response


async def _form(request: Request) -> bytes:
    """The body of a small form. Raises BodyTooLarge, ClientDisconnect."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            raise BodyTooLarge(f"The form exceeds {_MAX_FORM} bytes")
    return body
