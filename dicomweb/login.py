"""Login links: `GET /login?token=...` buys a session cookie, once (DESIGN section 8)."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from bridge.errors import CairnError, Unauthenticated
from dicomweb import problems
from dicomweb.authentication import local_path, session_cookie
from dicomweb.exchange import Door, headers_of, refusal

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cairn: login needed</title>
<body style="font-family:sans-serif;max-width:40em;margin:4em auto;line-height:1.5"><h1>Login needed</h1><p>{cause}</p>
<p>Ask for a login link, or make one where the node runs, and open it in this browser within ten minutes:</p>
<pre>cairn login-link --name WHO --role viewer</pre></body></html>
"""
_CAUSES = {
    "missing": "This page needs a login.",
    "refused": "This login link was used before, has expired, or was never given out.",
}


def login(door: Door, request: Request) -> Response:
    """Redeem a link's token, set the session cookie and go on to `next`, a path of this server; blocking."""
    if request.method == "HEAD":  # a link checker must not use up the link
        return Response(headers={"cache-control": "no-store"})
    headers = headers_of(request.scope["headers"])
    origin = door.origin(request, headers)
    parameters = parse_qs(request.scope["query_string"].decode("latin-1"))
    token = parameters.get("token", [""])[0]
    try:
        secret = door.node.sessions.redeem(token)
    except Unauthenticated as error:
        door.node.access.unrecognised(error, origin.address)
        return login_needed("refused")
    except CairnError as error:
        return refusal(error, headers)
    response = RedirectResponse(
        local_path(parameters.get("next", [None])[0]),
        303,
        {"cache-control": "no-store", "referrer-policy": "no-referrer"},
    )
    name = session_cookie(origin.url)
    response.set_cookie(name, secret, httponly=True, samesite="lax", secure=origin.secure, path="/")
    return response


def login_needed(why: str = "missing") -> Response:
    """The page that a person sees who has no session; `why` is "missing" or "refused"."""
    headers = {"cache-control": "no-store", "www-authenticate": problems.BEARER_CHALLENGE}
    return HTMLResponse(_PAGE.format(cause=_CAUSES[why]), 401, headers)
