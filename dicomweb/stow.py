"""Storing: STOW-RS (PS3.18 10.5), streamed; memory does not grow with the request."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bridge.errors import (
    BodyTooLarge,
    CairnError,
    MediaTypeUnsupported,
    MultipartInvalid,
    RequestError,
    StorageFull,
)
from bridge.model import Action
from dicomweb import problems
from dicomweb.exchange import Door, Exchange, headers_of, refusal
from dicomweb.media_types import DICOM, MULTIPART_RELATED, MediaType, parse_media_type
from dicomweb.multipart import MultipartParser, PartBegin, PartData
from dicomweb.node import Incoming, Receipt, Reception
from dicomweb.purpose import purpose_of
from dicomweb.store_report import Failed, Report, Stored

PIECE = 1024 * 1024
MOST_REFUSED = 10_000
"""Refused parts that one request may hold: each takes memory until the answer."""
MOST_SUBMITTED = 32
"""Parts of one request that may wait for a commit that they share while the next are read."""
log = logging.getLogger("dicomweb")


def body_type(headers: dict[str, str]) -> MediaType:
    """The Content-Type of a store request: multipart/related of application/dicom, or application/dicom alone.

    Raises MediaTypeUnsupported for any other, and for a Content-Encoding.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeUnsupported("A Content-Encoding of the request is not taken")
    found = parse_media_type(headers.get("content-type", ""))
    if found is None:
        raise MediaTypeUnsupported("The Content-Type is missing or malformed")
    if found.essence == DICOM or (found.essence == MULTIPART_RELATED and found.part in (DICOM, "*/*")):
        return found
    raise MediaTypeUnsupported(f'Only {MULTIPART_RELATED}; type="{DICOM}" and {DICOM} are taken')


@dataclass(slots=True)
class Arrival:
    """One store request on its way in: bytes go in by `feed`, what became of the parts is in `report`.

    Its methods block and are called from one worker thread at a time.
    """

    exchange: Exchange
    media_type: MediaType
    report: Report
    exits: ExitStack = field(default_factory=ExitStack)
    reception: Reception | None = None
    parser: MultipartParser | None = None
    incoming: Incoming | None = None
    submitted: deque[Callable[[], Stored | Failed]] = field(default_factory=deque)
    failed: CairnError | None = None
    refused: int = 0
    closed: bool = False

    def _start(self) -> None:
        if self.media_type.multipart:
            self.parser = MultipartParser(self.media_type.parameters.get("boundary", ""))
        purpose, _ = purpose_of(self.exchange.headers)
        reception = self.exchange.node.store.reception(self.exchange.actor, purpose)
        self.reception = self.exits.enter_context(reception)
        if self.parser is None:
            self._begin({"content-type": DICOM})

    def feed(self, data: bytes) -> None:
        """The next bytes of the body; the first open the reception. Raises RequestError, CapacityError."""
        if self.reception is None:
            self._start()
        if self.parser is None:
            self._write(data)
            return
        for event in self.parser.feed(data):
            if isinstance(event, PartBegin):
                self._begin(dict(event.headers))
            elif isinstance(event, PartData):
                self._write(event.data)
            else:
                self._end()

    def finish(self, data: bytes) -> None:
        """The last bytes of the body. Raises as `feed`, and MultipartInvalid when its closing delimiter never came."""
        self.feed(data)
        if self.parser is None:
            self._end()
        else:
            self.parser.close()
        self.close()

    def close(self) -> None:
        """Drop a part that is not complete, wait for those that are, and close the reception."""
        self.closed = True
        if self.incoming is not None:
            self.incoming.abort()
            self.incoming = None
        self._await(0)
        try:
            self.exits.close()
        except CairnError as error:
            # Every receipt given is durable already; the batch is closed when the node next starts.
            log.error("%s: %s", error.slug, error.detail)

    def _begin(self, headers: dict[str, str]) -> None:
        self.failed = None
        declared = parse_media_type(headers.get("content-type", DICOM))
        if declared is None or declared.essence != DICOM:
            self.failed = MediaTypeUnsupported("The part is not application/dicom")
        elif headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit"):
            self.failed = MediaTypeUnsupported("The part's transfer encoding is not binary")
        elif self.reception is not None:
            try:
                self.incoming = self.reception.begin(self.exchange.path.get("study"))
            except CairnError as error:
                self.failed = error

    def _write(self, data: bytes) -> None:
        if self.incoming is None or self.failed is not None:
            return
        try:
            self.incoming.write(data)
        except CairnError as error:
            self.failed = error

    def _end(self) -> None:
        if self.refused >= MOST_REFUSED:
            raise BodyTooLarge(f"More than {MOST_REFUSED} parts of the request were refused")
        incoming, self.incoming = self.incoming, None
        error = self.failed
        if incoming is not None and error is None:
            try:
                self.submitted.append(partial(_outcome, incoming, incoming.submit()))
            except CairnError as refused:
                error = refused
        if error is not None:
            failed = _failure(incoming, error)
            self.refused += 1
            self.submitted.append(lambda: failed)
            if incoming is not None:
                incoming.abort()
        self._await(MOST_SUBMITTED)

    def _await(self, most: int) -> None:
        """Wait for what became of the first parts, until at most so many are on their way."""
        while len(self.submitted) > most:
            outcome = self.submitted.popleft()()
            if isinstance(outcome, Stored):
                self.report.stored.append(outcome)
            else:
                self.report.failed.append(outcome)


