"""One request as the handlers see it: authenticated, with its origin and purpose; and how blocking work is run.

Handlers are synchronous, since all they call (index, keys, content) blocks: a request costs one hop to a worker
thread, where it is authenticated, authorised, recorded and answered. Streams take further hops, one for four MiB.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple
from urllib.parse import parse_qsl

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from bridge.errors import AccessNotRecordable, CairnError, Forbidden, RequestError
from bridge.model import Action, Actor
from dicomweb import problems
from dicomweb.authentication import authenticate
from dicomweb.node import Node, Viewing
from dicomweb.origin import Origin, origin_of
from dicomweb.purpose import purpose_of

DICOMWEB_ROOT = "/dicom-web"
READ_THREADS = 8
WRITE_THREADS = 4
STREAMS = 16
SMALL_BODIES = 32
MAX_PARAMETERS = 200

log = logging.getLogger("dicomweb")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a handler needs of a request; `parameters` are the decoded query parameters in their order."""

    door: Door
    actor: Actor
    origin: Origin
    method: str
    headers: dict[str, str]
    path: dict[str, str]
    raw_query: bytes

    @property
    def node(self) -> Node:
        return self.door.node

    @property
    def root(self) -> str:
        """The absolute URL of the DICOMweb root, as the client addressed it."""
        return self.origin.url + DICOMWEB_ROOT

    @property
    def accept(self) -> str | None:
        return self.headers.get("accept")

    @property
    def parameters(self) -> Sequence[tuple[str, str]]:
        """Query parameters, percent-decoded, `+` as space (PS3.18 8.3.1). Raises RequestError for other than UTF-8."""
        if not self.raw_query:
            return ()
        try:
            return parse_qsl(
                self.raw_query.decode("ascii"),
                keep_blank_values=True,
                encoding="utf-8",
                errors="strict",
                max_num_fields=MAX_PARAMETERS,
            )
        except ValueError:
            raise RequestError("The query parameters cannot be decoded as UTF-8, or are too many") from None

    @property
    def accept_parameters(self) -> list[str]:
        """The `accept` query parameters, which go before the header (PS3.18 8.7.8.1)."""
        return [value for name, value in self.parameters if name == "accept"] if self.raw_query else []

    def view(self, study: str) -> Viewing:
        """Record, durably, that the actor sees `study`; called before anything of it is read."""
        purpose, reason = purpose_of(self.headers)
        return self.node.access.view(self.actor, study, purpose, reason)

    def view_kept(self, tag: bytes) -> Viewing:
        """Likewise, of a study that is kept here for the actor without its key."""
        return self.node.access.view_kept(self.actor, tag, purpose_of(self.headers)[0])


Handler = Callable[[Exchange], Response]


class Door:
    """The node behind this application, and the limits on the threads that wait for it and on lasting streams."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.readers = CapacityLimiter(READ_THREADS)
        self.writers = CapacityLimiter(WRITE_THREADS)
        self.streams = CapacityLimiter(STREAMS)
        self.small_bodies = CapacityLimiter(SMALL_BODIES)
        self.ahead = ThreadPoolExecutor(READ_THREADS, "ahead")
        """Reads on in bodies that are being sent: cheaper by half than a worker thread of anyio's."""

    async def read(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking call that reads, in a worker thread."""
        return await to_thread.run_sync(call, *args, limiter=self.readers)

    async def write(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking call that stores; such threads are apart, so that no fsync delays a viewer."""
        return await to_thread.run_sync(call, *args, limiter=self.writers)

    async def finish(self, call: Callable[[], None]) -> None:
        """Run what must be done even when the request was cancelled."""
        with CancelScope(shield=True):
            await to_thread.run_sync(call, limiter=self.writers)

    def open(self, request: Request, action: Action | None) -> Exchange:
        """Authenticate and authorise a request. Raises Unauthenticated, Forbidden, RequestError; blocking."""
        scope = request.scope
        headers = headers_of(scope["headers"])
        origin = self.origin(request, headers)
        actor = authenticate(self.node, scope["method"], headers, origin)
        return self.admit(request, headers, origin, actor, action)

    def admit(
        self, request: Request, headers: dict[str, str], origin: Origin, actor: Actor, action: Action | None
    ) -> Exchange:
        """Authorise an actor who is known; a refusal is recorded. Raises Forbidden."""
        scope = request.scope
        if action is not None:
            try:
                self.node.authoriser.allow(actor, action)
            except Forbidden as error:
                self.node.access.refused(actor, origin.address, error.detail)
                raise
        path = scope["path_params"]
        return Exchange(self, actor, origin, scope["method"], headers, path, scope["query_string"])

    def origin(self, request: Request, headers: dict[str, str]) -> Origin:
        """Where the request came from and which origin it addressed."""
        web = self.node.settings.web
        client = request.scope.get("client")
        peer = client[0] if client else ""
        fallback = f"[{web.host}]:{web.port}" if ":" in web.host else f"{web.host}:{web.port}"
        server = request.scope.get("server")
        port = server[1] if server and server[1] else web.port
        return origin_of(headers, request.scope.get("scheme", "http"), peer, port, fallback, web.trusted_proxies)


def headers_of(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Request headers by lower-case name; repeated ones joined by a comma (RFC 9110 5.2), Cookie by a semicolon."""
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    return headers


def answer(door: Door, request: Request, handler: Handler, action: Action | None) -> Response:
    """Run a handler and turn what it raises into a problem document; in a worker thread."""
    try:
        return handler(door.open(request, action))
    except CairnError as error:
        return refusal(error, headers_of(request.scope["headers"]))
    except Exception:
        log.exception("unexpected fault in %s", getattr(handler, "__name__", "a handler"))
        return problems.internal_error()


def refusal(error: CairnError, headers: Mapping[str, str]) -> Response:
    """The problem document of an error; those that an operator must hear of are logged.

    A browser (it says so by Fetch Metadata) is not challenged for Basic, which would open a password dialogue.
    """
    if error.answer.http >= 500 and not isinstance(error, AccessNotRecordable):
        log.error("%s: %s", error.slug, error.detail)
    return problems.from_error(error, browser="sec-fetch-mode" in headers)
