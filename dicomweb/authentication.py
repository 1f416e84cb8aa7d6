"""Who asks over HTTP: bearer token, session cookie, or nobody (DESIGN section 8). Deny by default."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import cookie_parser

from bridge.errors import Forbidden, Unauthenticated
from bridge.model import Actor, ActorKind, Role
from dicomweb.node import Node
from dicomweb.origin import Origin

SESSION_COOKIE = "cairn_session"
DEFAULT_PORT = "8042"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that came with a request, and whether a browser attached it by itself (a cookie)."""

    secret: str
    ambient: bool


def session_cookie(origin: str) -> str:
    """The name of the session's cookie at an origin (`http://host:port`).

    Browsers give a host's cookies to all its ports (RFC 6265 section 8.5): nodes on one machine must not share a name.
    """
    port = origin.rpartition(":")[2]
    return f"{SESSION_COOKIE}_{port}" if port.isdigit() and port != DEFAULT_PORT else SESSION_COOKIE


def credential_of(headers: Mapping[str, str], origin: str = "") -> Credential | None:
    """The credential of a request: Authorization first, then the session cookie; None when there is neither.

    Bearer (RFC 6750) carries a token; so does the password of Basic (RFC 7617), for clients that know nothing else.
    Raises Unauthenticated for an Authorization header that holds neither.
    """
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, value = authorization.strip().partition(" ")
        value = value.strip()
        if scheme.lower() == "bearer" and value:
            return Credential(value, ambient=False)
        if scheme.lower() == "basic":
            return Credential(_basic_password(value), ambient=False)
        raise Unauthenticated("The Authorization header is neither Bearer nor Basic")
    cookies = headers.get("cookie")
    if cookies is not None:
        held = cookie_parser(cookies)
        if secret := held.get(session_cookie(origin)) or held.get(SESSION_COOKIE):
            return Credential(secret, ambient=True)
    return None


def _basic_password(value: str) -> str:
    try:
        _, colon, password = base64.b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthenticated("The Basic credentials cannot be read") from None
    if not colon or not password:
        raise Unauthenticated("The Basic credentials lack a password; a token goes there")
    return password


def authenticate(node: Node, method: str, headers: Mapping[str, str], origin: Origin) -> Actor:
    """The actor of a request. Raises Unauthenticated, or Forbidden for what another site made a browser send.

    A credential that was given and refused is recorded and never falls back to the anonymous role.
    """
    try:
        credential = credential_of(headers, origin.url)
        if credential is not None:
            actor = node.authoriser.identify(credential.secret, origin.address)
            if credential.ambient and method not in _SAFE_METHODS:
                _require_same_origin(headers, origin)
            return actor
    except (Unauthenticated, Forbidden) as error:
        node.access.unrecognised(error, origin.address)
        raise
    return anonymous(node.settings.access.anonymous_role, method, headers, origin)


def anonymous(role: Role | None, method: str, headers: Mapping[str, str], origin: Origin) -> Actor:
    """The actor of a request without credential: only on loopback, and only when a role is set for it.

    A forwarding header, or a Host beyond loopback (DNS rebinding), means that the request is not this machine's own.
    Raises Unauthenticated, Forbidden.
    """
    if role is None:
        raise Unauthenticated("A credential is needed")
    if not origin.loopback:
        raise Unauthenticated("A credential is needed; the anonymous role is for this machine's own requests only")
    if method not in _SAFE_METHODS and ("origin" in headers or "sec-fetch-site" in headers):
        _require_same_origin(headers, origin)
    return Actor(ActorKind.USER, "anonymous", role, origin.address, "http")


def _require_same_origin(headers: Mapping[str, str], origin: Origin) -> None:
    """Refuse a state-changing request unless the browser says that our own page made it (Fetch Metadata, RFC 6454)."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
    elif headers.get("origin") == origin.url:
        return
    raise Forbidden("A request that changes something must come from this server's own pages, or carry a token")


def local_path(path: str | None) -> str:
    """Where to go after a login: a path of this server, else the viewer (no open redirect)."""
    if path and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path:
        return path
    return "/ohif/"
