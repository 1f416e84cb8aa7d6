"""Settings: one table, three sources, and where each value came from.

`CAIRN_HOME/cairn.toml` < `configs/*.toml` (or any file given by `--config`) < `CAIRN_SECTION__KEY` < flags. Unknown
keys are errors, with the nearest known name. `cairn config show` prints the value and origin of each.
"""

from __future__ import annotations

import difflib
import hashlib
import hmac
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bridge.errors import ConfigError
from bridge.model import Role

ENVIRONMENT_ONLY = frozenset({"CAIRN_HOME", "CAIRN_CRASH_AT", "CAIRN_CONFIG"})
OWN_FILE = "cairn.toml"
"""A node's own settings file in CAIRN_HOME, read before any other: what `cairn consortium` sets up is written there."""
LONGEST_TOLD = 120
SERVICES = ("store", "query", "retrieve", "commit")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def setting(default: Any, text: str, *, secret: bool = False) -> Any:
    """A dataclass field with its explanation, from which docs and `config show` are made.

    What may hold a password is `secret`: records tell that it changed, not what it is.
    """
    return field(default=default, metadata={"help": text, "secret": secret})


@dataclass(frozen=True, slots=True)
class Peer:
    """One known application entity, `[[dimse.peers]]` in TOML."""

    ae_title: str
    host: str
    port: int = 104
    allow: tuple[str, ...] = ("store",)
    tls: bool = False
    certificate: Path | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One other hospital, `[[members.peers]]` in TOML: its certificate (PEM), and where its own gateway listens.

    Its first certificate is the one that it shows, as client and as server; an authority behind it does not count. Two
    of one name are one member with two certificates, such as while one is renewed. `witness` is the key (vkey) that it
    cosigns this node's checkpoints with, `log` that of its own log, whose checkpoints are cosigned here: there `cairn
    key show` prints them as cosigner and verifier.
    """

    name: str
    certificate: Path
    url: str | None = None
    witness: str | None = None
    log: str | None = None


@dataclass(frozen=True, slots=True)
class Dimse:
    host: str = setting("127.0.0.1", "address that the DICOM listener binds")
    port: int = setting(11112, "port of the DICOM listener")
    ae_title: str = setting("CAIRN", "AE title of this node, at most 16 characters")
    max_associations: int = setting(64, "associations served at once; more are rejected as transient")
    processes: int | None = setting(None, "processes that serve associations; default one a processor, at most 4")
    peers: tuple[Peer, ...] = setting((), "known application entities and what each may do (TOML only)")


@dataclass(frozen=True, slots=True)
class Web:
    host: str = setting("127.0.0.1", "address that the HTTP listener binds; beyond loopback needs trusted_proxies")
    port: int = setting(8042, "port of the HTTP listener")
    trusted_proxies: tuple[str, ...] = setting((), "addresses whose X-Forwarded-* headers are believed")
    max_body_bytes: int = setting(16 << 30, "largest request body taken, in bytes")
    query_limit: int = setting(1000, "most matches that one search answers")
    viewer_dir: Path | None = setting(None, "prepared OHIF files; default CAIRN_HOME/viewer or .cache/viewer")


@dataclass(frozen=True, slots=True)
class Access:
    anonymous_role: Role | None = setting(None, "role of requests without credential, on loopback only; development")


@dataclass(frozen=True, slots=True)
class Keys:
    passphrase_file: Path | None = setting(
        None, "file whose contents unlock the keystore; default CAIRN_HOME/keys/unlock"
    )


@dataclass(frozen=True, slots=True)
class Kubo:
    api: str = setting("http://127.0.0.1:5001", "address of Kubo's RPC API, as URL or multiaddress")
    token: str | None = setting(None, "bearer token or user:password that the API asks for", secret=True)
    managed: bool = setting(False, "whether this node starts a Kubo of its own and keeps it running")
    binary: str = setting("ipfs", "the program that a managed Kubo is started with")
    repository: Path | None = setting(None, "where a managed Kubo keeps its blocks; default CAIRN_HOME/kubo")
    swarm_host: str = setting("127.0.0.1", "address that a managed Kubo's swarm binds")
    swarm_port: int = setting(4001, "port of a managed Kubo's swarm")
    swarm_key: Path | None = setting(None, "key of the private swarm; default one made in the repository")
    peers: tuple[str, ...] = setting((), "multiaddresses of the peers that a managed Kubo stays connected to")
    timeout_s: int = setting(600, "seconds after which Kubo is not waited for when it imports a study")


@dataclass(frozen=True, slots=True)
class Cluster:
    api: str = setting("http://127.0.0.1:9094", "address of IPFS Cluster's REST API")
    token: str | None = setting(None, "bearer token or user:password that the REST API asks for", secret=True)
    replicas: int = setting(2, "copies that IPFS Cluster is asked to keep of each study")


@dataclass(frozen=True, slots=True)
class Content:
    engine: Literal["embedded", "kubo", "cluster"] = setting("embedded", "where blocks lie")
    hash: Literal["blake3", "sha2-256"] = setting("blake3", "multihash of new blocks; sha2-256 for FIPS sites")
    pack_bytes: int = setting(1 << 30, "size at which a new pack file is begun, in bytes")
    reserve_bytes: int = setting(64 << 20, "free space kept for the databases, in bytes (at most 5 % of the disk)")
    spool_bytes: int = setting(
        8 << 30, "packs kept beside Kubo, in bytes; beyond it the oldest go once Kubo was read back"
    )
    cache_bytes: int = setting(1 << 30, "blocks read from elsewhere that are kept on disk, in bytes")
    scrub_days: int = setting(30, "days in which the background scrub reads everything once; 0: never")
    kubo: Kubo = Kubo()
    cluster: Cluster = Cluster()


@dataclass(frozen=True, slots=True)
class Members:
    host: str = setting("127.0.0.1", "address that the members' listener binds (mutual TLS)")
    port: int = setting(8043, "port of the members' listener")
    certificate: Path | None = setting(None, "certificate chain (PEM) of this node towards members; none: no listener")
    key: Path | None = setting(None, "private key (PEM) of that certificate")
    peers: tuple[Member, ...] = setting(
        (), "members: name, certificate, url where its listener can be asked, witness and log (TOML only)"
    )


@dataclass(frozen=True, slots=True)
class Index:
    url: str | None = setting(None, "the index's database, postgresql://...; default CAIRN_HOME/index.db", secret=True)


@dataclass(frozen=True, slots=True)
class CometBFT:
    managed: bool = setting(True, "whether this node starts CometBFT and keeps it running")
    binary: str = setting("cometbft", "the program that a managed CometBFT is started with")
    home: Path | None = setting(None, "where CometBFT keeps its files; default CAIRN_HOME/consortium/cometbft")
    rpc: str = setting("http://127.0.0.1:26657", "address of CometBFT's RPC, on loopback")
    abci: str | None = setting(
        None, "socket where CometBFT finds the application; default unix://CAIRN_HOME/run/abci.sock"
    )
    p2p_host: str = setting("127.0.0.1", "address that a managed CometBFT binds for the other members'")
    p2p_port: int = setting(26656, "port that a managed CometBFT binds for the other members'")
    keep_blocks: int = setting(10_000, "newest blocks that CometBFT keeps; 0: all. Who was away longer takes a state")


@dataclass(frozen=True, slots=True)
class Ledger:
    engine: Literal["solo", "cometbft"] = setting("solo", "what orders the ledger")
    origin: str | None = setting(None, "name of the log in its checkpoints; default cairn/ and the node's id")
    witnesses: int = setting(
        1, "witnesses among members.peers that must cosign a checkpoint of the node's own log; 0: none must"
    )
    cometbft: CometBFT = CometBFT()


@dataclass(frozen=True, slots=True)
class Sharing:
    emergency: Literal["on", "off"] = setting(
        "on", "whether members get a study of this node by breaking the glass; recorded, alerted, to be reviewed"
    )
    emergency_hours: int = setting(4, "hours that such an access lasts")
    incoming_bytes: int = setting(
        64 << 30, "most that CAIRN_HOME/incoming holds of studies that are being fetched from members, in bytes"
    )


@dataclass(frozen=True, slots=True)
class Replication:
    copies: int = setting(0, "other members that keep the sealed blocks of each study of this node; 0: none")
    accept: Literal["on", "off"] = setting("on", "whether this node keeps sealed blocks for other members")
    lost_hours: int = setting(24, "hours after which a member that does not answer counts as lost, and another keeps")
    retired_days: int = setting(
        365, "days for which the sealed blocks of a retired member are kept here, from when it was heard of last"
    )


@dataclass(frozen=True, slots=True)
class Audit:
    repository_host: str | None = setting(None, "audit repository that audit messages are sent to by syslog over TLS")
    repository_port: int = setting(6514, "port of the audit repository (RFC 5425)")
    ca_file: Path | None = setting(None, "certificates (PEM) that the audit repository's is checked against")
    certificate: Path | None = setting(None, "certificate chain (PEM) of this node towards the audit repository")
    key: Path | None = setting(None, "private key (PEM) of that certificate")
    spool: Path | None = setting(None, "where messages wait for the repository; default CAIRN_HOME/audit-spool")


@dataclass(frozen=True, slots=True)
class Alerts:
    studies_per_hour: int | None = setting(100, "studies that one actor may view in an hour; none: no such alert")
    failed_logins: int | None = setting(10, "failed logins from one address in ten minutes; none: no such alert")
    review_hours: int | None = setting(72, "hours within which a break-glass access is reviewed; none: no such alert")
    after_revocation: Literal["on", "off"] = setting("on", "whether access after a revocation raises an alert")
    sequence_gap: Literal["on", "off"] = setting("on", "whether a missing entry of a node raises an alert")
    clock_skew_s: int | None = setting(
        60, "seconds by which a member's entry may be dated before its last one or after its block; none: no such alert"
    )
    late_minutes: int | None = setting(
        60, "minutes that a member's entry may take to come into the shared log; none: no such alert"
    )


@dataclass(frozen=True, slots=True)
class Log:
    level: Literal["debug", "info", "warning", "error"] = setting("info", "least severe level that is logged")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a node, by section."""

    home: Path = Path("data")
    dimse: Dimse = Dimse()
    web: Web = Web()
    access: Access = Access()
    keys: Keys = Keys()
    content: Content = Content()
    members: Members = Members()
    index: Index = Index()
    ledger: Ledger = Ledger()
    sharing: Sharing = Sharing()
    replication: Replication = Replication()
    audit: Audit = Audit()
    alerts: Alerts = Alerts()
    log: Log = Log()


Origins = Mapping[str, str]


def load(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, str] | None = None
) -> tuple[Settings, Origins]:
    """Settings and the origin of each ("default", "file NAME", "environment NAME", "flag").

    Raises
    ------
    ConfigError
        for an unreadable file, an unknown section, key or variable, a value of the wrong type, or a combination that
        would expose the node (a listener beyond loopback with an anonymous role or without trusted proxies).
    """
    settings = Settings(home=Path(environment.get("CAIRN_HOME", "data")).absolute())
    origins = {name: "default" for name, _, _ in table()}
    origins["home"] = "environment CAIRN_HOME" if "CAIRN_HOME" in environment else "default"
    own = settings.home / OWN_FILE
    files = [path for path in (own if own.is_file() else None, file) if path is not None]
    for name, value, origin in _sources(files, environment, flags or {}):
        settings = _set(settings, name, value, origin)
        origins[name] = origin
    settings = _with_own_tls(settings, origins)
    _check(settings)
    return settings, origins


def _with_own_tls(settings: Settings, origins: dict[str, str]) -> Settings:
    """In a consortium the members' listener shows what `cairn consortium` made, unless another certificate is set."""
    certificate, key = (settings.home / "consortium" / name for name in ("tls.crt", "tls.key"))
    if settings.ledger.engine == "solo" or settings.members.certificate is not None or not certificate.is_file():
        return settings
    origins.update({"members.certificate": "the consortium's", "members.key": "the consortium's"})
    return replace(settings, members=replace(settings.members, certificate=certificate, key=key))


def table() -> Sequence[tuple[str, object, str]]:
    """Every setting: dotted name, default, explanation."""
    return [(name, default, each.metadata["help"]) for name, default, each in _walk(Settings())]


def value_of(settings: Settings, name: str) -> object:
    """The value of a dotted name."""
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def shown(settings: Settings) -> Iterator[tuple[str, str]]:
    """The name and value of every setting; of what may hold a password only that it is set."""
    for name, value, each in _walk(settings):
        yield name, "(set)" if each.metadata["secret"] and value is not None else str(value)


def _walk(section: Any, prefix: str = "") -> Iterator[tuple[str, object, Field[Any]]]:
    """Every setting of a section and of the sections in it: dotted name, value, field."""
    for each in fields(section):
        value = getattr(section, each.name)
        if is_dataclass(value):
            yield from _walk(value, f"{prefix}{each.name}.")
        elif "help" in each.metadata:
            yield prefix + each.name, value, each


def recordable(settings: Settings, key: bytes) -> dict[str, str]:
    """Every setting that is not its default, by name, as the ledger's records tell it.

    Secrets and long values are told by an HMAC-SHA256 under `key`, so that a change of them is seen.
    """
    told: dict[str, str] = {}
    for (name, value, each), (_, default, _) in zip(_walk(settings), _walk(Settings()), strict=True):
        if value == default:
            continue
        text = "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        tag = hmac.digest(key, text.encode(), hashlib.sha256)[:8].hex()
        shown = "" if each.metadata["secret"] else text[:LONGEST_TOLD]
        told[name] = text if shown == text else f"{shown}... (tag {tag})"
    return told


def _sources(
    files: Sequence[Path], environment: Mapping[str, str], flags: Mapping[str, str]
) -> Sequence[tuple[str, object, str]]:
    rows: list[tuple[str, object, str]] = []
    for file in files:
        try:
            document = tomllib.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the settings file {file} cannot be read: {error}") from error
        for section, values in document.items():
            if not isinstance(values, dict):
                raise ConfigError(f"{file}: {section} is not a section; settings lie in sections such as [web]")
            rows += [(name, value, f"file {file}") for name, value in _named(section, values)]
    for variable, text in environment.items():
        if variable.startswith("CAIRN_") and variable not in ENVIRONMENT_ONLY:
            rows.append((variable[6:].lower().replace("__", "."), text, f"environment {variable}"))
    rows += [(name, text, "flag") for name, text in flags.items()]
    return rows


def _named(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """The settings of a TOML table by dotted name, those of the tables in it too."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _named(f"{section}.{key}", value)
        else:
            yield f"{section}.{key}", value


def _set(settings: Settings, name: str, value: object, origin: str) -> Settings:
    names = [known for known, _, _ in table()]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{origin}: there is no setting {name}{hint}")
    *sections, key = name.split(".")
    held: list[Any] = [settings]
    for part in sections:
        held.append(getattr(held[-1], part))
    value = _convert(name, get_type_hints(type(held[-1]))[key], value, origin)
    for section, part in zip(reversed(held), reversed((*sections, key)), strict=True):
        value = replace(section, **{part: value})
    assert isinstance(value, Settings)
    return value


def _convert(name: str, wanted: Any, value: object, origin: str) -> object:
    if get_origin(wanted) in (Union, types.UnionType):
        if value == "" or value is None or value == "none":
            return None
        wanted = next(kind for kind in get_args(wanted) if kind is not type(None))
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ConfigError(f"{origin}: {name} must be one of {', '.join(get_args(wanted))}")
        return value
    try:
        if name == "dimse.peers":
            return _peers(value)
        if name == "members.peers":
            return _members(value)
        if wanted is bool:
            return _truth(value)
        if get_origin(wanted) is tuple:
            return (
                tuple(part.strip() for part in value.split(",") if part.strip())
                if isinstance(value, str)
                else _texts(value)
            )
        if wanted is int and isinstance(value, (int, str)) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, str):
            return Path(value).absolute() if wanted is Path else wanted(value)
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(f"{origin}: {name} = {value!r} is not valid: {error}") from error
    raise ConfigError(f"{origin}: {name} = {value!r} is not a {getattr(wanted, '__name__', wanted)}")


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("a list of strings is expected")


def _truth(value: object) -> bool:
    words = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError("true or false is expected")
    return words[value.lower()]


def _members(value: object) -> tuple[Member, ...]:
    if not isinstance(value, list):
        raise ValueError("members are given as [[members.peers]] in a TOML file")
    for item in value:
        if not {"name", "certificate"} <= set(item) <= {"name", "certificate", "url", "witness", "log"}:
            raise ValueError("a member has a name, a certificate and perhaps url, witness and log; nothing else")
        if "witness" in item and "url" not in item:
            raise ValueError("a witness is asked at its url, which is missing")
        if not str(item.get("url", "https://")).startswith("https://"):
            raise ValueError("a member's url begins with https://")
    return tuple(Member(**{**item, "certificate": Path(item["certificate"]).absolute()}) for item in value)


def _peers(value: object) -> tuple[Peer, ...]:
    if not isinstance(value, list):
        raise ValueError("peers are given as [[dimse.peers]] in a TOML file")
    known = {f.name for f in fields(Peer)}
    for item in value:
        for service in item.get("allow", ()):
            if service not in SERVICES:
                raise ValueError(f"a peer may be allowed {', '.join(SERVICES)}, not {service}")
        unknown = set(item) - known
        if unknown:
            raise ValueError(f"a peer has no {', '.join(sorted(unknown))}")
    return tuple(Peer(**{**item, "allow": tuple(item.get("allow", ("store",)))}) for item in value)


def _check(settings: Settings) -> None:
    beyond = settings.web.host not in LOOPBACK_HOSTS
    if beyond and not settings.web.trusted_proxies:
        raise ConfigError("web.host is beyond loopback: HTTP needs TLS in front of it; set web.trusted_proxies")
    if beyond and settings.access.anonymous_role is not None:
        raise ConfigError("access.anonymous_role is for loopback only; unset it or bind web.host to 127.0.0.1")
    title = settings.dimse.ae_title
    if not 1 <= len(title.strip()) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ConfigError(
            "dimse.ae_title must have 1 to 16 printable ASCII characters without backslash (PS3.5 6.2 AE)"
        )
    url = settings.index.url
    if url not in (None, f"sqlite:///{settings.home / 'index.db'}") and not str(url).startswith("postgresql://"):
        raise ConfigError("index.url: postgresql://..., or unset for SQLite in CAIRN_HOME/index.db")
    for section in ("audit", "members"):
        if (value_of(settings, f"{section}.certificate") is None) != (value_of(settings, f"{section}.key") is None):
            raise ConfigError(f"{section}.certificate and {section}.key go together")
    _check_numbers(settings)


_LEAST = (
    ("content.pack_bytes", 1 << 20),
    ("content.spool_bytes", 0),
    ("content.cache_bytes", 0),
    ("content.scrub_days", 0),
    ("content.kubo.timeout_s", 1),
    ("content.cluster.replicas", 1),
    ("dimse.max_associations", 1),
    ("ledger.witnesses", 0),
    ("replication.copies", 0),
    ("replication.lost_hours", 1),
    ("sharing.emergency_hours", 1),
    ("sharing.incoming_bytes", 1 << 20),
    ("web.query_limit", 1),
)


def _check_numbers(settings: Settings) -> None:
    for name, least in _LEAST:
        found = value_of(settings, name)
        if not isinstance(found, int) or found < least:
            raise ConfigError(f"{name} must be at least {least}")
    if settings.dimse.processes is not None and not 1 <= settings.dimse.processes <= 64:
        raise ConfigError("dimse.processes must be between 1 and 64")
    for name in ("studies_per_hour", "failed_logins", "review_hours", "clock_skew_s", "late_minutes"):
        most = value_of(settings, f"alerts.{name}")
        if isinstance(most, int) and most < 1:
            raise ConfigError(f"alerts.{name} must be at least 1, or none")
    ports = ("dimse.port", "web.port", "members.port", "audit.repository_port")
    for name in (*ports, "content.kubo.swarm_port", "ledger.cometbft.p2p_port"):
        port = value_of(settings, name)
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigError(f"{name} must be between 0 and 65535")
