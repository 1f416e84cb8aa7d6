"""The HTTP application of a node: one table of routes, from which the capabilities are made too."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bridge.dicom.attributes import Level
from bridge.model import Action
from dicomweb import (
    emergencies,
    fhir,
    gateway,
    health,
    ledger_api,
    login,
    problems,
    provenance,
    purpose_page,
    stow,
    viewer,
)
from dicomweb.capabilities import retrieve_capabilities
from dicomweb.console import routes as console
from dicomweb.console.forms import FORMS, ConsoleForm
from dicomweb.exchange import DICOMWEB_ROOT, Door, Exchange, Handler, answer
from dicomweb.frames import retrieve_bulk_data, retrieve_frames
from dicomweb.media_types import JSON
from dicomweb.node import Node
from dicomweb.openapi import retrieve_openapi
from dicomweb.provenance import linked, retrieve_provenance
from dicomweb.qido import parameters, search
from dicomweb.resource import Resource, Transaction
from dicomweb.wado import retrieve_instances, retrieve_metadata

log = logging.getLogger("dicomweb.access")


def _retrieve(name: str, handler: Handler) -> dict[str, Transaction]:
    return {"GET": Transaction(name, linked(handler), Action.RETRIEVE)}


def _search(level: Level) -> dict[str, Transaction]:
    return {"GET": Transaction("search", search(level), Action.SEARCH, parameters(level))}


_STUDY = "/studies/{study:uid}"
_SERIES = _STUDY + "/series/{series:uid}"
_INSTANCE = _SERIES + "/instances/{instance:uid}"
_STORE = {"POST": Transaction("store", None, Action.STORE)}
_INSTANCES = _retrieve("instances", retrieve_instances)
_METADATA = _retrieve("metadata", retrieve_metadata)
_PROVENANCE = {
    "GET": Transaction("provenance", retrieve_provenance, Action.AUDIT, provenance.PARAMETERS, (JSON,)),
}
_STUDIES, _SERIES_SEARCH, _INSTANCE_SEARCH = map(_search, (Level.STUDY, Level.SERIES, Level.INSTANCE))

# The most frequent first: routes are tried in this order.
RESOURCES = (
    Resource(_INSTANCE + "/frames/{frames}", _retrieve("frames", retrieve_frames)),
    Resource(_INSTANCE, _INSTANCES),
    Resource(_INSTANCE + "/bulkdata/{path:path}", _retrieve("bulkdata", retrieve_bulk_data)),
    Resource(_INSTANCE + "/metadata", _METADATA),
    Resource(_SERIES + "/metadata", _METADATA),
    Resource(_STUDY + "/metadata", _METADATA),
    Resource(_SERIES, _INSTANCES),
    Resource("/studies", {**_STUDIES, **_STORE}),
    Resource(_STUDY, {**_INSTANCES, **_STORE}),
    Resource(_STUDY + "/series", _SERIES_SEARCH),
    Resource(_SERIES + "/instances", _INSTANCE_SEARCH),
    Resource(_STUDY + "/instances", _INSTANCE_SEARCH),
    Resource("/series", _SERIES_SEARCH),
    Resource("/instances", _INSTANCE_SEARCH),
    Resource(_STUDY + "/provenance", _PROVENANCE),
    Resource(_SERIES + "/provenance", _PROVENANCE),
    Resource(_INSTANCE + "/provenance", _PROVENANCE),
)


class Endpoint:
    """The ASGI application of one path: picks the transaction and logs a line without UIDs or query strings."""

    def __init__(self, door: Door, template: str, methods: Mapping[str, Transaction]) -> None:
        self.door = door
        self.template = template
        self.methods = dict(methods)
        if "GET" in methods:
            self.methods["HEAD"] = methods["GET"]
        self.allow = ", ".join(sorted(self.methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope, receive)
        transaction = self.methods.get(scope["method"])
        if transaction is None:
            response = problems.method_not_allowed(self.allow)
        elif transaction.handler is None:
            response = await stow.store(self.door, request)
        else:
            response = await self.door.read(answer, self.door, request, transaction.handler, transaction.action)
        await response(scope, receive, send)
        # Of what went well the ledger tells; a line for every frame would cost more than it says.
        level = logging.DEBUG if response.status_code < 400 else logging.INFO
        if log.isEnabledFor(level):
            spent = round(time.perf_counter() - began, 4)
            fields = {"method": scope["method"], "route": self.template, "seconds": spent}
            log.log(level, "answered", extra={**fields, "status": int(response.status_code)})


Plain = Callable[[Door, Request], Response]


class PlainEndpoint:
    """The ASGI application of a page beside DICOMweb: GET and HEAD, run in a worker thread."""

    def __init__(self, door: Door, plain: Plain) -> None:
        self.door = door
        self.plain = plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            response = problems.method_not_allowed("GET, HEAD")
        else:
            response = await self.door.read(self.plain, self.door, Request(scope, receive))
        await response(scope, receive, send)


def create_app(node: Node) -> Starlette:
    """The application that serves `node`: DICOMweb, ledger, viewer, console, login, health. No UID is logged."""
    door = Door(node)
    routes: list[BaseRoute] = [
        Route(DICOMWEB_ROOT + resource.path, Endpoint(door, DICOMWEB_ROOT + resource.path, resource.methods))
        for resource in RESOURCES
    ]
    described = [(r.path, {method: t.name for method, t in r.methods.items()}) for r in RESOURCES]

    def capabilities(exchange: Exchange) -> Response:
        """What this server can do (PS3.18 8.9)."""
        return retrieve_capabilities(exchange, described)

    def described_routes(exchange: Exchange) -> Response:
        """Everything that this node offers over HTTP, as OpenAPI 3.1."""
        return retrieve_openapi(exchange, routes)

    root = {"OPTIONS": Transaction("capabilities", capabilities, None)}
    routes += [Route(path, Endpoint(door, DICOMWEB_ROOT, root)) for path in (DICOMWEB_ROOT, DICOMWEB_ROOT + "/")]
    routes += [
        Route(
            ledger_api.LEDGER_ROOT + resource.path,
            Endpoint(door, ledger_api.LEDGER_ROOT + resource.path, resource.methods),
        )
        for resource in ledger_api.RESOURCES
    ]
    routes += [
        Route(gateway.ROOT + resource.path, Endpoint(door, gateway.ROOT + resource.path, resource.methods))
        for resource in gateway.RESOURCES
    ]
    routes += [
        Route(emergencies.ROOT + resource.path, Endpoint(door, emergencies.ROOT + resource.path, resource.methods))
        for resource in emergencies.RESOURCES
    ]
    routes += [
        Route("/ohif", PlainEndpoint(door, _to_viewer)),
        Route(viewer.PREFIX + "{path:path}", PlainEndpoint(door, viewer.view)),
        Route("/fhir/metadata", PlainEndpoint(door, fhir.metadata)),
        Route("/fhir/AuditEvent", PlainEndpoint(door, fhir.search)),
        Route("/fhir/AuditEvent/{id}", PlainEndpoint(door, fhir.read)),
        *(Route(path, PlainEndpoint(door, fhir.elsewhere)) for path in (fhir.FHIR_ROOT, "/fhir/{path:path}")),
        Route("/login", PlainEndpoint(door, login.login)),
        Route("/purpose", purpose_page.PurposePage(door)),
        Route(
            "/openapi.json", Endpoint(door, "/openapi.json", {"GET": Transaction("openapi", described_routes, None)})
        ),
        Route("/livez", PlainEndpoint(door, health.livez)),
        Route("/readyz", PlainEndpoint(door, health.readyz)),
        Route("/", PlainEndpoint(door, _to_viewer)),
        Route("/console", PlainEndpoint(door, console.to_console)),
        Route("/console/static/{name}", PlainEndpoint(door, console.static)),
        *(Route(path, ConsoleForm(door, act)) for path, act in FORMS.items()),
        # The last of these takes every path below /console/ that is left.
        *(Route(page.path, PlainEndpoint(door, page)) for page in console.PAGES),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, Exception: _fault})
    app.router.redirect_slashes = False
    return app


def _to_viewer(door: Door, request: Request) -> Response:
    """The viewer lies elsewhere."""
    return RedirectResponse(viewer.PREFIX, 307)


async def _not_found(request: Request, error: Exception) -> Response:
    return problems.no_such_route()


async def _fault(request: Request, error: Exception) -> Response:
    return problems.internal_error()
