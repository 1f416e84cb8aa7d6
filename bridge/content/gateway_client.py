"""Another member's trustless gateway as a source of blocks, over mutual TLS; every block is verified by its CID.

A gateway gives what its node has at hand and asks nobody for it (`at_hand_only`), so that members that lack a block do
not ask each other in a circle.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bridge.content import cid as cids
from bridge.content.car import MAX_BLOCK
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault

if TYPE_CHECKING:
    import httpx

__all__ = ["GatewayClient", "at_hand_only"]

log = logging.getLogger(__name__)
RAW: Final = "application/vnd.ipld.raw"
_ABSENT: Final = frozenset({401, 403, 404, 410, 412})
_RESTS_S: Final = 30.0
_TIMEOUT_S: Final = 20.0
_PURPOSE: Final = "HOPERAT"
_serving = threading.local()


@contextmanager
def at_hand_only() -> Iterator[None]:
    """Within the block no gateway is asked by this thread: each has nothing to give."""
    before = getattr(_serving, "now", False)
    _serving.now = True
    try:
        yield
    finally:
        _serving.now = before


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
    """

    def __init__(
        self,
        name: str,
        url: str,
        context: Callable[[], ssl.SSLContext],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
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
        another, EngineFault when it does not answer; it is then left alone for half a minute.
        """
        name = cids.to_text(cid)
        if getattr(_serving, "now", False):
            raise ContentMissing(f"block {name} is not at hand")
        with self._asked(f"/ipfs/{name}?format=raw") as answer:
            if answer.status_code in _ABSENT:
                raise ContentMissing(f"block {name} is not to be had from {self.name}")
            if answer.status_code != 200:
                raise EngineFault(f"member {self.name} answered {answer.status_code}")
            data = bytearray()
            for piece in answer.iter_raw():
                data += piece
                if len(data) > MAX_BLOCK:
                    raise ContentCorrupt(f"member {self.name} sends more than a block for {name}")
        if not cids.verify(cid, data):
            raise ContentCorrupt(f"what member {self.name} sends is not the block {name}")
        return bytes(data)

    def close(self) -> None:
        """Close its connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def _asked(self, path: str) -> Iterator[httpx.Response]:
        import httpx

        if self._clock() < self._rests_until:
            raise EngineFault(f"member {self.name} did not answer a moment ago")
        headers = {
            "accept": RAW,
            "accept-encoding": "identity",
            "cache-control": "only-if-cached",
            "cairn-purpose": _PURPOSE,
        }
        try:
            with self._opened().stream("GET", self._url + path, headers=headers) as answer:
                yield answer
        except httpx.HTTPError as error:
            self._rests_until = self._clock() + _RESTS_S
            log.warning("a member does not answer", extra={"peer": self.name})
            raise EngineFault(f"member {self.name} does not answer: {type(error).__name__}") from error

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(verify=self._context(), timeout=_TIMEOUT_S, trust_env=False)
            return self._client
