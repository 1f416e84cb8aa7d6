"""`/fhir`: the ledger's entries as FHIR R4 AuditEvents (IHE ITI-81 Retrieve ATNA Audit Event), for who may audit.

Errors are OperationOutcomes. Reading is recorded as every reading of the ledger is.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import CairnError, NotFound
from bridge.model import Action
from dicomweb import media_types, problems
from dicomweb.exchange import Door, Exchange, headers_of, refusal
from dicomweb.fhir_search import CURSOR, PARAMETERS, parse
from dicomweb.media_types import JSON, Offer
from dicomweb.responses import whole
from ledger.event import Detail, Event
from ledger.export.fhir import CANONICAL, UNDETAILED, Json, Observer, audit_event, identifier_system, searchset

FHIR_ROOT: Final = "/fhir"
FHIR_JSON: Final = "application/fhir+json"
_ISSUES: Final = {
    400: "invalid",
    401: "login",
    403: "forbidden",
    404: "not-found",
    406: "not-supported",
    503: "transient",
}
_PROFILES: Final = tuple(
    f"{CANONICAL}IHE.BasicAudit.{patient}{name}"
    for name in ("Create", "Read", "Update", "Delete", "Query")
    for patient in ("", "Patient")
)
log = logging.getLogger("dicomweb")
Fhir = Callable[[Exchange], Response]


def search(door: Door, request: Request) -> Response:
    """`GET /fhir/AuditEvent?...`: a Bundle of matches, the newest first; blocking."""
    return _answer(door, request, _search, Action.AUDIT)


def read(door: Door, request: Request) -> Response:
    """`GET /fhir/AuditEvent/{id}`: one, by its entry's leaf hash; blocking."""
    return _answer(door, request, _read, Action.AUDIT)


def metadata(door: Door, request: Request) -> Response:
    """`GET /fhir/metadata`: the CapabilityStatement, for any session; blocking."""
    return _answer(door, request, _metadata, None)


def elsewhere(door: Door, request: Request) -> Response:
    """Any other path below `/fhir`; blocking."""
    return _answer(door, request, _nothing, None)


def _answer(door: Door, request: Request, handler: Fhir, action: Action | None) -> Response:
    headers = headers_of(request.scope["headers"])
    try:
        return handler(door.open(request, action))
    except CairnError as error:
        return _outcome(refusal(error, headers), _ISSUES.get(error.answer.http, "exception"), error.detail)
    except Exception:
        log.exception("unexpected fault in %s", handler.__name__)
        return _outcome(problems.internal_error(), "exception", "An unexpected fault; it was logged.")


def _outcome(problem: Response, code: str, detail: str) -> Response:
    """An OperationOutcome with the status and headers that the problem document would have had."""
    document: Json = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": detail}],
    }
    own = {name: value for name, value in problem.headers.items() if name not in ("content-type", "content-length")}
    return Response(_encoded(document), problem.status_code, own, FHIR_JSON)


def _search(exchange: Exchange) -> Response:
    media_type = _negotiated(exchange)
    asked = parse(exchange.parameters)
    exchange.node.access.audited(exchange.actor, "fhir search")
    found = [] if asked.empty else list(exchange.node.audit.search(asked.query()))
    page = found[: asked.count]
    wanted = [event for event in page if asked.issuer is None or _issuer(event) == asked.issuer]
    links = {"self": _url(exchange, exchange.parameters)}
    if len(found) > len(page):
        kept = [(name, value) for name, value in exchange.parameters if name != CURSOR]
        links["next"] = _url(exchange, [*kept, (CURSOR, str(page[-1].index))])
    resources = [audit_event(event, _details(exchange, event), _observer(exchange)) for event in wanted]
    bundle = searchset(resources, links, exchange.origin.url + FHIR_ROOT)
    return _resource(exchange, bundle, media_type)


def _read(exchange: Exchange) -> Response:
    media_type = _negotiated(exchange)
    id_ = exchange.path["id"]
    if len(id_) != 64 or any(digit not in "0123456789abcdef" for digit in id_):
        raise NotFound("An AuditEvent's id is the entry's leaf hash: 64 hexadecimal digits in lower case")
    exchange.node.access.audited(exchange.actor, f"fhir {id_}")
    event = exchange.node.audit.event(bytes.fromhex(id_))
    if event.id.hex() != id_:
        raise NotFound("no AuditEvent has this id; a record is part of its entry's")
    return _resource(exchange, audit_event(event, _details(exchange, event), _observer(exchange)), media_type)


def _metadata(exchange: Exchange) -> Response:
    return _resource(exchange, capability_statement(exchange.node.version, exchange.origin.url), _negotiated(exchange))


def _nothing(exchange: Exchange) -> Response:
    raise NotFound("There are AuditEvent and metadata here, and no other resource")


def capability_statement(version: str, origin: str) -> Json:
    """What `/fhir` can do (FHIR R4 5.2)."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "software": {"name": "Cairn", "version": version},
        "implementation": {"description": "The ledger of this node as audit events", "url": origin + FHIR_ROOT},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON],
        "rest": [
            {
                "mode": "server",
                "resource": [
                    {
                        "type": "AuditEvent",
                        "supportedProfile": [*_PROFILES, f"{CANONICAL}IHE.BasicAudit.PrivacyDisclosure.Source"],
                        "interaction": [{"code": "read"}, {"code": "search-type"}],
                        "versioning": "no-version",
                        "searchParam": [
                            {"name": name, "type": kind, "documentation": meaning} for name, kind, meaning in PARAMETERS
                        ],
                    }
                ],
            }
        ],
    }


def _negotiated(exchange: Exchange) -> str:
    """The media type of the answer; `_format` goes before Accept (R4 3.1.0.1.9). Raises NotAcceptable."""
    if any(name == "_format" for name, _ in exchange.parameters):
        return FHIR_JSON
    offers = [Offer(FHIR_JSON, wildcard=True), Offer(JSON)]
    return media_types.choose(exchange.accept or "*/*", [], offers).media_type


def _issuer(event: Event) -> str | None:
    return identifier_system(event.patient.issuer) if event.patient is not None else None


def _details(exchange: Exchange, event: Event) -> Sequence[Detail]:
    return () if event.type in UNDETAILED else exchange.node.audit.details(event.id)


def _observer(exchange: Exchange) -> Observer:
    """This node; the log's name is what its verifier key begins with (C2SP signed-note)."""
    return Observer(socket.gethostname(), exchange.node.log.key().partition("+")[0], exchange.node.hospital)


def _url(exchange: Exchange, parameters: Sequence[tuple[str, str]]) -> str:
    query = f"?{urlencode(parameters)}" if parameters else ""
    return f"{exchange.origin.url}{FHIR_ROOT}/AuditEvent{query}"


def _resource(exchange: Exchange, document: Json, media_type: str) -> Response:
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff", "vary": "Accept"}
    return whole(exchange, _encoded(document), headers, media_type)


def _encoded(document: Json) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
