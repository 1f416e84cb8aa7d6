"""The members' listener over real TLS towards who sends slowly, without end, or does not read: nobody holds it up."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge import member_protocol, members_listener
from bridge.config import Member, Members
from bridge.members_listener import MembersListener, member_names, tls_context
from tests.node.audit_repository import Authority, Identity

PATIENCE_S = 30.0
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def app(node: Any) -> Callable[..., Awaitable[None]]:
    """Answers with the member's name; /large with more than any buffer holds; /body when the body is there."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        while scope["path"] == "/body" and (await receive()).get("more_body"):
            pass
        name = str(scope["state"]["member"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-member", name)]})
        for _ in range(2_000 if scope["path"] == "/large" else 0):
            await send({"type": "http.response.body", "body": bytes(64 << 10), "more_body": True})
        await send({"type": "http.response.body", "body": name})

    return answer


class Hospital:
    """A listener with two members, north and south."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.own = authority.issue("here", "127.0.0.1")
        self.north, self.south = authority.issue("north"), authority.issue("south")
        peers = tuple(Member(name, one.certificate) for name, one in (("north", self.north), ("south", self.south)))
        members = Members(certificate=self.own.certificate, key=self.own.key, peers=peers)
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        node = SimpleNamespace(consortium=None)
        self.running = MembersListener(listener, tls_context(members), member_names(members), node)

    def connect(self, identity: Identity) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(identity.certificate, identity.key)
        return context.wrap_socket(socket.create_connection(self.address, PATIENCE_S))


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hospital]:
    monkeypatch.setattr(members_listener, "APP", f"{__name__}:app")
    made = Hospital(tmp_path)
    made.running.start()
    yield made
    made.running.stop()


def answered(connection: ssl.SSLSocket, request: bytes = REQUEST) -> bytes:
    """The status line of the answer; nothing when the connection was closed."""
    try:
        connection.sendall(request)
        return connection.recv(65536).partition(b"\r\n")[0]
    except OSError:
        return b""


def is_closed(connection: ssl.SSLSocket) -> bool:
    """Whether the other end closes it, within the test's patience."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def test_a_member_is_known_by_its_certificate(hospital: Hospital) -> None:
    for identity, name in ((hospital.north, b"north"), (hospital.south, b"south")):
        with closing(hospital.connect(identity)) as connection:
            connection.sendall(REQUEST)
            assert b"x-member: " + name in connection.recv(65536)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"\r\n",
        REQUEST + b"GET / HT",
        b"POST / HTTP/1.1\r\ncontent-length: 9",
    ],
)
def test_a_head_that_does_not_come_ends_the_connection(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(member_protocol, "HEAD_S", 0.3)
    with closing(hospital.connect(hospital.north)) as connection:
        connection.sendall(sent)
        assert is_closed(connection)


def test_a_body_that_is_left_behind_holds_no_connection(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_protocol, "HEAD_S", 0.3)
    with closing(hospital.connect(hospital.north)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n1")
        assert is_closed(connection)


def test_a_head_without_end_is_cut_off(hospital: Hospital) -> None:
    with closing(hospital.connect(hospital.north)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for number in range(1_000_000):
                connection.sendall(b"x-%d: %s\r\n" % (number, bytes(1000).replace(b"\0", b"x")))
    with closing(hospital.connect(hospital.south)) as other:
        assert answered(other) == b"HTTP/1.1 200 OK"


def test_an_answer_that_is_not_read_ends_the_connection(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_protocol, "STALL_S", 0.3)
    with closing(hospital.connect(hospital.north)) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/large "))
        assert connection.recv(1).startswith(b"H")
        with closing(hospital.connect(hospital.south)) as other:
            assert answered(other) == b"HTTP/1.1 200 OK"
            until_gone(hospital, "north")
        assert is_closed(connection)


def test_one_member_has_a_part_of_the_connections_and_the_others_are_answered(hospital: Hospital) -> None:
    with ExitStack() as stack:
        held = [
            stack.enter_context(closing(hospital.connect(hospital.north)))
            for _ in range(2 * member_protocol.OF_ONE + 4)
        ]
        statuses = [answered(connection) for connection in held]
        assert statuses.count(b"HTTP/1.1 200 OK") == member_protocol.OF_ONE
        assert statuses.count(b"HTTP/1.1 503 Service Unavailable") == member_protocol.OF_ONE
        assert statuses.count(b"") == 4
        assert answered(stack.enter_context(closing(hospital.connect(hospital.south)))) == b"HTTP/1.1 200 OK"
    until_gone(hospital, "north")
    with closing(hospital.connect(hospital.north)) as connection:
        assert answered(connection) == b"HTTP/1.1 200 OK"


def until_gone(hospital: Hospital, member: str) -> None:
    """Until the listener counts no connection of a member."""
    held = hospital.running._server.config.http_protocol_class.listening.held  # type: ignore[union-attr]
    until = time.monotonic() + PATIENCE_S
    while held[member]:
        assert time.monotonic() < until, held
        time.sleep(0.01)
