"""The members' listener: one that fails does not stay dead beside a node that goes on."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from types import SimpleNamespace

import pytest

from bridge import members_listener
from bridge.errors import StorageFault
from bridge.members_listener import KnownMembers, MembersListener


def test_a_listener_that_fails_ends_its_process_to_be_started_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def failing(sockets: list[socket.socket]) -> None:
        raise RuntimeError("no event loop")

    server = SimpleNamespace(run=failing, should_exit=False)
    monkeypatch.setattr(members_listener, "_server", lambda context, names, node: server)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.socket() as listener:
        running = MembersListener(listener, context, {}, SimpleNamespace(consortium=None))
        running.start()
        running.stop()
    assert sent == [(os.getpid(), signal.SIGTERM)]


class Consortium:
    """Members by name and certificate; the first is this node."""

    def __init__(self, *members: SimpleNamespace) -> None:
        self.held = list(members)

    def own(self) -> SimpleNamespace:
        return self.held[0]

    def members(self) -> list[SimpleNamespace]:
        return self.held


def member(name: str, certificate: bytes, *, active: bool = True) -> SimpleNamespace:
    card = SimpleNamespace(certificate=certificate)
    return SimpleNamespace(name=name, node=name.encode(), card=card, active=active)


class Trust:
    """What the TLS context was told to trust."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def load_verify_locations(self, *, cadata: bytes) -> None:
        self.told.append(cadata)


def test_whom_the_ledger_takes_in_or_retires_is_known_or_not_without_a_restart() -> None:
    consortium, trust = Consortium(member("here", b"own"), member("north", b"1")), Trust()
    known = KnownMembers(trust, {b"0": "peer"}, consortium)  # type: ignore[arg-type]
    assert [known.name(certificate) for certificate in (b"0", b"1", b"2", b"own")] == ["peer", "north", None, None]
    consortium.held[1:] = [member("north", b"1", active=False), member("south", b"2")]
    known.renew()
    assert [known.name(certificate) for certificate in (b"0", b"1", b"2")] == ["peer", None, "south"]
    consortium.held[1:] = [member("north", b"3"), member("south", b"2")]
    known.renew()
    assert [known.name(certificate) for certificate in (b"1", b"3")] == [None, "north"]
    assert trust.told == [b"1", b"2", b"3"]


def test_members_that_cannot_be_read_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    consortium = Consortium(member("here", b"own"), member("north", b"1"))
    known = KnownMembers(Trust(), {}, consortium)  # type: ignore[arg-type]

    def unreadable() -> None:
        raise StorageFault("the shared log cannot be read")

    monkeypatch.setattr(consortium, "members", unreadable)
    known.renew()
    assert known.name(b"1") == "north"
