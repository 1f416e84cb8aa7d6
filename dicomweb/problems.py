"""Errors as `application/problem+json` (RFC 9457): never a stack trace, never PHI."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from bridge.errors import CairnError, CapacityError, EngineFault, StorageFault, Unauthenticated

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
BEARER_CHALLENGE = 'Bearer realm="cairn"'
CHALLENGE = BEARER_CHALLENGE + ', Basic realm="cairn", charset="UTF-8"'

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    503: "Service Unavailable",
    507: "Insufficient Storage",
}


def problem(status: int, slug: str, detail: str, advice: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document: `type` (a stable urn), `title`, `status`, `detail` (the cause), `advice` (what to do)."""
    document = {
        "type": f"urn:cairn:problem:{slug}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "advice": advice,
    }
    body = json.dumps(document, ensure_ascii=False).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, MEDIA_TYPE)


def from_error(error: CairnError, *, browser: bool = False) -> Response:
    """The problem document of an error of the tree, with the headers its status needs (RFC 9110 11.6.1, 10.2.3)."""
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = BEARER_CHALLENGE if browser else CHALLENGE
    if error.answer.http == 503 and isinstance(error, CapacityError | EngineFault | StorageFault):
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return problem(error.answer.http, error.slug, error.detail, error.advice, headers)


def internal_error() -> Response:
    """What a bug is answered with: nothing of the exception leaves the log."""
    return problem(500, CairnError.slug, "An unexpected fault; it was logged.", CairnError.advice)


def no_such_route() -> Response:
    """No resource has this path."""
    return problem(404, "no-such-route", "No resource has this path.", "See /openapi.json for the resources.")


def method_not_allowed(allowed: str) -> Response:
    """The resource exists but has no such method; `allowed` goes to Allow (RFC 9110 15.5.6)."""
    return problem(
        405,
        "method-not-allowed",
        "The resource does not have this method.",
        "Use one that the Allow header lists.",
        {"allow": allowed},
    )
