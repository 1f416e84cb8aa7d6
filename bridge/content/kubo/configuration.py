"""What a Kubo's configuration must say for an archive: the one that a managed Kubo gets, and the judging of another's.

Pure: values in, values out. Keys and defaults are those of Kubo 0.42 (docs/config.md of that release); an absent key
means Kubo's default, as in Kubo itself.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from bridge.config import Kubo
from bridge.errors import ConfigError

Configuration = Mapping[str, Any]

PROFILES: Final = "unixfs-v1-2025,server"
OLDEST: Final = (0, 42)
TESTED: Final = "0.42.0"
KEY_HEADER: Final = "/key/swarm/psk/1.0.0/\n/base16/\n"
PUBLIC_BOOTSTRAP: Final = ("auto", "bootstrap.libp2p.io", "104.131.131.82")
_SCOPE: Final = "cairn"


class _Exactly(dict[str, Any]):
    """A value that replaces what is there, where a mapping would be merged into it."""


_FIXED: Final[Configuration] = {
    "Addresses": {"Gateway": [], "Announce": [], "AppendAnnounce": [], "NoAnnounce": []},
    "API": {"HTTPHeaders": _Exactly()},
    "AutoConf": {"Enabled": False},
    "AutoTLS": {"Enabled": False},
    "Bootstrap": [],
    "DNS": {"Resolvers": _Exactly()},
    # GCPeriod 0 keeps the collector away even when somebody starts this repository with --enable-gc.
    "Datastore": {"GCPeriod": "0s", "StorageMax": "1000PB"},
    "Discovery": {"MDNS": {"Enabled": False}},
    "HTTPRetrieval": {"Enabled": False},
    "Internal": {"ShutdownTimeout": "20s"},
    "Ipns": {"DelegatedPublishers": [], "UsePubsub": False},
    "Plugins": {"Plugins": {"telemetry": {"Config": {"Mode": "off"}}}},
    "Provide": {"Enabled": False},
    "Pubsub": {"Enabled": False},
    "Routing": {"Type": "none", "DelegatedRouters": []},
    "Swarm": {
        # The server profile refuses connections from private ranges, where a hospital's swarm lives.
        "AddrFilters": [],
        "DisableNatPortMap": True,
        "EnableHolePunching": False,
        "RelayClient": {"Enabled": False},
        "RelayService": {"Enabled": False},
        # A pre-shared key works over TCP alone.
        "Transports": {
            "Network": {
                "QUIC": False,
                "Relay": False,
                "TCP": True,
                "WebRTCDirect": False,
                "Websocket": False,
                "WebTransport": False,
            }
        },
    },
    "Version": {"SwarmCheckEnabled": False},
}
"""What a managed Kubo's configuration says whatever the settings are."""


class Finding(NamedTuple):
    """One thing in a configuration that is dangerous for an archive.

    `refuse`: Cairn does not use this Kubo until it is mended; `warn`: it does, and says so. `key` is the configuration
    key (or "version"), `danger` what can happen, `command` the shell command that mends it; Kubo reads its
    configuration when it starts, so it must be restarted afterwards.
    """

    severity: Literal["refuse", "warn"]
    key: str
    danger: str
    command: str


class Endpoint(NamedTuple):
    """Where an HTTP API listens."""

    host: str
    port: int


