"""The pages of the console by path, and how each is answered: for whom the role allows it, and recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bridge.errors import CairnError, NotFound, Unauthenticated
from bridge.model import Action
from dicomweb import access_report, problems
from dicomweb.console import (
    alerts,
    consortium,
    content,
    emergencies,
    entry,
    export,
    health,
    page,
    proposals,
    replicas,
    sharing,
    storage,
    study,
    timeline,
)
from dicomweb.exchange import Door, Exchange, headers_of, refusal
from dicomweb.responses import digest_of, is_fresh, whole

log = logging.getLogger("dicomweb")
_MAX_SUBJECT = 64  # characters of what a page was about, so that 200 details fit one record
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class ConsolePage:
    """A page: its path, what its reading is called in the ledger, and what makes it.

    `private`: whether what the path names stays out of the record of its reading, which outlives erased studies.
    `action`: what its reader's role must allow.
    """

    path: str
    name: str
    handler: Callable[[Exchange], Response]
    private: bool = False
    action: Action = Action.AUDIT

    def __call__(self, door: Door, request: Request) -> Response:
        """Answer a request: authenticate, authorise, record, make the page; errors become pages. Blocking."""
        headers = headers_of(request.scope["headers"])
        visitor = _Visitor(request.scope["method"])
        try:
            exchange = door.open(request, self.action)
            subject = "" if self.private else next(iter(exchange.path.values()), "")[:_MAX_SUBJECT]
            exchange.node.access.audited(exchange.actor, f"{self.name} {subject}".rstrip())
            return self.handler(exchange)
        except CairnError as error:
            if "text/html" not in headers.get("accept", ""):
                return refusal(error, headers)
            if isinstance(error, Unauthenticated):
                return page.login_needed(visitor, error)
            refusal(error, headers)  # which logs what an operator must hear of
            return page.refused(visitor, error)
        except Exception:
            log.exception("unexpected fault in the console's %s", self.name)
            return problems.internal_error()


@dataclass(frozen=True, slots=True)
class _Visitor:
    method: str


def static(door: Door, request: Request) -> Response:
    """`GET /console/static/...`: style, script and picture of the console, for any session; blocking."""
    headers = headers_of(request.scope["headers"])
    try:
        exchange = door.open(request, None)
        name = exchange.path["name"]
        content = _FILES.get(name)
        if content is None:
            raise NotFound("the console has no such file")
    except CairnError as error:
        return refusal(error, headers)
    etag = digest_of(content)
    sent = {
        "etag": f'"{etag}"',
        "cache-control": "private, no-cache",
        "cross-origin-resource-policy": "same-origin",
        "x-content-type-options": "nosniff",
    }
    if is_fresh(exchange, etag):
        return Response(status_code=304, headers=sent)
    return whole(exchange, content, sent, _TYPES["." + name.rpartition(".")[2]])


def to_console(door: Door, request: Request) -> Response:
    """`GET /console`: the console lies one slash further."""
    return RedirectResponse("/console/", 307)


def _nowhere(exchange: Exchange) -> Response:
    raise NotFound("the console has no such page")


_FILES: Final = {
    file.name: file.read_bytes()
    for file in resources.files("dicomweb.console").joinpath("static").iterdir()
    if file.name.endswith(tuple(_TYPES))
}
PAGES: Final = (
    ConsolePage("/console/", "timeline", timeline.show),
    ConsolePage(export.CSV, "export", export.show),
    ConsolePage("/console/entries/{id}", "entry", entry.show),
    ConsolePage("/console/studies/{study:uid}", "study", study.show),
    ConsolePage("/console/studies/{study:uid}/content", "content", content.show),
    ConsolePage("/console/patients/{patient:path}/report", "access report", access_report.show, private=True),
    ConsolePage("/console/patients/{patient:path}/report.csv", "access report", access_report.show_csv, private=True),
    ConsolePage("/console/health", "health", health.show),
    ConsolePage("/console/storage", "storage", storage.show),
    ConsolePage("/console/alerts", "alerts", alerts.show),
    ConsolePage(emergencies.SECTION, "emergencies", emergencies.show),
    ConsolePage(emergencies.SECTION + "/{entry}", "emergency", emergencies.one),
    ConsolePage(consortium.SECTION, "consortium", consortium.show),
    ConsolePage(proposals.SECTION, "proposing", proposals.show, action=Action.ADMINISTER),
    ConsolePage(sharing.SECTION, "sharing", sharing.show),
    ConsolePage(replicas.SECTION, "replicas", replicas.show),
    ConsolePage("/console/{path:path}", "page", _nowhere),
)
"""In the order in which they are tried: the last answers whatever is none of the console's."""
