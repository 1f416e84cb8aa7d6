"""The members' listener: one that fails does not stay dead beside a node that goes on."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from types import SimpleNamespace

import pytest

from bridge import members_listener
from bridge.members_listener import MembersListener


def test_a_listener_that_fails_ends_its_process_to_be_started_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def failing(sockets: list[socket.socket]) -> None:
        raise RuntimeError("no event loop")

    server = SimpleNamespace(run=failing, should_exit=False)
    monkeypatch.setattr(members_listener, "_server", lambda context, names, node: server)
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    with socket.socket() as listener:
        running = MembersListener(listener, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), {}, None)
        running.start()
        running.stop()
    assert sent == [(os.getpid(), signal.SIGTERM)]
