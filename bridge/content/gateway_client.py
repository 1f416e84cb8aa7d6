"""Another member's listener, over mutual TLS: its trustless gateway as a source of blocks, each verified by its CID,
and what members ask each other besides.

A gateway gives what its node has at hand and asks nobody for it (`bridge.content.at_hand`), so that members that lack a
block do not ask each other in a circle.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import urlsplit

from bridge.content import car, dag
from bridge.content import cid as cids
from bridge.content.at_hand import asks_nobody
from bridge.content.car import MAX_BLOCK, CarReader
from bridge.content.car_transfer import MAX_BLOCKS
from bridge.content.passed import PassedCids
from bridge.errors import CarInvalid, ContentCorrupt, ContentMissing, EngineFault, RequestError

if TYPE_CHECKING:
    import httpx

__all__ = ["GatewayClient"]

log = logging.getLogger(__name__)
RAW: Final = "application/vnd.ipld.raw"
CAR: Final = "application/vnd.ipld.car"
JSON: Final = "application/json"
MOST_TOLD: Final = 4 << 20
"""Bytes of an answer that is neither block nor CAR."""
_ABSENT: Final = frozenset({401, 403, 404, 410, 412})
_RESTS_S: Final = (1.0, 30.0)
_RESTS_FOR: Final = 10.0
"""A member that did not answer is left alone for so many times as long as that took to learn, within these bounds: one
that refuses connections, as while it restarts, is asked again soon, one whose packets get lost costs no one its time.
"""
_TIMEOUT_S: Final = 20.0
_WHOLE_S: Final = 120.0
"""Within which a block or a short answer must be there; httpx bounds the time of each part alone."""
_PIECE: Final = 64 << 10
"""Bytes read at once: TLS hands over 16 KiB at a time, for which no megabyte need be reserved."""
_SLOWEST: Final = 64 << 10
"""Bytes a second that a tree must come with on the whole, or it is given up."""
_PURPOSE: Final = "HOPERAT"


class GatewayClient:
    """One member's gateway. Thread-safe.

    Parameters
    ----------
    name
        The member's name, for messages.
    url
        Where its gateway listens, `https://host:port`.
    context
        Makes the TLS context that shows this node's certificate and trusts that member's; called at the first use.
    clock
        Seconds of a monotonic clock.
    wrong
        Told the member's name and a CID's text for each block that it offered and that was another.
    rests
        Whether a member that did not answer is left alone for a while; not for who makes pauses of its own.
    """

    def __init__(
        self,
        name: str,
        url: str,
        context: Callable[[], ssl.SSLContext],
        clock: Callable[[], float] = time.monotonic,
        wrong: Callable[[str, str], None] = lambda name, cid: None,
        rests: bool = True,
    ) -> None:
        self._rests = rests
        self._wrong = wrong
        self.name = name
        self._url = url.rstrip("/")
        self._context = context
        self._clock = clock
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._rests_until = 0.0

    def __call__(self, cid: bytes) -> bytes:
        """The block.

        Raises ContentMissing when the member does not have it or does not give it, ContentCorrupt when what came is
        another, EngineFault when it does not answer; it is then left alone for a while, up to half a minute.
        """
        name = cids.to_text(cid)
        if asks_nobody():
            raise ContentMissing(f"block {name} is not at hand")
        with self._asked(f"/ipfs/{name}?format=raw") as answer:
            if answer.status_code in _ABSENT:
                raise ContentMissing(f"block {name} is not to be had from {self.name}")
            if answer.status_code != 200:
                raise EngineFault(f"member {self.name} answered {answer.status_code}")
            data, until = bytearray(), self._clock() + _WHOLE_S
            for piece in answer.iter_raw():
                data += piece
                if len(data) > MAX_BLOCK:
                    break
                if self._clock() > until:
                    raise EngineFault(f"member {self.name} answers too slowly")
        if len(data) > MAX_BLOCK or not cids.verify(cid, data):
            self._wrong(self.name, name)
            raise ContentCorrupt(f"what member {self.name} sends is not the block {name}")
        return bytes(data)

    def tree(self, root: bytes, file: BinaryIO, most: int) -> int:
        """Write the CAR of the tree below a root to a file, each block verified as it comes; its size in bytes.

        Raises ContentMissing when the member does not give it, CarInvalid at a block that is another, or is none of the
        tree that comes once, or when it gives more than `most` bytes, EngineFault when it does not answer or stops, and
        OSError of the file.
        """
        name = cids.to_text(root)
        with self._streamed(f"/ipfs/{name}?format=car", CAR) as (status, read):
            if status in _ABSENT:
                raise ContentMissing(f"the tree {name} is not to be had from {self.name}")
            if status != 200:
                raise EngineFault(f"member {self.name} answered {status}")
            size, tree = file.write(car.encode_header([root])), _Tree(root)
            try:
                reader = CarReader(read)
                for block in reader:
                    tree.take(block.cid, block.data)
                    size += file.write(car.section_head(block.cid, len(block.data)))
                    size += file.write(block.data)
                    if size > most:
                        raise CarInvalid(f"member {self.name} sends more than the {most} bytes that it announced")
            except ContentCorrupt as error:
                if "is not the block" in error.detail:
                    self._wrong(self.name, name)
                raise CarInvalid(f"member {self.name}: {error.detail}") from None
        return size

    def ask(self, method: str, path: str, body: bytes | Mapping[str, object] | None = None) -> Any:
        """What the member answers to a request of its listener, read as JSON; None to an empty answer.

        A body of bytes is sent as it is, a mapping as JSON. Raises EngineFault when the member does not answer or fails
        (5xx), ContentMissing when it does not know what was asked for (401, 403, 404, 410), RequestError with what it
        says when it refuses the request, or answers what is no JSON.
        """
        content = json.dumps(body).encode() if isinstance(body, Mapping) else body
        kind = (
            {} if body is None else {"content-type": JSON if isinstance(body, Mapping) else "application/octet-stream"}
        )
        data = bytearray()
        with self._asked(path, method=method, accept=JSON, content=content, more=kind, at_hand=False) as answer:
            self._read(answer, data)
            status = answer.status_code
        try:
            told = json.loads(data) if data else None
        except (ValueError, RecursionError):
            raise RequestError(f"member {self.name} answered {status} with what is no JSON") from None
        if status < 300:
            return told
        said = str(told.get("detail") or told.get("title") or "")[:200] if isinstance(told, dict) else ""
        if status >= 500:
            raise EngineFault(f"member {self.name} answered {status}: {said}")
        if status in _ABSENT:
            raise ContentMissing(f"member {self.name} does not give this ({status}): {said}")
        raise RequestError(f"member {self.name} refused this ({status}): {said}")

    def post(self, path: str, body: bytes, kind: str) -> tuple[int, str, bytes]:
        """Status, media type and body of what the member answers to a POST, whatever they are.

        It is asked also when it did not answer a moment ago: whoever asks makes pauses of its own. Raises EngineFault
        when it does not answer, RequestError when it answers more than 4 MiB.
        """
        data = bytearray()
        more = {"content-type": kind}
        with self._asked(
            path, method="POST", accept="*/*", content=body, more=more, at_hand=False, resting=False
        ) as answer:
            self._read(answer, data)
            return answer.status_code, answer.headers.get("content-type", ""), bytes(data)

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _read(self, answer: httpx.Response, data: bytearray) -> None:
        """What it answers, as it is on the wire: it was asked for no encoding, and none is undone."""
        until = self._clock() + _WHOLE_S
        for piece in answer.iter_raw():
            data += piece
            if len(data) > MOST_TOLD:
                raise RequestError(f"member {self.name} answers more than {MOST_TOLD} bytes")
            if self._clock() > until:
                raise EngineFault(f"member {self.name} answers too slowly")

    @contextmanager
    def _asked(
        self,
        path: str,
        *,
        method: str = "GET",
        accept: str = RAW,
        content: bytes | None = None,
        more: Mapping[str, str] | None = None,
        at_hand: bool = True,
        resting: bool = True,
    ) -> Iterator[httpx.Response]:
        import httpx

        asked, silent = self._clock(), self._rests_until > 0.0
        if asked < self._rests_until and resting and self._rests:
            raise EngineFault(f"member {self.name} did not answer a moment ago")
        headers = {"accept": accept, "accept-encoding": "identity", "cairn-purpose": _PURPOSE, **(more or {})}
        if at_hand:
            headers["cache-control"] = "only-if-cached"
        try:
            with self._opened().stream(method, self._url + path, headers=headers, content=content) as answer:
                self._rests_until = 0.0
                yield answer
        except httpx.HTTPError as error:
            raise self._silent(asked, silent, error) from error

    @contextmanager
    def _streamed(self, path: str, accept: str) -> Iterator[tuple[int, Callable[[int], bytes]]]:
        """The status of the answer to a GET, and what reads its body, some bytes at a time.

        Over a connection of its own, by the standard library: for hundreds of megabytes that takes half of httpx's
        processor time. Raises EngineFault, as does the reading.
        """
        asked, silent = self._clock(), self._rests_until > 0.0
        if asked < self._rests_until and self._rests:
            raise EngineFault(f"member {self.name} did not answer a moment ago")
        place = urlsplit(self._url)
        host, port = place.hostname or "", place.port
        if place.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._context())
        else:
            connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
        try:
            try:
                headers = {"accept": accept, "accept-encoding": "identity", "cairn-purpose": _PURPOSE}
                connection.request("GET", place.path + path, headers=headers)
                answer = connection.getresponse()
            except (OSError, HTTPException) as error:
                raise self._silent(asked, silent, error) from error
            self._rests_until = 0.0
            size = 0

            def read(most: int) -> bytes:
                nonlocal size
                if self._clock() > asked + _WHOLE_S + size / _SLOWEST:
                    raise EngineFault(f"member {self.name} answers too slowly")
                try:
                    piece = answer.read1(min(most, _PIECE))
                except (OSError, HTTPException) as error:
                    raise self._silent(asked, silent, error) from error
                size += len(piece)
                return piece

            yield answer.status, read
        finally:
            connection.close()

    def _silent(self, asked: float, silent: bool, error: Exception) -> EngineFault:
        """What is to be raised when a member did not answer, or stopped; it is left alone for a while."""
        now, (least, most) = self._clock(), _RESTS_S
        self._rests_until = now + min(max((now - asked) * _RESTS_FOR, least), most)
        if not silent:
            log.warning("a member does not answer", extra={"peer": self.name})
        return EngineFault(f"member {self.name} does not answer: {type(error).__name__}")

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(verify=self._context(), timeout=_TIMEOUT_S, trust_env=False)
            return self._client


class _Tree:
    """What may come of a tree in a CAR: each block once, behind one that links to it; so nobody sends without end."""

    def __init__(self, root: bytes) -> None:
        self._linked, self._came = PassedCids(), PassedCids()
        self._linked.add(root)
        self._count = 1

    def take(self, cid: bytes, data: bytes | bytearray) -> None:
        """A block comes. Raises ContentCorrupt when it must not, or its links cannot be read."""
        if cid not in self._linked or cid in self._came:
            raise ContentCorrupt(f"it sends {cids.to_text(cid)}, which is no block of the tree, or came before")
        self._came.add(cid)
        for link in dag.links(cid, bytes(data)) if cids.parse(cid).codec != cids.RAW else ():
            if link not in self._linked:
                self._linked.add(link)
                self._count += 1
        if self._count > MAX_BLOCKS:
            raise ContentCorrupt(f"the tree has more than {MAX_BLOCKS} blocks")
