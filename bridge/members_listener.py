"""The members' listener: HTTP over mutual TLS (RFC 8446), for the sealed blocks that members fetch from each other.

A member is known by its certificate, to the byte; who issued it does not matter, so that no authority can make
members. Who they are the settings say, and in a consortium its ledger: whom that takes in or retires is let in, or not,
within a second. It runs in a thread of the web process, with an event loop of its own.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.config import Members
from bridge.errors import ConfigError, StorageFault
from bridge.ports import Consortium

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)
APP = "dicomweb.members:create_app"
MOST_CONNECTIONS = 256
"""Connections and requests under way at once, of one member a sixteenth; beyond, members are told to come again (503).
"""
Names = Mapping[bytes, str]
RENEWED_S = 1.0


def first_certificate(path: Path) -> bytes:
    """The first certificate of a PEM file, in DER. Raises ConfigError."""
    try:
        text = path.read_text("ascii")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        return ssl.PEM_cert_to_DER_cert(text[text.index(begin) : text.index(end) + len(end)] + "\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificate {path} cannot be read: {error}") from error


def member_names(members: Members) -> Names:
    """The name of each member by its certificate (DER). Raises ConfigError for an unreadable or a shared one."""
    names: dict[bytes, str] = {}
    for peer in members.peers:
        other = names.setdefault(first_certificate(peer.certificate), peer.name)
        if other != peer.name:
            raise ConfigError(f"members.peers: {other} and {peer.name} have the same certificate")
    return names


def tls_context(members: Members) -> ssl.SSLContext:
    """What the listener demands: TLS 1.3, and of the other side the certificate of a member. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # each connection shows its certificate
    return pinned(context, members, list(member_names(members)))


def pinned(context: ssl.SSLContext, members: Members, certificates: list[bytes]) -> ssl.SSLContext:
    """A context that shows this node's certificate and trusts these (DER) and none that they signed for others.

    Raises ConfigError when this node's certificate or key cannot be used.
    """
    assert members.certificate is not None and members.key is not None
    try:
        context.load_cert_chain(members.certificate, members.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"members.certificate and members.key cannot be used: {error}") from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # so that a certificate alone is an anchor
    if certificates:
        context.load_verify_locations(cadata=b"".join(certificates))
    context.set_alpn_protocols(["http/1.1"])
    return context


class KnownMembers:
    """Who is a member now, by certificate: those of the settings (`fixed`), and the active ones of the consortium."""

    def __init__(self, context: ssl.SSLContext, fixed: Names, consortium: Consortium | None) -> None:
        self._context = context
        self._fixed = fixed
        self._consortium = consortium
        self._trusted = set(fixed)
        self._names = fixed
        self.renew()

    def name(self, certificate: bytes) -> str | None:
        """The member whose certificate (DER) this is; None for nobody's."""
        return self._names.get(certificate)

    def renew(self) -> None:
        """Read again who is a member of the consortium; what cannot be read leaves it as it was."""
        if self._consortium is None:
            return
        try:
            own = self._consortium.own()
            members = [member for member in self._consortium.members() if member.active]
        except StorageFault as error:
            log.warning("who is a member cannot be read", extra={"slug": error.slug})
            return
        names = {member.card.certificate: member.name for member in members if own is None or member.node != own.node}
        for certificate in names.keys() - self._trusted:
            self._context.load_verify_locations(cadata=certificate)  # one that is no longer a member's has no name
            self._trusted.add(certificate)
        self._names = {**names, **self._fixed}


class MembersListener:
    """The listener, running from `start` to `stop`; `node` is served, `names` are the members of its settings."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, names: Names, node: Any) -> None:
        self._listener = listener
        self._known = KnownMembers(context, names, node.consortium)
        self._server = _server(context, self._known, node)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="members", daemon=True)
        self._renewing = threading.Thread(target=self._renew, name="members-known", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()
        self._renewing.start()

    def stop(self) -> None:
        """Take no more requests, end those that are under way within ten seconds, and return when they have."""
        self._stopped.set()
        self._server.should_exit = True
        self._thread.join()
        self._renewing.join()

    def _renew(self) -> None:
        while not self._stopped.wait(RENEWED_S):
            self._known.renew()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._listener])
        except Exception:
            log.exception("the members' listener failed: this process ends, to be started afresh")
            os.kill(os.getpid(), signal.SIGTERM)


def _server(context: ssl.SSLContext, known: KnownMembers, node: Any) -> uvicorn.Server:
    import uvicorn

    from bridge.member_protocol import protocol_of

    module, _, factory = APP.partition(":")
    config = uvicorn.Config(
        getattr(importlib.import_module(module), factory)(node),
        http=protocol_of(known.name),
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
        limit_concurrency=MOST_CONNECTIONS,
    )
    config.load()
    config.ssl = context
    return uvicorn.Server(config)
