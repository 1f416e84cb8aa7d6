"""Who a consortium begins with: members' cards, and the genesis that its ledger's id is the hash of. Pure.

A card is what a member says of itself, signed with its ledger key: a COSE_Sign1 (RFC 9052 section 4.2) in the strict
CBOR of `ledger.codec` with the external data "cairn/1 card", so that no card is an entry and no entry a card. A genesis
is a map of the consortium's name, when it begins, its parameters and the first members' cards.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ledger import codec, cosignature, keys
from ledger.checkpoint import Verifier
from ledger.errors import CodecError, SignatureInvalid
from ledger.terms import MAX_CARD, MAX_POWER

VERSION: Final = 1
MAX_SIZE: Final = 16 * 1024 * 1024  # bytes of a genesis
RECIPIENT_SIZE: Final = 48  # node id of the keystore (16), X25519 public key (32)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,31}")
_URL: Final = re.compile(r"https://[!-.0-9:;=?@A-Z\[\]_a-z~]{1,250}/?")
_ADDRESS: Final = re.compile(r"[0-9a-f]{40}@(?:[0-9A-Za-z.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\]):[0-9]{1,5}")
# {1: -8, 4: h'<8 bytes>'}, as of entries (RFC 9052 section 3.1).
_PROTECTED: Final = bytes.fromhex("a201270448")
_EXTERNAL: Final = b"cairn/1 card"
_COSIGNER: Final = b"cairn/1 cosigner"
_ARMOUR: Final = "CAIRN MEMBER CARD"
_CARD_KEYS: Final = ["a", "b", "c", "k", "n", "p", "r", "u", "v", "w"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a member says of itself.

    `name` is unique in the consortium (`[a-z0-9][a-z0-9.-]{0,31}`) and that of its cosigner key; `key` the Ed25519 key
    of its entries and checkpoints; `cosigner` that of its cosignatures; `recipient` to whom studies are sealed: 16
    bytes of node id and the X25519 public key; `certificate` its TLS certificate (DER); `url` where its members'
    listener answers; `consensus` CometBFT's Ed25519 key, with its voting `power`; `address` CometBFT's peer address,
    `id@host:port`. `signed` is the card as its member signed it, empty before that.
    """

    name: str
    key: bytes
    cosigner: bytes
    recipient: bytes
    certificate: bytes
    url: str
    consensus: bytes
    power: int
    address: str
    signed: bytes = field(default=b"", repr=False)

    @property
    def node(self) -> bytes:
        """The id of the node whose first ledger key this is (16 bytes)."""
        return keys.node_id(self.key)

    @property
    def validator(self) -> bytes:
        """The address of its validator: the first 20 bytes of SHA-256 of the consensus key."""
        return hashlib.sha256(self.consensus).digest()[:20]

    def witness(self) -> Verifier:
        """The verifier of its cosignatures, named like the member."""
        return cosignature.cosigner(self.name, self.cosigner)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What all members must do alike, in one block: transactions of so many bytes, so many entries, so many bytes."""

    transaction_bytes: int = 256 * 1024
    block_entries: int = 4096
    block_bytes: int = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Genesis:
    """A consortium's beginning: its name, when (microseconds since the epoch), first members by name, parameters."""

    name: str
    time_us: int
    cards: tuple[Card, ...]
    parameters: Parameters = Parameters()

    @property
    def ledger(self) -> bytes:
        """The 8 bytes that every entry names: of SHA-256 of the canonical genesis."""
        return hashlib.sha256(encode(self)).digest()[:8]

    @property
    def origin(self) -> str:
        """The shared log's name in checkpoints: cairn/<name>-<ledger id>."""
        return f"cairn/{self.name}-{self.ledger.hex()}"

    @property
    def chain_id(self) -> str:
        """CometBFT's name of the chain, at most 49 of its 50 characters."""
        return f"{self.name}-{self.ledger.hex()}"


def check_name(name: object) -> str:
    """A name that a member or consortium may have; raises CodecError for any other."""
    if type(name) is not str or not _NAME.fullmatch(name):
        raise CodecError("a name is at most 32 of a-z, 0-9, '.' and '-', and begins with a letter or digit")
    return name


