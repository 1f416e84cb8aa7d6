"""The accepted socket: few and big reads, no waiting on delayed acknowledgements, deadlines on both directions."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from pynetdicom.transport import AssociationSocket

if TYPE_CHECKING:
    from bridge.dimse.association import AcceptedAssociation

MINIMUM_RATE = 1024
"""Bytes a second below which a peer that has begun a PDU is taken for stuck."""

READ_AHEAD = 512 * 1024
"""Bytes that are read at once from a peer that sends large PDUs; one that does not is given a small buffer."""
_SMALL = 16 * 1024
_TIMEVAL = struct.Struct("@ll")
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux only


def set_options(sock: socket.socket) -> None:
    """Set what an accepted socket needs once.

    TCP_NODELAY: responses are small and must not wait for the peer's acknowledgement (RFC 896). SO_KEEPALIVE: a peer
    that vanished is noticed.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    acknowledge_at_once(sock)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Set TCP_QUICKACK, which the kernel forgets as it pleases (tcp(7)), so it is set after every read.

    DCMTK's senders leave Nagle's algorithm on and write a PDU in pieces: without this each piece waits up to 40 ms for
    a delayed acknowledgement.
    """
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


class ConnectionLost(OSError):
    """The peer closed the connection, or stalled in the middle of a PDU."""


class AcceptedSocket(AssociationSocket):
    """An accepted connection; `stall` is how long, in seconds, a begun PDU or a write may make no progress."""

    def __init__(self, assoc: AcceptedAssociation, sock: socket.socket, stall: float) -> None:
        super().__init__(assoc, client_socket=sock)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._wake_receiver, select.POLLIN)
        self.stall = stall
        # The kernel's own deadlines: those of Python's sockets cost a poll before each read (socket(7)).
        sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(stall), int(stall % 1 * 1_000_000)))
        self._buffer = memoryview(bytearray(_SMALL))
        self._start = self._end = 0  # of the bytes in it that are not taken yet

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        with contextlib.suppress(OSError):  # it is woken already, or has ended
            self._wake_sender.send(b"\0")

    def wait(self, seconds: float | None) -> bool:
        """Wait until there is something to read (True), or `wake` was called or the time is over (False)."""
        if self.socket is None:
            return False
        if self._start < self._end:
            return True
        ready = dict(self._poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1)))
        if self._wake_receiver.fileno() in ready:
            self._wake_receiver.recv(4096)
        return self.socket.fileno() in ready

    def take(self, length: int, deadline: float | None = None) -> memoryview:
        """The next `length` bytes; the view is good until the next call.

        `deadline` is on the monotonic clock; without it the minimum rate gives one. Raises ConnectionLost at the end of
        the stream, on an error, and when the peer is too slow.
        """
        if self.socket is None:
            raise ConnectionLost("the connection is closed")
        if self._end - self._start < length:
            self._make_room(length)
            if deadline is None:
                deadline = time.monotonic() + self.stall + length / MINIMUM_RATE
            while self._end - self._start < length:
                self._end += self._receive(self.socket)
                if self._end - self._start < length and time.monotonic() > deadline:
                    raise ConnectionLost("the peer sends too slowly")
        self._start += length
        return self._buffer[self._start - length : self._start]

    def _make_room(self, length: int) -> None:
        """Have room for `length` bytes from the first that is not taken: a larger buffer where they need it."""
        rest = self._buffer[self._start : self._end]
        if length > len(self._buffer):
            self._buffer = memoryview(bytearray(max(length, READ_AHEAD)))
        elif rest and self._start + length <= len(self._buffer):
            return
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _receive(self, sock: socket.socket) -> int:
        try:
            count = sock.recv_into(self._buffer[self._end :])
        except BlockingIOError:
            raise ConnectionLost("the peer stalled") from None
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        if count == 0:
            raise ConnectionLost("the peer closed the connection")
        acknowledge_at_once(sock)
        return count

    def send(self, bytestream: bytes) -> None:
        """Send all of it within the stall time; a failure is the event that the connection closed (Evt17)."""
        if self.socket is None:
            return
        try:
            self.socket.sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")

    def drain_and_close(self, seconds: float, limit: int) -> None:
        """Half-close, read away at most `limit` bytes for at most `seconds`, close.

        Closing with unread bytes would reset the connection and could take the A-ABORT that was just sent with it.
        """
        sock, self.socket = self.socket, None
        if sock is None:
            return
        self._is_connected = False
        try:
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(seconds)
            deadline = time.monotonic() + seconds
            while limit > 0 and time.monotonic() < deadline:
                count = len(sock.recv(65536))
                if count == 0:
                    break
                limit -= count
        except OSError:
            pass  # reset or timed out: closed either way
        sock.close()

    def dispose(self) -> None:
        """Close whatever is still open; the association's thread has ended."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
            self._is_connected = False
        self._wake_receiver.close()
        self._wake_sender.close()
