"""What is asked of a Kubo besides blocks, by ipfshttpclient: who it is, its version, its pins, its peers.

`ipfshttpclient.Client` and never `connect()`, whose check of the version refuses every Kubo of today.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar

import ipfshttpclient

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content.kubo import configuration
from bridge.content.kubo.rpc import base_url, credential
from bridge.errors import EngineFault

__all__ = ["Control"]

ASK_S: Final = 5.0
PINS_S: Final = 60.0
CLOSE_S: Final = 1.0
_NOT_PINNED: Final = ("is not pinned", "not pinned or pinned indirectly")
# Of an answer of another form; the library asserts how many JSON values come.
_OTHERWISE: Final = (AssertionError, AttributeError, KeyError, TypeError, ValueError)
T = TypeVar("T")


class Control:
    """One Kubo, asked one question after another; safe to use from many threads. Methods raise EngineFault."""

    def __init__(self, kubo: Kubo) -> None:
        host, port = configuration.endpoint(kubo.api)
        scheme = base_url(kubo).partition(":")[0]
        address = f"{configuration.multiaddress(host, port)}/{scheme}"
        self._client, self._patient = (
            ipfshttpclient.Client(address, session=True, headers=credential(kubo), timeout=seconds)
            for seconds in (ASK_S, PINS_S)
        )
        # requests.Session does not promise to be safe for threads. What takes long has one of its own, so that nobody
        # who only asks how Kubo fares waits behind it.
        self._locks = {self._client: threading.Lock(), self._patient: threading.Lock()}

    def close(self) -> None:
        """Close the connections; one on which a Kubo that hangs is waited for is left, as it holds nothing."""
        for client, lock in self._locks.items():
            if lock.acquire(timeout=CLOSE_S):
                client.close()
                lock.release()

    def id(self) -> str:
        """Kubo's peer ID."""
        return self._ask(lambda: str(self._client.id()["ID"]))

    def version(self) -> str:
        """Kubo's version, such as "0.42.0"."""
        return self._ask(lambda: str(self._client.version()["Version"]))

    def peers(self) -> list[str]:
        """The peer IDs that Kubo is connected to."""
        return self._ask(
            lambda: [str(peer["Peer"]) for peer in self._client.swarm.peers().as_json().get("Peers") or ()]
        )

    def pinned(self, root: bytes) -> bool:
        """Whether a root is pinned recursively."""
        try:
            self._ask(lambda: self._client.pin.ls(cids.to_text(root), type="recursive"))
        except _NotPinned:
            return False
        return True

    def pins(self) -> set[bytes]:
        """Every root that is pinned recursively and has a CID of the kinds that we use."""
        # without a single pin there is no such member
        keys = self._ask(
            lambda: dict(self._patient.pin.ls(type="recursive").as_json().get("Keys") or {}), self._patient
        )
        found = set()
        for text in keys:
            try:
                found.add(cids.from_text(text))
            except ValueError:  # somebody else's
                continue
        return found

    def unpin(self, root: bytes) -> None:
        """Remove the recursive pin of a root; without effect when there is none."""
        try:
            self._ask(lambda: self._patient.pin.rm(cids.to_text(root)), self._patient)
        except _NotPinned:
            return

    def _ask(self, question: Callable[[], T], client: Any = None) -> T:
        with self._locks[client or self._client]:
            # The library gives urllib3 2 a word that only version 3 will refuse, and urllib3 says so at each request.
            warnings.filterwarnings("ignore", "The 'strict' parameter", FutureWarning, "urllib3")
            try:
                return question()
            except ipfshttpclient.exceptions.ErrorResponse as error:
                if any(word in str(error) for word in _NOT_PINNED):
                    raise _NotPinned(str(error)) from None
                raise EngineFault(f"Kubo: {error}") from error
            except ipfshttpclient.exceptions.TimeoutError as error:
                raise EngineFault("Kubo does not answer in time") from error
            except (ipfshttpclient.exceptions.DecodingError, *_OTHERWISE) as error:
                raise EngineFault("what answers is no Kubo, or not as its API says") from error
            except ipfshttpclient.exceptions.Error as error:
                raise EngineFault(f"Kubo cannot be reached ({type(error).__name__})") from error


class _NotPinned(EngineFault):
    """Kubo answered that a root has no recursive pin."""