def _outcome(incoming: Incoming, durable: Callable[[], Receipt]) -> Stored | Failed:
    try:
        receipt = durable()
    except CairnError as error:
        incoming.abort()
        return _failure(incoming, error)
    return Stored(receipt.key, receipt.sop_class)


def _failure(incoming: Incoming | None, error: CairnError) -> Failed:
    # The report outlives the part: the frames of a traceback would keep every refused part's bytes until the end.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    key = getattr(error, "key", None) or (incoming.key if incoming is not None else None)
    sop_class = getattr(error, "sop_class", None) or (incoming.sop_class if incoming is not None else None)
    return Failed(error, key.sop if key is not None else None, sop_class)


async def pieces(request: Request, most: int) -> AsyncIterator[tuple[bytes, bool]]:
    """The body in pieces of about PIECE bytes, and whether more follow; a usual instance is one hop to a worker thread.

    Raises BodyTooLarge beyond `most` bytes, ClientDisconnect when the client goes away.
    """
    held: list[bytes] = []
    size = total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > most:
            raise BodyTooLarge(f"The body exceeds {most} bytes")
        held.append(chunk)
        size += len(chunk)
        if size >= PIECE:
            yield b"".join(held), True
            held, size = [], 0
    yield b"".join(held), False


async def store(door: Door, request: Request) -> Response:
    """`POST /studies` and `POST /studies/{study}`.

    A small body is read before anything else, so that one worker thread does all the rest; few of them at a time, since
    nobody is known yet to be allowed to send one.
    """
    try:
        body = await small_body(door, request)
        if body is not None:
            return await door.write(store_whole, door, request, body)
        arrival = await door.write(arrive, door, request)
        return await receive(door, request, arrival)
    except CairnError as error:
        return refusal(error, headers_of(request.scope["headers"]))
    except ClientDisconnect:
        return problems.problem(400, "client-disconnected", "The client went away.", "Send the request again.")
    except Exception:
        log.exception("unexpected fault in store")
        return problems.internal_error()


async def small_body(door: Door, request: Request) -> bytes | None:
    """A body of at most PIECE bytes; None for a larger one, and while as many as may be are being read.

    Nor is one read whose sender waits to be told to send it (RFC 9110 10.1.1). Raises ClientDisconnect.
    """
    headers = headers_of(request.scope["headers"])
    declared = headers.get("content-length", "")
    if not declared.isdigit() or int(declared) > PIECE or "expect" in headers or not door.small_bodies.available_tokens:
        return None
    async with door.small_bodies:
        return b"".join([chunk async for chunk in request.stream()])


def arrive(door: Door, request: Request) -> Arrival:
    """Whoever sends may, and says what can be taken. Raises Unauthenticated, Forbidden, RequestError; blocking."""
    exchange = door.open(request, Action.STORE)
    declared = exchange.headers.get("content-length", "")
    most = exchange.node.settings.web.max_body_bytes
    if declared.isdigit() and int(declared) > most:
        raise BodyTooLarge(f"The body exceeds {most} bytes")
    return Arrival(exchange, body_type(exchange.headers), Report(exchange.root, exchange.path.get("study")))


def store_whole(door: Door, request: Request, body: bytes) -> Response:
    """As `receive`, of a body that is there; blocking."""
    arrival = arrive(door, request)
    broken: RequestError | None = None
    try:
        arrival.finish(body)
    except (MultipartInvalid, BodyTooLarge) as error:
        broken = error
    finally:
        if not arrival.closed:
            arrival.close()
    return answer(arrival.report, broken)


async def receive(door: Door, request: Request, arrival: Arrival) -> Response:
    """Stream the body into the node and report; what breaks the body spares the parts that were complete."""
    broken: RequestError | None = None
    try:
        async for piece, more in pieces(request, door.node.settings.web.max_body_bytes):
            await door.write(arrival.feed if more else arrival.finish, piece)
    except (MultipartInvalid, BodyTooLarge) as error:
        broken = error
    finally:
        if not arrival.closed:
            await door.finish(arrival.close)
    return answer(arrival.report, broken)


def answer(report: Report, broken: RequestError | None) -> Response:
    """The response to what arrived, and to what broke the body. Raises RequestError when nothing of it was a part."""
    if broken is not None:
        if not report.stored:
            raise broken
        report.failed.append(Failed(broken, None, None))
    if not report.stored and not report.failed:
        raise RequestError("The body holds no part")
    if not report.stored and all(isinstance(failure.error, StorageFull) for failure in report.failed):
        return report.response(StorageFull.answer.http)
    return report.response()
