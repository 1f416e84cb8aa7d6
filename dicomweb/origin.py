"""Where a request came from and how its client names this server: RFC 7239, DESIGN section 8. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network

FORWARDED_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z.\-_]+)(:[0-9]{1,5})?\Z")
_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,\s]*)\s*')


@dataclass(frozen=True, slots=True)
class Origin:
    """The client's address, the origin it addressed (`https://host:port`) and whether a proxy stood between."""

    address: str
    url: str
    forwarded: bool
    loopback: bool

    @property
    def secure(self) -> bool:
        return self.url.startswith("https:")


def origin_of(
    headers: Mapping[str, str], scheme: str, peer: str, port: int, fallback: str, trusted: Sequence[str]
) -> Origin:
    """Read the origin of a request.

    `headers` are the request's (lower-case names); `scheme`, `peer` and `port` those of the connection, `port` being
    ours: dicomweb-client for Python leaves it out of Host, so a Host without one gets it unless a proxy stood between.
    `fallback` is the host:port used when Host is missing or malformed; `trusted` are addresses or networks of proxies
    whose forwarding headers are believed: from anyone else they only mark the request as forwarded. `loopback` says
    that the connection, and the Host it names, are this machine's, and that no forwarding header is there.
    """
    forwarded = any(name in headers for name in FORWARDED_HEADERS)
    host = headers.get("host", "")
    address = peer
    if forwarded and _is_trusted(peer, tuple(trusted)):
        said = _forwarding(headers)
        scheme = said.get("proto", scheme)
        host = said.get("host", host)
        address = said.get("for", peer)
    named = _HOST.match(host)
    if not named:
        host = fallback
    elif not named[2] and not forwarded and port != _DEFAULT_PORTS.get(scheme):
        host = f"{host}:{port}"
    if scheme not in ("http", "https"):
        scheme = "http"
    loopback = not forwarded and _is_loopback(peer) and named is not None and _is_loopback_host(host)
    return Origin(address, f"{scheme}://{host}", forwarded, loopback)


def _forwarding(headers: Mapping[str, str]) -> dict[str, str]:
    """`for`, `host` and `proto` of the nearest hop: the last element, which our own proxy added (RFC 7239 4)."""
    if "forwarded" in headers:
        nearest = headers["forwarded"].rsplit(",", 1)[-1]
        pairs = {name.lower(): value.strip('"') for name, value in _PAIR.findall(nearest)}
    else:
        names = {"for": "x-forwarded-for", "host": "x-forwarded-host", "proto": "x-forwarded-proto"}
        pairs = {
            key: headers[name].rsplit(",", 1)[-1].strip()
            for key, name in names.items()
            if headers.get(name, "").strip()
        }
    if "for" in pairs:
        pairs["for"] = pairs["for"].strip("[]")
    if "proto" in pairs:
        pairs["proto"] = pairs["proto"].lower()
    return pairs


@lru_cache(maxsize=1024)
def _is_trusted(peer: str, trusted: tuple[str, ...]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in ip_network(network, strict=False) for network in trusted)


@lru_cache(maxsize=1024)
def _is_loopback(peer: str) -> bool:
    try:
        return ip_address(peer).is_loopback
    except ValueError:
        return False


def _is_loopback_host(host: str) -> bool:
    name = host[: host.rindex(":")] if re.search(r":[0-9]+\Z", host) else host
    return name.lower() in ("localhost", "[::1]") or _is_loopback(name)