def endpoint(api: str) -> Endpoint:
    """The host and port of an API's address: a URL or a multiaddress of TCP over IPv4, IPv6 or a DNS name.

    Raises ConfigError for anything else.
    """
    if api.startswith("/"):
        match = re.fullmatch(r"/(?:ip4|ip6|dns|dns4|dns6)/([^/]+)/tcp/(\d{1,5})(?:/https?|/tls/http)?", api)
        if match is None:
            raise ConfigError(f"content.kubo.api = {api} is not a multiaddress such as /ip4/127.0.0.1/tcp/5001")
        return Endpoint(match[1], int(match[2]))
    try:
        parts = urlsplit(api)
        host, port = parts.hostname, parts.port or 5001
    except ValueError as error:
        raise ConfigError(f"content.kubo.api = {api} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"content.kubo.api = {api} is not a URL such as http://127.0.0.1:5001")
    return Endpoint(host, port)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def multiaddress(host: str, port: int) -> str:
    """A TCP multiaddress; names become /dns."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return f"/dns/{host}/tcp/{port}"
    return f"/ip{version}/{host}/tcp/{port}"


def peering(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Kubo's Peering.Peers from multiaddresses that end in /p2p/ID; several addresses of one peer are joined.

    Raises ConfigError for an address without a peer's ID.
    """
    found: dict[str, list[str]] = {}
    for address in addresses:
        transport, mark, peer = address.rpartition("/p2p/")
        if not mark or not transport.startswith("/") or not re.fullmatch(r"[0-9A-Za-z]{20,128}", peer):
            raise ConfigError(f"content.kubo.peers: {address} is not a multiaddress that ends in /p2p/ and a peer's ID")
        found.setdefault(peer, []).append(transport)
    return [{"ID": peer, "Addrs": transports} for peer, transports in found.items()]


def hardened(base: Configuration, kubo: Kubo) -> dict[str, Any]:
    """The configuration of a managed Kubo, made from one that `ipfs init` (or this function before) has written.

    Private swarm, nothing announced or looked up outside, no garbage collection, every block fsynced. The identity,
    how the datastore is laid out, and what is not named here stay as they were. Raises ConfigError when the API would
    not be on loopback alone, or a peer's address has no peer's ID.
    """
    api = endpoint(kubo.api)
    if not is_loopback(api.host):
        raise ConfigError(
            "content.kubo.api: a managed Kubo's API is on loopback only, for whoever reaches it commands it"
        )
    host = "127.0.0.1" if api.host == "localhost" else api.host
    authorizations: dict[str, Any] = {}
    if kubo.token is not None:
        authorizations[_SCOPE] = {"AuthSecret": auth_secret(kubo.token), "AllowedPaths": ["/api/v0"]}
    ours = {
        "Addresses": {
            "API": [multiaddress(host, api.port)],
            "Swarm": [multiaddress(kubo.swarm_host, kubo.swarm_port)],
        },
        "API": {"Authorizations": _Exactly(authorizations)},
        "Datastore": {"Spec": synced(spec_of(base))},
        "Peering": {"Peers": peering(kubo.peers)},
    }
    return _merged(_merged(base, _FIXED), ours)


def auth_secret(token: str) -> str:
    """A token of the settings ("user:password", or a bearer token) as Kubo's API.Authorizations writes it."""
    return f"basic:{token}" if ":" in token else f"bearer:{token}"


def _merged(base: Configuration, over: Configuration) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        before = out.get(key)
        if isinstance(value, _Exactly):
            out[key] = dict(value)
        elif isinstance(value, dict) and key != "Spec":
            out[key] = _merged(before if isinstance(before, dict) else {}, value)
        else:
            out[key] = value
    return out


def spec_of(config: Configuration) -> Configuration:
    """The datastore's specification (Datastore.Spec), empty when there is none."""
    found = _at(config, "Datastore.Spec")
    return found if isinstance(found, dict) else {}


def synced(spec: Configuration) -> dict[str, Any]:
    """A datastore's specification in which every flatfs fsyncs; the layout on disk is not touched."""
    out = dict(spec)
    if out.get("type") == "flatfs":
        out["sync"] = True
    if isinstance(out.get("child"), dict):
        out["child"] = synced(out["child"])
    if isinstance(out.get("mounts"), list):
        out["mounts"] = [synced(mount) for mount in out["mounts"]]
    return out


def sharded(spec: Configuration) -> dict[str, Any]:
    """The specification of a datastore not yet made, its flatfs in 32,768 directories: right for millions of blocks."""
    out = synced(spec)
    if out.get("type") == "flatfs":
        out["shardFunc"] = "/repo/flatfs/shard/v1/next-to-last/3"
    if isinstance(out.get("child"), dict):
        out["child"] = sharded(out["child"])
    if isinstance(out.get("mounts"), list):
        out["mounts"] = [sharded(mount) for mount in out["mounts"]]
    return out


def fsyncs(config: Configuration) -> bool:
    """Whether this Kubo is known to have a block on stable storage when it says so: flatfs with `sync`.

    Of the other datastores pebbleds writes without sync and badgerds is to be removed: not known.
    """
    stores = [store for store in _stores(spec_of(config)) if store[0].startswith("/blocks")]
    if not stores:
        stores = list(_stores(spec_of(config)))
    return bool(stores) and all(spec.get("type") == "flatfs" and spec.get("sync") is True for _, spec in stores)


def _stores(spec: Configuration, mountpoint: str = "/") -> Iterator[tuple[str, Configuration]]:
    """Every datastore of a specification and where it is mounted, wrappers (measure, log) taken off."""
    at = spec.get("mountpoint", mountpoint)
    if isinstance(spec.get("child"), dict):
        yield from _stores(spec["child"], at)
    elif isinstance(spec.get("mounts"), list):
        for mount in spec["mounts"]:
            yield from _stores(mount, at)
    elif spec:
        yield at, spec


def judge(config: Configuration, version: str) -> list[Finding]:
    """What is dangerous in the configuration (as `config/show` gives it) and version of a Kubo that is not ours."""
    found = [*_version(version), *_network(config), *_collector(config), *_doors(config), *_durability(config)]
    return sorted(found, key=lambda finding: finding.severity)


def _version(version: str) -> Iterator[Finding]:
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        yield Finding(
            "refuse",
            "version",
            f"Kubo {version or 'of unknown version'} is older than {TESTED}: its pin operations can hang for hours",
            f"install Kubo {TESTED} or newer (docs/operations.md), then: ipfs repo migrate",
        )


def _network(config: Configuration) -> Iterator[Finding]:
    routing = _at(config, "Routing.Type") or "auto"
    if routing != "none":
        yield Finding(
            "refuse",
            "Routing.Type",
            f"routing is {routing}: which blocks are held here is told to and asked of the public network",
            "ipfs config Routing.Type none",
        )
    bootstrap = _texts(_at(config, "Bootstrap"))
    if any(public in address for address in bootstrap for public in PUBLIC_BOOTSTRAP):
        yield Finding(
            "refuse",
            "Bootstrap",
            "it connects to the public network, whose nodes may then fetch every block whose CID they hear",
            "ipfs bootstrap rm --all",
        )
    if _at(config, "Provide.Enabled") is not False:
        yield _off("Provide.Enabled", "it announces the CIDs of what it holds wherever a route allows")
    if _at(config, "Discovery.MDNS.Enabled") is not False:
        yield _off("Discovery.MDNS.Enabled", "it shows itself to, and connects to, any IPFS node of the local network")
    if _at(config, "AutoConf.Enabled") is not False:
        yield _off("AutoConf.Enabled", "it fetches its network settings from a public server")
    if _at(config, "Plugins.Plugins.telemetry.Config.Mode") != "off":
        yield Finding(
            "warn",
            "Plugins.Plugins.telemetry.Config.Mode",
            "it may send usage data to Kubo's makers, unless started with IPFS_TELEMETRY=off",
            "ipfs config Plugins.Plugins.telemetry.Config.Mode off",
        )


def _collector(config: Configuration) -> Iterator[Finding]:
    period = str(_at(config, "Datastore.GCPeriod") or "1h")
    if not re.fullmatch(r"(0(\.0*)?(ns|us|µs|ms|s|m|h))+|0", period):
        most = _at(config, "Datastore.StorageMax") or "10GB"
        # Whether it was started with --enable-gc cannot be asked. What is pinned is not collected.
        yield Finding(
            "warn",
            "Datastore.GCPeriod",
            f"started with --enable-gc it collects garbage when it nears {most}, and does nothing else meanwhile",
            "ipfs config Datastore.GCPeriod 0s",
        )


def _doors(config: Configuration) -> Iterator[Finding]:
    guarded = bool(_at(config, "API.Authorizations"))
    beyond = [address for address in _texts(_at(config, "Addresses.API")) if not _local(address)]
    if beyond and not guarded:
        yield Finding(
            "refuse",
            "Addresses.API",
            f"its API listens on {beyond[0]} and asks for no credential: whoever reaches it can delete everything",
            "ipfs config --json Addresses.API '[\"/ip4/127.0.0.1/tcp/5001\"]' (in a container: set API.Authorizations)",
        )
    elif beyond:
        yield Finding(
            "warn",
            "Addresses.API",
            f"its API listens on {beyond[0]}: the credential is sent unencrypted to whoever listens on the way",
            "ipfs config --json Addresses.API '[\"/ip4/127.0.0.1/tcp/5001\"]'",
        )
    headers = _at(config, "API.HTTPHeaders")
    origins = {name.lower(): value for name, value in headers.items()} if isinstance(headers, dict) else {}
    if "*" in _texts(origins.get("access-control-allow-origin")) and not guarded:
        yield Finding(
            "refuse",
            "API.HTTPHeaders",
            "every web page that is open on a machine that reaches the API can command it",
            "ipfs config --json API.HTTPHeaders.Access-Control-Allow-Origin '[]'",
        )
    for address in _texts(_at(config, "Addresses.Gateway")):
        if not _local(address):
            yield Finding(
                "warn",
                "Addresses.Gateway",
                f"its gateway gives sealed blocks by CID to whoever reaches {address}, and nobody records it",
                "ipfs config --json Addresses.Gateway '[]'",
            )


def _durability(config: Configuration) -> Iterator[Finding]:
    if fsyncs(config):
        return
    spec = spec_of(config)
    kinds = {str(store.get("type")) for _, store in _stores(spec)}
    if "flatfs" in kinds:
        yield Finding(
            "warn",
            "Datastore.Spec",
            "flatfs does not fsync: a power cut can leave empty blocks, so packs are not removed once they are in Kubo",
            f"ipfs config --json Datastore.Spec {shlex.quote(json.dumps(synced(spec), separators=(',', ':')))}",
        )
    else:
        names = ", ".join(sorted(kinds)) or "its datastore"
        yield Finding(
            "warn",
            "Datastore.Spec",
            f"{names} is not known to fsync every block, so packs are not removed once they are in Kubo",
            "make a new repository with flatfs and sync: true, then: cairn content repair (docs/operations.md)",
        )


def _off(key: str, danger: str) -> Finding:
    return Finding("warn", key, danger, f"ipfs config --json {key} false")


def _local(address: str) -> bool:
    """Whether a listening multiaddress is reached from this machine alone (loopback, or a socket in its files)."""
    parts = address.split("/")
    return parts[1:2] == ["unix"] or (len(parts) > 2 and is_loopback(parts[2]))


def _texts(value: object) -> list[str]:
    """A value that Kubo takes as one string or a list of them."""
    if isinstance(value, str):
        return [value] if value else []
    return [str(each) for each in value] if isinstance(value, list) else []


def _at(config: Configuration, path: str) -> Any:
    """The value below dotted keys; None where there is none."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
