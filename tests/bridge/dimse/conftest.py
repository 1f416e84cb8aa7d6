"""An acceptor on a free port in front of a store door in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bridge.access.devices import is_loopback
from bridge.dimse.acceptor import Acceptor, AcceptorSettings, Authorise
from bridge.errors import Forbidden
from bridge.model import Actor, ActorKind, Role


@dataclass
class Held:
    """What the door took in for one instance."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    source_ae: str
    data: bytes
    largest_chunk: int


@dataclass
class MemoryDoor:
    """Keeps what is committed; `fail` may name an error per step ("begin", "write", "commit")."""

    fail: dict[str, Exception] = field(default_factory=dict)
    discard: bool = False
    held: list[Held] = field(default_factory=list)
    aborted: int = 0
    actors: list[Actor] = field(default_factory=list)
    closed: int = 0
    before_commit: Callable[[], object] = lambda: None
    changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def reception(self, actor: Actor) -> Iterator[MemoryReception]:
        self.actors.append(actor)
        try:
            yield MemoryReception(self)
        finally:
            with self.changed:
                self.closed += 1
                self.changed.notify_all()

    def raise_for(self, step: str) -> None:
        if step in self.fail:
            raise self.fail[step]

    def wait_for(self, predicate: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(predicate, timeout=30)


@dataclass
class MemoryReception:
    door: MemoryDoor

    def begin_data_set(self, sop_class: str, sop_instance: str, transfer_syntax: str, source_ae: str) -> MemoryIncoming:
        self.door.raise_for("begin")
        return MemoryIncoming(self.door, Held(sop_class, sop_instance, transfer_syntax, source_ae, b"", 0))


@dataclass
class MemoryIncoming:
    door: MemoryDoor
    held: Held
    parts: list[bytes] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def write(self, chunk: bytes) -> None:
        self.door.raise_for("write")
        self.held.largest_chunk = max(self.held.largest_chunk, len(chunk))
        self.digest.update(chunk)
        if not self.door.discard:
            self.parts.append(chunk)
        with self.door.changed:
            self.door.changed.notify_all()

    def commit(self) -> str:
        self.door.before_commit()
        self.door.raise_for("commit")
        self.held.data = self.digest.digest() if self.door.discard else b"".join(self.parts)
        with self.door.changed:
            self.door.held.append(self.held)
            self.door.changed.notify_all()
        return "receipt"

    def abort(self) -> None:
        with self.door.changed:
            self.door.aborted += 1
            self.door.changed.notify_all()


def loopback_only(calling: str, address: str) -> Actor:
    """As the node does without an allow-list: anybody from loopback, but not STRANGER."""
    if calling == "STRANGER" or not is_loopback(address):
        raise Forbidden("unknown")
    return Actor(ActorKind.DEVICE, calling, Role.DEVICE, address, "dimse")


@pytest.fixture
def authorise() -> Authorise:
    return loopback_only


@pytest.fixture
def door() -> MemoryDoor:
    return MemoryDoor()


@pytest.fixture
def serve(door: MemoryDoor) -> Iterator[Callable[..., Acceptor]]:
    """Start an acceptor with settings that differ from the defaults; stopped when the test ends."""
    started: list[Acceptor] = []

    def start(**changes: object) -> Acceptor:
        acceptor = Acceptor(AcceptorSettings(port=0, **changes), door, loopback_only)  # type: ignore[arg-type]
        acceptor.start()
        started.append(acceptor)
        return acceptor

    yield start
    for acceptor in started:
        assert acceptor.stop(drain_s=5)
        assert acceptor.associations == 0


@pytest.fixture
def acceptor(serve: Callable[..., Acceptor]) -> Acceptor:
    return serve()