def cosigner_seed(signing_seed: bytes) -> bytes:
    """The private key (32 bytes) of a member's cosignatures, by HKDF-SHA256 from that of its entries."""
    return HKDF(hashes.SHA256(), 32, None, _COSIGNER).derive(signing_seed)


def cosigner_key(signing_seed: bytes) -> keys.SigningKey:
    """As `cosigner_seed`, as an object that signs."""
    return keys.SigningKey(cosigner_seed(signing_seed))


def sign_card(card: Card, signer: keys.Signer) -> Card:
    """The card with its signature; raises CodecError for a field out of its range or a signer of another key."""
    if keys.raw(signer.public_key()) != card.key:
        raise CodecError("a card is signed with the key that it names", "card")
    payload = _card_payload(card)
    protected = _PROTECTED + keys.key_id(card.key)
    signed = codec.encode([protected, {}, payload, signer.sign(_to_be_signed(protected, payload))], MAX_CARD)
    return open_card(signed)


def open_card(signed: bytes) -> Card:
    """A card whose signature verifies under the key in it.

    Raises CodecError for anything but the strict encoding of a card, SignatureInvalid when the signature does not
    verify. Whether it is who it says is for people to compare (`fingerprint`).
    """
    match codec.decode(signed, MAX_CARD):
        case [bytes() as protected, {} as unprotected, bytes() as payload, bytes() as signature] if not unprotected:
            pass
        case _:
            raise CodecError("not an untagged COSE_Sign1", "card")
    value: Any = codec.decode(payload, MAX_CARD)
    if not isinstance(value, dict) or list(value) != _CARD_KEYS or value["v"] != VERSION:
        raise CodecError("not a member's card of this version", "card")
    card = Card(
        name=value["n"],
        key=value["k"],
        cosigner=value["w"],
        recipient=value["r"],
        certificate=value["c"],
        url=value["u"],
        consensus=value["b"],
        power=value["p"],
        address=value["a"],
        signed=signed,
    )
    if _card_payload(card) != payload:
        raise CodecError("not the encoding of a card", "card")
    if protected != _PROTECTED + keys.key_id(card.key) or len(signature) != keys.SIGNATURE_SIZE:
        raise SignatureInvalid("the card names another algorithm or key", "card")
    keys.check(card.key, signature, _to_be_signed(protected, payload))
    return card


def fingerprint(signed: bytes) -> str:
    """What two people read to each other to know that they hold the same card: SHA-256, in groups of four digits."""
    digits = hashlib.sha256(signed).hexdigest()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


def card_text(card: Card) -> str:
    """A signed card as a text file (RFC 7468 armour)."""
    body = base64.b64encode(card.signed).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {_ARMOUR}-----", *lines, f"-----END {_ARMOUR}-----", ""])


def parse_card(text: str) -> Card:
    """The card of a text file. Raises CodecError, SignatureInvalid."""
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0] != f"-----BEGIN {_ARMOUR}-----" or lines[-1] != f"-----END {_ARMOUR}-----":
        raise CodecError(f"a card begins with -----BEGIN {_ARMOUR}-----", "card")
    try:
        signed = base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        raise CodecError("not base64", "card") from None
    return open_card(signed)


def make(name: str, time_us: int, cards: Sequence[Card], parameters: Parameters | None = None) -> Genesis:
    """A genesis of these members, in the order of their names; raises CodecError for one that cannot be."""
    ordered = tuple(sorted(cards, key=lambda card: card.name))
    genesis = Genesis(name, time_us, ordered, Parameters() if parameters is None else parameters)
    _check(genesis)
    return genesis


def encode(genesis: Genesis) -> bytes:
    """The canonical genesis, whose hash names the ledger; raises CodecError for one that cannot be."""
    _check(genesis)
    return codec.encode(
        {
            "v": VERSION,
            "name": genesis.name,
            "time": genesis.time_us,
            "cards": [card.signed for card in genesis.cards],
            "params": _parameters(genesis.parameters),
        },
        MAX_SIZE,
    )


