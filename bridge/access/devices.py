"""Which Application Entities may do what, by AE title and address and the allow-list in the settings.

Without peers in the settings any AE may verify and store from loopback, and nothing may from elsewhere (DESIGN section
8). With peers, only they may associate, each from its own host and for what its `allow` says. An AE title proves
nobody's identity by itself, hence the address; certificates are checked by TLS. All but `addresses_of` is pure.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Protocol

from bridge.errors import Forbidden
from bridge.model import Actor, ActorKind, Role


class Service(StrEnum):
    """What a peer may be allowed, as `[[dimse.peers]] allow` names it; VERIFY (C-ECHO) comes with any of the others."""

    VERIFY = "verify"
    STORE = "store"
    QUERY = "query"
    RETRIEVE = "retrieve"
    COMMIT = "commit"


class Peer(Protocol):
    """What is looked at of a `[[dimse.peers]]`."""

    @property
    def ae_title(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def allow(self) -> Sequence[str]: ...


Resolve = Callable[[str], Iterable[str]]


def addresses_of(host: str) -> frozenset[str]:
    """The IP addresses that a host name has now; empty when it cannot be resolved. Asks the network's name service."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError:
        return frozenset()


def allowed(peers: Sequence[Peer], calling: str, address: str, resolve: Resolve = addresses_of) -> frozenset[Service]:
    """What an association from this AE title and address may do; empty when it must be refused.

    Parameters
    ----------
    peers
        The allow-list; empty when the settings name none.
    calling
        The calling AE title; leading and trailing spaces do not count (PS3.8 9.3.2).
    address
        The remote IP address.
    resolve
        A peer's host, when it is a name -> its IP addresses. Asked only for peers of this AE title.
    """
    title = calling.strip(" ")
    if not title:
        return frozenset()
    if not peers:
        return frozenset({Service.VERIFY, Service.STORE}) if is_loopback(address) else frozenset()
    services: set[Service] = set()
    for peer in peers:
        if peer.ae_title == title and _is_at(peer.host, address, resolve):
            services |= {Service.VERIFY, *(Service(name) for name in peer.allow)}
    return frozenset(services)


def authorise(peers: Sequence[Peer], calling: str, address: str, resolve: Resolve = addresses_of) -> Actor:
    """The actor of an association at the storage listener.

    Raises Forbidden when it may not store here: the listener offers verification and storage alone, and does not ask
    again for each C-STORE.
    """
    if Service.STORE not in allowed(peers, calling, address, resolve):
        raise Forbidden("this AE title may not store from this address")
    return Actor(ActorKind.DEVICE, calling.strip(" "), Role.DEVICE, address, "dimse")


def _is_at(host: str, address: str, resolve: Resolve) -> bool:
    candidates = [host] if _parsed(host) is not None else resolve(host)
    return normal_address(address) in {normal_address(candidate) for candidate in candidates}


def is_loopback(address: str) -> bool:
    """Whether an IP address (also an IPv4 one mapped into IPv6) is this machine's own."""
    found = _parsed(address)
    return found is not None and found.is_loopback


def normal_address(address: str) -> str:
    """An IP address in its shortest form, mapped IPv4 as IPv4; anything else as it is."""
    found = _parsed(address)
    return address if found is None else str(found)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
