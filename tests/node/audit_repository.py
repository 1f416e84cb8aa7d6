"""An audit repository that speaks real syslog over TLS (RFC 5425), to be killed and started again, and certificates."""

from __future__ import annotations

import datetime
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

WAIT_S = 60.0
_HEADER = re.compile(rb"<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) - \xef\xbb\xbf")
_FRAME = re.compile(rb"([1-9]\d{0,6}) ")


@dataclass(frozen=True)
class Identity:
    """A certificate with its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *hosts: str) -> Identity:
        """A certificate for the DNS names and addresses in `hosts`."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general(host) for host in hosts] or [x509.DNSName(name)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), alternatives)
        identity = Identity(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        identity.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        identity.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return identity

    def _signed(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(issuer_key, critical=False)
        )
        if isinstance(extension, x509.BasicConstraints):
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self._key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class AuditRepository:
    """Takes octet-counted frames from any number of senders; what is not exactly one is a fault.

    Parameters
    ----------
    identity
        Its certificate.
    clients
        The authority whose certificates clients must have; None: none is asked for.
    """

    def __init__(self, identity: Identity, clients: Authority | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity.certificate, identity.key)
        if clients is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(clients.file)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.messages: list[bytes] = []
        self.versions: list[str | None] = []
        self.faults: list[str] = []
        self.refused = 0
        self.deaf = False
        self.port = 0

    def start(self) -> Self:
        """Listen, on the port of the last time."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept, args=(self._listener,))
        thread.start()
        self._threads = [thread]
        return self

    def kill(self) -> None:
        """End as a killed process does: no close_notify, unread octets lost, connections reset."""
        with self._changed:
            listener, self._listener = self._listener, None
            connections, self._open = self._open, []
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.shutdown(connection, socket.SHUT_RD)  # wakes its thread, without a word to the sender
            connection.close()
        for thread in self._threads:
            thread.join(WAIT_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()

    def wait(self, until: Callable[[], bool]) -> None:
        """Until a condition on what has come holds."""
        end = time.monotonic() + WAIT_S
        with self._changed:
            while not until():
                assert self._changed.wait(end - time.monotonic()), f"{len(self.messages)} messages, {self.faults}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(plain,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            connection = self._context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            with self._changed:
                self.refused += 1
                self._changed.notify_all()
            return
        with self._changed:
            self._open.append(connection)
            self.versions.append(connection.version())
            self._changed.notify_all()
            if self.deaf:  # leave what comes in the receive buffer
                return
        self._read(connection)

    def _read(self, connection: ssl.SSLSocket) -> None:
        data = b""
        try:
            while piece := connection.recv(65536):
                data = self._take(data + piece)
            if connection in self._open:  # not killed: the sender ended in order, and is answered
                connection.unwrap()
        except (OSError, ValueError):
            pass
        with self._changed:
            if data and connection in self._open:
                self.faults.append("the connection ended within a frame")
            if connection in self._open:
                self._open.remove(connection)
                connection.close()

    def _take(self, data: bytes) -> bytes:
        """Keep the whole frames of `data`; what is left."""
        while match := _FRAME.match(data):
            length = int(match[1])
            if len(data) < match.end() + length:
                return data
            message, data = data[match.end() : match.end() + length], data[match.end() + length :]
            with self._changed:
                if not _HEADER.match(message):
                    self.faults.append(f"not a syslog message with a BOM: {message[:80]!r}")
                self.messages.append(message)
                self._changed.notify_all()
        if len(data) > 8:
            with self._changed:
                self.faults.append(f"not a frame: {data[:20]!r}")
            raise ValueError("not a frame")
        return data
