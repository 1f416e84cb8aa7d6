"""What no sender should send: each gets the right answer, costs bounded memory, and leaves the others alone."""

from __future__ import annotations

import resource
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext

from bridge.dimse import acceptor as acceptor_module
from bridge.dimse.acceptor import Acceptor

if TYPE_CHECKING:
    from conftest import MemoryDoor

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
UNRECOGNISED, UNEXPECTED, BAD_VALUE = 1, 2, 6
RELEASE_RQ = struct.pack(">BxI4x", 5, 4)


def associate_rq(application: str = "1.2.840.10008.3.1.1.1", called: str = "CAIRN") -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = application
    primitive.calling_ae_title = "RAW"
    primitive.called_ae_title = called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation]
    contexts: list[PresentationContext] = []
    for number, uid in ((1, VERIFICATION), (3, CT)):
        context = build_context(uid)
        context.context_id = number
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    return A_ASSOCIATE_RQ(primitive).encode()


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def pdv(data: bytes, context: int = 3, control: int = 3, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context, control) + data


def receive(sock: socket.socket) -> bytes:
    """The next PDU whole, b"" when the peer has closed."""
    header = b""
    while len(header) < 6:
        part = sock.recv(6 - len(header))
        if not part:
            return b""
        header += part
    length = int.from_bytes(header[2:], "big")
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    return header + body


@contextmanager
def connected(acceptor: Acceptor, *, associated: bool = False) -> Iterator[socket.socket]:
    with socket.create_connection(acceptor.address, timeout=20) as sock:
        if associated:
            sock.sendall(associate_rq())
            assert receive(sock)[0] == 2
        yield sock


def is_aborted(sock: socket.socket, reason: int) -> bool:
    """Whether the next is an A-ABORT by the provider for `reason`, and then the end (PS3.8 section 9.3.8)."""
    return receive(sock) == bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason]) and receive(sock) == b""


@pytest.fixture(autouse=True)
def others_are_served(acceptor: Acceptor) -> Iterator[None]:
    yield
    echo = subprocess.run(
        ["echoscu", "-aec", "CAIRN", *map(str, acceptor.address)], timeout=30, capture_output=True, check=False
    )
    assert echo.returncode == 0, echo.stderr


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: cairn\r\n\r\n", UNRECOGNISED),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", UNRECOGNISED),  # a TLS ClientHello
        (pdu(0, b""), UNRECOGNISED),
        (pdu(8, b""), UNRECOGNISED),
        (pdu(0xFF, b""), UNRECOGNISED),
        (pdu(4, pdv(b"")), UNEXPECTED),  # data before an association
        (RELEASE_RQ, UNEXPECTED),
        (pdu(2, b""), UNEXPECTED),
        (pdu(1, b"", 0xFFFFFFFF), BAD_VALUE),
        (pdu(1, b"", 0), BAD_VALUE),
        (pdu(1, b"\0"), BAD_VALUE),
        (pdu(1, b"\xff" * 200), BAD_VALUE),
    ],
)
def test_what_is_no_association_request_is_aborted(acceptor: Acceptor, sent: bytes, reason: int) -> None:
    with connected(acceptor) as sock:
        sock.sendall(sent)
        assert is_aborted(sock, reason)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (associate_rq(), UNEXPECTED),
        (pdu(9, b""), UNRECOGNISED),
        (pdu(4, b"", 0xFFFFFFFF), BAD_VALUE),
        (pdu(4, b"", 256 * 1024 + 13), BAD_VALUE),
        (pdu(4, b"\0\0\0"), BAD_VALUE),
        (pdu(4, pdv(b"", length=0)), BAD_VALUE),
        (pdu(4, pdv(b"", length=1)), BAD_VALUE),
        (pdu(4, pdv(b"", length=100)), BAD_VALUE),
        (pdu(4, pdv(b"", length=0xFFFFFFFD)), BAD_VALUE),
        (pdu(4, pdv(b"x", context=99)), BAD_VALUE),
        (pdu(4, pdv(b"x", context=0)), BAD_VALUE),
        (pdu(4, pdv(b"x", context=2)), BAD_VALUE),
        (pdu(4, pdv(b"garbage")), BAD_VALUE),
        (pdu(4, pdv(b"data", control=2)), 5),
        (pdu(5, bytes(400)), BAD_VALUE),
    ],
)
def test_what_breaks_an_association_is_aborted(acceptor: Acceptor, door: MemoryDoor, sent: bytes, reason: int) -> None:
    with connected(acceptor, associated=True) as sock:
        sock.sendall(sent)
        assert is_aborted(sock, reason)
    assert not door.held


def test_another_application_context_is_rejected(acceptor: Acceptor) -> None:
    with connected(acceptor) as sock:
        sock.sendall(associate_rq(application="1.2.3.4"))
        assert receive(sock) == bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 2])