def decode(encoded: bytes) -> Genesis:
    """The genesis of exactly these bytes, every card verified. Raises CodecError, SignatureInvalid."""
    value: Any = codec.decode(encoded, MAX_SIZE)
    try:
        cards = tuple(open_card(card) for card in value["cards"])
        genesis = Genesis(value["name"], value["time"], cards, Parameters(**value["params"]))
    except (KeyError, TypeError, AttributeError):
        raise CodecError("not a genesis", "genesis") from None
    if encode(genesis) != encoded:
        raise CodecError("not the encoding of a genesis", "genesis")
    return genesis


def to_json(genesis: Genesis) -> str:
    """The file that is handed to every member: readable, with the cards in base64."""
    encode(genesis)
    document = {
        "cairn": VERSION,
        "name": genesis.name,
        "ledger": genesis.ledger.hex(),
        "origin": genesis.origin,
        "time_us": genesis.time_us,
        "parameters": _parameters(genesis.parameters),
        "members": [
            {"name": card.name, "node": card.node.hex(), "card": base64.b64encode(card.signed).decode()}
            for card in genesis.cards
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def from_json(text: str) -> Genesis:
    """The genesis of such a file, which must say nothing else than its cards. Raises CodecError, SignatureInvalid."""
    try:
        document = json.loads(text)
        cards = [open_card(base64.b64decode(member["card"], validate=True)) for member in document["members"]]
        parameters = Parameters(**document["parameters"])
        genesis = make(document["name"], document["time_us"], cards, parameters)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise CodecError("not a genesis file", "genesis") from None
    if json.loads(to_json(genesis)) != document:
        raise CodecError("the genesis file says something else than its cards", "genesis")
    return genesis


def _card_payload(card: Card) -> bytes:
    check_name(card.name)
    for name, octets, size in (
        ("the ledger key", card.key, 32),
        ("the cosigner key", card.cosigner, 32),
        ("the recipient", card.recipient, RECIPIENT_SIZE),
        ("the consensus key", card.consensus, 32),
    ):
        if type(octets) is not bytes or len(octets) != size:
            raise CodecError(f"{name} is {size} bytes", "card")
    if type(card.certificate) is not bytes or not 0 < len(card.certificate) <= MAX_CARD // 2:
        raise CodecError(f"the certificate is DER of at most {MAX_CARD // 2} bytes", "card")
    if type(card.url) is not str or not _URL.fullmatch(card.url):
        raise CodecError("the members' listener is named by https://host:port", "card")
    if type(card.power) is not int or not 0 <= card.power <= MAX_POWER:
        raise CodecError(f"the power is at most {MAX_POWER}", "card")
    if type(card.address) is not str or not _ADDRESS.fullmatch(card.address):
        raise CodecError("CometBFT's address is id@host:port", "card")
    return codec.encode(
        {
            **{"v": VERSION, "n": card.name, "k": card.key, "w": card.cosigner, "r": card.recipient},
            **{"c": card.certificate, "u": card.url, "b": card.consensus, "p": card.power, "a": card.address},
        },
        MAX_CARD,
    )


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052 section 4.4 with the external data of cards."""
    return codec.encode(["Signature1", protected, _EXTERNAL, payload])


def _parameters(parameters: Parameters) -> Mapping[str, int]:
    return {row.name: getattr(parameters, row.name) for row in fields(parameters)}


def _check(genesis: Genesis) -> None:
    check_name(genesis.name)
    if type(genesis.time_us) is not int or not 0 <= genesis.time_us < 2**63:
        raise CodecError("a genesis begins at microseconds since the epoch", "genesis")
    if any(type(value) is not int or not 0 < value < 2**31 for value in _parameters(genesis.parameters).values()):
        raise CodecError("a parameter is a positive number below 2**31", "genesis")
    cards = genesis.cards
    if not cards or any(not card.signed for card in cards):
        raise CodecError("a genesis has signed cards of its first members", "genesis")
    if [card.name for card in cards] != sorted(card.name for card in cards):
        raise CodecError("a genesis has its cards in the order of their names", "genesis")
    for what, seen in (
        ("name", [card.name for card in cards]),
        ("ledger key", [card.key for card in cards]),
        ("consensus key", [card.consensus for card in cards]),
    ):
        if len(set(seen)) != len(seen):
            raise CodecError(f"two members have one {what}", "genesis")
    if not any(card.power for card in cards):
        raise CodecError("no member has a vote in CometBFT", "genesis")
