"""Responses: strong validators, conditional requests, bounded streams (RFC 9110 sections 8.8 and 13, PS3.18 8.5)."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import Future, wait
from hashlib import blake2b
from http import HTTPStatus
from typing import NamedTuple

from anyio import CancelScope
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from bridge.errors import CairnError
from dicomweb import problems
from dicomweb.exchange import Door, Exchange

log = logging.getLogger("dicomweb")
FIRST = 2 * 1024 * 1024
PIECE = 4 * 1024 * 1024
LARGE = 64 * 1024
NEVER_WITHOUT_ASKING = "private, no-cache"  # every use is authorised and recorded, so it must be asked for
VARY = "Accept, Accept-Encoding, Authorization, Cookie"
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_LEVEL = 1  # JSON of headers shrinks about tenfold even so, at some 10 ms of CPU for a megabyte


def digest_of(*parts: bytes | str) -> str:
    """A hash of `parts` in 32 hex digits: entity tags, and boundaries.

    As a boundary it cannot occur in the data except by a fixed point of the hash, since the digests of the instances
    are among the parts; so the same request gives the same bytes, which a strong entity tag promises.
    """
    state = blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def validators(tag: str) -> dict[str, str]:
    """Headers of a representation with the strong entity tag `tag`."""
    return {
        "etag": f'"{tag}"',
        "cache-control": NEVER_WITHOUT_ASKING,
        "vary": VARY,
        "x-content-type-options": "nosniff",
    }


def takes_gzip(exchange: Exchange) -> bool:
    """Whether Accept-Encoding names gzip and does not refuse it (RFC 9110 12.5.3)."""
    for coding in exchange.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks as one gzip member (RFC 1952)."""
    state = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    for chunk in chunks:
        piece = state.compress(chunk)
        if piece:
            yield piece
    yield state.flush()


def is_fresh(exchange: Exchange, tag: str) -> bool:
    """Whether If-None-Match names this representation (RFC 9110 13.1.2, weak comparison)."""
    condition = exchange.headers.get("if-none-match")
    return condition is not None and _names(condition.replace("W/", ""), tag)


def not_modified(tag: str) -> Response:
    """304 with the headers that the full answer would have had."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=validators(tag))


def conditional(exchange: Exchange, tag: str) -> Response | None:
    """What is answered instead of this representation: 412, 304 (RFC 9110 13.2.2), or None when it is to be given."""
    condition = exchange.headers.get("if-match")
    if condition is not None and not _names(condition, tag):
        what = "If-Match names another representation."
        return problems.problem(HTTPStatus.PRECONDITION_FAILED, "precondition-failed", what, "Ask without If-Match.")
    return not_modified(tag) if is_fresh(exchange, tag) else None


def _names(condition: str, tag: str) -> bool:
    """Whether a list of entity tags, or "*", holds this one (RFC 9110 13.1; strong comparison)."""
    return condition.strip() == "*" or any(one.strip() == f'"{tag}"' for one in condition.split(","))


class Piece(NamedTuple):
    """Some of a body, and whether more may follow."""

    chunks: list[bytes]
    more: bool


class Stream(StreamingResponse):
    """A body made by a blocking iterator, of which `first` is read; the rest is, in worker threads, a piece at a time.

    What fails ends the connection, so that no client takes a part for the whole. While one piece is sent the next is
    read, so a body takes as long as the slower of the two and holds at most two pieces.
    """

    def __init__(
        self, door: Door, first: Piece, chunks: Iterator[bytes], headers: dict[str, str], media_type: str
    ) -> None:
        self.door = door
        self.piece = first
        self.chunks = chunks
        self.ahead: Future[Piece] | None = None
        super().__init__((), HTTPStatus.OK, headers, media_type)

    async def stream_response(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            more = True
            while more:
                chunks, more = self.piece
                self.ahead = self.door.ahead.submit(gather, self.chunks) if more else None
                while chunks:
                    await send({"type": "http.response.body", "body": chunks.pop(0), "more_body": True})
                if self.ahead is not None:
                    self.piece = await asyncio.wrap_future(self.ahead)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except CairnError as error:
            log.error("broken off: %s: %s", error.slug, error.detail)
            raise
        finally:
            with CancelScope(shield=True):
                await self.door.read(self._close)

    def _close(self) -> None:
        """End the iterator; what reads ahead is waited for first, since a generator that runs cannot be closed."""
        if self.ahead is not None and not self.ahead.cancel():
            wait((self.ahead,))
        close(self.chunks)


def gather(chunks: Iterator[bytes], most: int = PIECE) -> Piece:
    """The next `most` bytes or a little more, or all to the end; large chunks as they are, small ones joined.

    One hop to a thread then serves many chunks, and nothing large is copied.
    """
    large: list[bytes] = []
    small: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if len(chunk) < LARGE:
            small.append(chunk)
        else:
            large += [b"".join(small), chunk] if small else [chunk]
            small = []
        if size >= most:
            break
    return Piece([*large, b"".join(small)] if small else large, size >= most)


def close(chunks: Iterator[bytes]) -> None:
    """End a generator that will not be read to its end."""
    if isinstance(chunks, Generator):
        chunks.close()


def respond(
    exchange: Exchange, chunks: Iterator[bytes], headers: dict[str, str], media_type: str, length: int | None
) -> Response:
    """A body of `length` bytes (None: not known), streamed unless it is one piece; for HEAD its headers, nothing read.

    The first piece is read here: what fails before a byte was sent is still answered with a status.
    """
    if length is not None:
        headers["content-length"] = str(length)
    if exchange.method == "HEAD":
        close(chunks)
        return _head(headers, media_type)
    # Of a body that is large for certain a little goes out at once, and the rest is read while that is sent.
    first = gather(chunks, FIRST if length is None or length <= PIECE else LARGE)
    if not first.more:
        return whole(exchange, b"".join(first.chunks), headers, media_type)
    return Stream(exchange.door, first, chunks, headers, media_type)


def whole(exchange: Exchange, body: bytes, headers: dict[str, str], media_type: str) -> Response:
    """A body that is already in memory; its headers alone for HEAD (RFC 9110 9.3.2)."""
    if exchange.method == "HEAD":
        return _head({**headers, "content-length": str(len(body))}, media_type)
    return Response(body, HTTPStatus.OK, headers, media_type)


def _head(headers: dict[str, str], media_type: str) -> Response:
    response = Response(None, HTTPStatus.OK, {"content-length": "0", **headers}, media_type)
    if "content-length" not in headers:
        del response.headers["content-length"]
    return response