def test_a_request_by_single_bytes_is_served(acceptor: Acceptor) -> None:
    with connected(acceptor) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in associate_rq():
            sock.send(bytes([byte]))
        assert receive(sock)[0] == 2
        sock.sendall(RELEASE_RQ)
        assert receive(sock) == bytes([6, 0, 0, 0, 0, 4, 0, 0, 0, 0])


def test_empty_data_pdus_mean_nothing(acceptor: Acceptor) -> None:
    with connected(acceptor, associated=True) as sock:
        sock.sendall(pdu(4, b"") * 1000 + RELEASE_RQ)
        assert receive(sock)[0] == 6


def test_a_length_that_is_claimed_is_not_allocated(acceptor: Acceptor) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, associated in ((1, False), (4, True)):
        with connected(acceptor, associated=associated) as sock:
            sock.sendall(pdu(kind, bytes(1_000_000), 0xFFFFFFFF))
            assert is_aborted(sock, BAD_VALUE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_large_instance_flows_through_bounded_memory(acceptor: Acceptor, door: MemoryDoor) -> None:
    from pydicom.dataset import Dataset
    from pynetdicom.dsutils import encode

    door.discard = True
    command = Dataset()
    command.AffectedSOPClassUID = CT
    command.CommandField = 1
    command.MessageID = 1
    command.CommandDataSetType = 1
    command.AffectedSOPInstanceUID = "1.2.3"
    part = pdu(4, pdv(bytes(256 * 1024 - 6), control=0))
    with connected(acceptor, associated=True) as sock:
        sock.sendall(pdu(4, pdv(encode(command, True, True) or b"")))
        sock.sendall(part * 4)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(1000):
            sock.sendall(part)
        sock.sendall(pdu(4, pdv(b"", control=2)))
        assert receive(sock)[0] == 4
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB, for 250 MiB
    assert len(door.held) == 1


@pytest.mark.parametrize("begun", [b"", b"\x01\x00", associate_rq()[:50]])
def test_a_silent_peer_is_closed_after_the_time_for_association(serve: Callable[..., Acceptor], begun: bytes) -> None:
    acceptor = serve(associate_timeout=0.3)
    with connected(acceptor) as sock:
        sock.sendall(begun)
        assert sock.recv(100) == b""


def test_a_peer_that_trickles_cannot_stretch_the_time_for_association(serve: Callable[..., Acceptor]) -> None:
    acceptor = serve(associate_timeout=0.3)
    ended = False
    with connected(acceptor) as sock:
        sock.settimeout(0.05)
        for byte in associate_rq():
            try:
                sock.send(bytes([byte]))
                ended = sock.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
            if ended:
                break
    assert ended


def test_an_idle_association_is_aborted_and_a_half_message_forgotten(
    serve: Callable[..., Acceptor], door: MemoryDoor
) -> None:
    acceptor = serve(idle_timeout=0.3)
    with connected(acceptor, associated=True) as sock:
        assert is_aborted(sock, 0)


def test_silent_peers_hold_up_nobody(acceptor: Acceptor) -> None:
    silent = [socket.create_connection(acceptor.address) for _ in range(50)]
    try:
        with connected(acceptor, associated=True) as sock:
            sock.sendall(RELEASE_RQ)
            assert receive(sock)[0] == 6
    finally:
        for sock in silent:
            sock.close()


def test_connections_far_beyond_the_limit_are_closed_unread(
    serve: Callable[..., Acceptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "SILENT_S", 60.0)
    acceptor = serve(associations=1, pending=2)
    held = [socket.create_connection(acceptor.address, timeout=20) for _ in range(2)]
    try:
        deadline = time.monotonic() + 20
        while acceptor.associations < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        with socket.create_connection(acceptor.address, timeout=20) as one_more:
            assert one_more.recv(10) == b""
    finally:
        for sock in held:
            sock.close()


def test_silent_connections_make_room_for_a_peer_that_asks(
    serve: Callable[..., Acceptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "SILENT_S", 0.0)
    acceptor = serve(associations=1, pending=2)
    held = [socket.create_connection(acceptor.address, timeout=20) for _ in range(5)]
    try:
        with connected(acceptor, associated=True) as sock:
            sock.sendall(RELEASE_RQ)
            assert receive(sock)[0] == 6
        assert held[0].recv(10)[:1] in (b"", b"\x07")  # closed, with or without an A-ABORT before
    finally:
        for sock in held:
            sock.close()


def test_a_sender_that_vanishes_in_a_pdu_ends_only_its_own(acceptor: Acceptor, door: MemoryDoor) -> None:
    with connected(acceptor, associated=True) as sock:
        sock.sendall(pdu(4, pdv(b"cut"), 1000))
    deadline = time.monotonic() + 20
    while acceptor.associations and time.monotonic() < deadline:
        time.sleep(0.005)
    assert acceptor.associations == 0
    assert not door.held
