"""Making a home one of a consortium: its keys, its card, the genesis, and the settings that follow.

1. keys: TLS certificate, CometBFT's                    CAIRN_HOME/consortium/tls.*, cometbft/
2. the card, signed with the ledger key                 CAIRN_HOME/consortium/card
3. the genesis, the same for every member               CAIRN_HOME/consortium/genesis.json
4. the settings                                         CAIRN_HOME/cairn.toml: [ledger] engine = "cometbft"
5. what CometBFT starts from, as far as it is known     cometbft/config/: genesis.json, config.toml

What is there is kept: each step can be repeated. A running node takes part when it is started the next time.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.config import OWN_FILE, Settings
from bridge.consensus import home as cometbft_home
from bridge.consensus.configuration import LOOPBACK, endpoint
from bridge.consortium import CARD, GENESIS, folder
from bridge.crypto.hpke import Recipient
from bridge.crypto.keystore import Keystore
from bridge.crypto.unlock import create_once
from bridge.errors import ConfigError, RequestError
from ledger import genesis as ledger_genesis
from ledger import keys
from ledger.errors import LedgerError
from ledger.genesis import Card, Genesis

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
VALID_DAYS: Final = 3650


class Place(NamedTuple):
    """Where others find a member.

    `name` is what it is called in the consortium; `url` that of its members' listener (https://host:port); `peer`
    CometBFT's address for the other members (host:port); `power` its validator's, 0 for none.
    """

    name: str
    url: str
    peer: str
    power: int = 1


def place_of(settings: Settings, name: str, url: str | None = None, peer: str | None = None, power: int = 1) -> Place:
    """The place that the settings tell, where it is not given: what is bound, which others may not reach."""
    members, cometbft = settings.members, settings.ledger.cometbft
    return Place(
        name,
        url or f"https://{_bracketed(members.host)}:{members.port}",
        peer or f"{_bracketed(cometbft.p2p_host)}:{cometbft.p2p_port}",
        power,
    )


def make_card(settings: Settings, keystore: Keystore, place: Place, signing_seed: bytes | None = None) -> Card:
    """(1), (2) The card of the node of these settings, its keys made when they are not there; written to its home.

    `signing_seed` is another ledger key than the one in use, which is to follow it. Raises RequestError for a place
    that cannot be one, ConfigError when the home cannot be written or its keys not be read.
    """
    seed = keystore.signing_seed if signing_seed is None else signing_seed
    signer = keys.SigningKey(seed)
    _make_folder(settings.home)
    identity = cometbft_home.keys_of(settings)
    recipient = Recipient.of(keystore.node_id, keystore.agreement_seed)
    try:
        ledger_genesis.check_name(place.name)
        card = Card(
            name=place.name,
            key=keys.raw(signer.public_key()),
            cosigner=keys.raw(ledger_genesis.cosigner_key(seed).public_key()),
            recipient=recipient.node + recipient.key,
            certificate=make_certificate(settings.home, place.name, _host(place.url)),
            url=place.url,
            consensus=identity.consensus,
            power=place.power,
            address=f"{identity.node_id}@{place.peer}",
        )
        signed = ledger_genesis.sign_card(card, signer)
    except LedgerError as error:
        raise RequestError(error.detail) from error
    _replace(folder(settings.home) / CARD, ledger_genesis.card_text(signed))
    return signed


def make_certificate(home: Path, name: str, host: str) -> bytes:
    """(1) This node's TLS certificate (DER), made with its key (P-256) when there is none. Raises ConfigError.

    Members know each other by the certificate itself, so it is signed by its own key and names the member for people.
    """
    certificate, key = folder(home) / CERTIFICATE, folder(home) / KEY
    try:
        if not certificate.exists():
            # The key first, for one without a certificate is used again.
            pem = _new_key() if not key.exists() else key.read_bytes()
            create_once(key, pem)
            create_once(certificate, _signed(pem, name, host))
        return x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{certificate} and {KEY} cannot be made or read: {error}") from error


def found(name: str, time_us: int, cards: Sequence[Card]) -> Genesis:
    """(3) The genesis of a consortium of these members. Raises RequestError for one that cannot be."""
    try:
        return ledger_genesis.make(name, time_us, cards)
    except LedgerError as error:
        raise RequestError(error.detail) from error


def join(settings: Settings, genesis: Genesis) -> None:
    """(3)-(5) Make the home one of the genesis' consortium: from its next start the node's ledger is the shared one.

    Raises ConfigError when it belongs to another consortium, or its files cannot be written.
    """
    path = folder(settings.home) / GENESIS
    text = ledger_genesis.to_json(genesis)
    if path.exists() and path.read_text("utf-8") != text:
        raise ConfigError(f"{path} is of another consortium; a home belongs to one for ever")
    _replace(path, text)
    settle(settings.home, {"ledger": {"engine": "cometbft"}})
    card = folder(settings.home) / CARD
    if card.exists() and endpoint(settings.ledger.cometbft.rpc).host in LOOPBACK:  # (5) else it runs elsewhere
        peers = [member.address for member in genesis.cards]
        cometbft_home.write_files(settings, genesis, read_card(card).name, peers)


def settle(home: Path, sections: Mapping[str, Mapping[str, str | int]]) -> None:
    """(4) Write these settings into CAIRN_HOME/cairn.toml, and leave what else stands there. Raises ConfigError."""
    path = home / OWN_FILE
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        for section, values in sections.items():
            for name, value in values.items():
                text = _with_setting(text, section, name, value)
        document = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be changed: {error}") from error
    for section, values in sections.items():
        found: object = document
        for part in section.split("."):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        if not isinstance(found, dict) or any(found.get(name) != value for name, value in values.items()):
            raise ConfigError(f"{path}: write [{section}] {', '.join(values)} there by hand")
    _replace(path, text)


def read_card(path: Path) -> Card:
    """The card in a file. Raises RequestError."""
    try:
        return ledger_genesis.parse_card(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read ({type(error).__name__})") from error
    except LedgerError as error:
        raise RequestError(f"{path}: {error.detail}") from error


def read_genesis_file(path: Path) -> Genesis:
    """The genesis in a file, every card verified. Raises RequestError."""
    try:
        return ledger_genesis.from_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read ({type(error).__name__})") from error
    except LedgerError as error:
        raise RequestError(f"{path}: {error.detail}") from error


def _with_setting(text: str, section: str, name: str, value: str | int) -> str:
    """The text of a TOML file in which a setting has this value; its other lines stay."""
    line = f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
    header = re.compile(rf"^\[{re.escape(section)}\][ \t]*(#.*)?$", re.MULTILINE)
    begin = header.search(text)
    if begin is None:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{section}]\n{line}\n"
    after = re.compile(r"^\[", re.MULTILINE).search(text, begin.end())
    end = len(text) if after is None else after.start()
    body = text[begin.end() : end]
    known = re.compile(rf"^{re.escape(name)}[ \t]*=.*$", re.MULTILINE)
    body = known.sub(lambda _: line, body, count=1) if known.search(body) else f"\n{line}{body}"
    return text[: begin.end()] + body + text[end:]


def _make_folder(home: Path) -> None:
    try:
        folder(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder(home)} cannot be made: {error.strerror}") from error


def _new_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _signed(pem: bytes, name: str, host: str) -> bytes:
    """A certificate (PEM) signed by its own key, for both ends of a connection."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a P-256 key")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = datetime.now(UTC) - timedelta(days=1)  # clocks differ
    names: list[x509.GeneralName] = [x509.DNSName(name), _general(host)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _host(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise RequestError(f"{url} is no address such as https://host:8043")
    return host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _replace(path: Path, text: str) -> None:
    """Replace a file whole and durably; nothing when it says this already."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.read_text("utf-8") == text:
            return
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
