"""One connection to an audit repository: syslog over TLS (RFC 5425), as PS3.15 A.6 and IHE ITI-19/20 ask for it.

Syslog has no acknowledgement. What can be known is told here: whether the repository's TCP has acknowledged all that
was written (`drain`), whether the connection still lives (`check`), and, when it is ended in order, that the repository
answered our close_notify and so has read everything before it (`close`).
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from dataclasses import dataclass
from pathlib import Path

CONNECT_S, WRITE_S, CLOSE_S = 10.0, 30.0, 3.0
_OUTSTANDING = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Repository:
    """Where messages go, and who we are there.

    Attributes
    ----------
    host, port
        The repository's name, which its certificate must bear (RFC 5425 5.2), and port.
    ca_file
        Certificates (PEM) that its certificate is checked against; None: those of the system.
    certificate, key
        Our certificate chain and its key (PEM), for mutual authentication; None: none is offered.
    """

    host: str
    port: int = 6514
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, the server's chain and name checked; files are read anew, so that they can be renewed.

        Raises OSError (of which ssl.SSLError is one) for files that cannot be used.
        """
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Lost(ConnectionError):
    """The repository has gone; what it did not confirm must be sent again."""


class SyslogConnection:
    """A TLS connection that takes frames. Raises OSError (Lost among them) from every method; for one thread."""

    def __init__(self, repository: Repository) -> None:
        """Connect and shake hands. Raises OSError: refused, timed out, or a certificate that does not hold."""
        context = repository.context()
        plain = socket.create_connection((repository.host, repository.port), CONNECT_S)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = context.wrap_socket(plain, server_hostname=repository.host)
        except BaseException:
            plain.close()
            raise
        self._socket.settimeout(WRITE_S)

    def write(self, frames: bytes) -> None:
        """Hand frames to the network; returns when the kernel has them all."""
        self._socket.sendall(frames)

    def drain(self) -> None:
        """Wait until the repository's TCP has acknowledged all that was written. Raises Lost when it does not."""
        until, pause = time.monotonic() + WRITE_S, 0.0005
        while self._outstanding():
            self.check()
            if time.monotonic() > until:
                raise Lost("the audit repository acknowledges nothing")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def check(self) -> None:
        """Raise Lost when the repository has closed or reset the connection; what it says is read and ignored."""
        self._socket.settimeout(0)
        try:
            while self._socket.recv(4096):
                pass
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return
        finally:
            self._socket.settimeout(WRITE_S)
        raise Lost("the audit repository closed the connection")

    def close(self) -> None:
        """End in order: when this returns, the repository had read everything; OSError when it did not say so."""
        self._socket.settimeout(CLOSE_S)
        try:
            plain = self._socket.unwrap()
        except BaseException:
            self.abandon()
            raise
        plain.close()

    def abandon(self) -> None:
        """Let go of it without a word."""
        self._socket.close()

    def _outstanding(self) -> int:
        """Octets written that the peer has not acknowledged (SIOCOUTQ, which is TIOCOUTQ on Linux and macOS)."""
        buffer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, _OUTSTANDING.pack(0))
        return int(_OUTSTANDING.unpack(buffer)[0])
