"""Why somebody looks at images: the request's headers, or what a person chose for the browser's session. Pure.

A viewer in a browser cannot be told to send headers, so the choice made at `/purpose` lies in a cookie. It is a claim
of who is logged in, as the header is, and every access is recorded with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import cookie_parser

from bridge.errors import RequestError
from ledger.types import EMERGENCY, PURPOSES

PURPOSE_COOKIE: Final = "cairn_purpose"
DEFAULT: Final = "TREAT"
CODES: Final = ", ".join(f"{code} ({words})" for code, words in PURPOSES.items())
"""The codes that Cairn knows in words."""
_MAX_REASON: Final = 500


def purpose_of(headers: Mapping[str, str]) -> tuple[str, str | None]:
    """Purpose of use (HL7 v3 ActReason code) and reason of a request.

    The headers Cairn-Purpose and Cairn-Reason, else what the browser's session chose, else TREAT. A credential in an
    Authorization header is nobody's browser: the cookie then does not count.

    Raises RequestError for a malformed code or a reason beyond 500 characters, and for ETREAT (break-glass) without a
    reason.
    """
    code, why = headers.get("cairn-purpose"), headers.get("cairn-reason", "")
    if code is None and "authorization" not in headers:
        chosen = parse_qs(cookie_parser(headers.get("cookie", "")).get(PURPOSE_COOKIE, ""))
        code = chosen.get("purpose", [None])[0]
        why = why or chosen.get("reason", [""])[0]
    return checked(DEFAULT if code is None else code, why)


def checked(code: str, why: str) -> tuple[str, str | None]:
    """A purpose and reason that may be recorded. Raises RequestError, as `purpose_of`."""
    purpose, reason = code.strip(), why.strip() or None
    if not (1 <= len(purpose) <= 16 and purpose.isascii() and purpose.isalpha() and purpose.isupper()):
        raise RequestError(f"Cairn-Purpose is not an HL7 purpose of use code, such as {CODES}")
    if purpose == EMERGENCY and reason is None:
        raise RequestError("Cairn-Purpose ETREAT (emergency access) needs a Cairn-Reason")
    if reason is not None and len(reason) > _MAX_REASON:
        raise RequestError(f"Cairn-Reason exceeds {_MAX_REASON} characters")
    return purpose, reason
