"""The entry: one signed envelope over a closed batch of records.

An envelope is an untagged COSE_Sign1 (RFC 9052 section 4.2) in the strict CBOR of `ledger.codec`:
[protected, {}, payload, signature] with protected = {1: -8 (EdDSA), 4: kid}. Its leaf in the log is
SHA-256(0x00 || envelope). It names no study, no patient, no CID and no count of images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from ledger import codec, keys, merkle
from ledger.errors import CodecError, SignatureInvalid
from ledger.types import ENTRY_TYPES

VERSION = 1
MAX_SIZE = codec.MAX_SIZE  # bytes of an envelope
GENESIS = bytes(32)  # the previous hash of a node's entry 0
MAX_TEXT = 64  # characters of a purpose or role

# {1: -8, 4: h'<8 bytes>'} (RFC 9052 section 3.1; EdDSA is -8 in RFC 9053 section 2.2); integer keys, so not `codec`'s.
_PROTECTED = bytes.fromhex("a201270448")
# ["Signature1", protected, external_aad = h'', payload]: RFC 9052 section 4.4.
_SIGNATURE1 = bytes.fromhex("846a5369676e617475726531")


@dataclass(frozen=True, slots=True)
class Who:
    """The actor: kind (0 system, 1 user, 2 device, 3 peer), 16-byte keyed tag, role (may be empty), address tag."""

    kind: int
    tag: bytes
    role: str = ""
    address: bytes | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The payload of an envelope.

    `node` is SHA-256(first public key)[:16]; `sequence` counts that node's entries from 0; `previous` is the SHA-256
    of its previous envelope; `ledger` 8 bytes that keep an entry from being replayed in another ledger; `time_us`
    the node's clock in microseconds since the epoch (a claim); `purpose` an HL7 v3 ActReason code; `outcome` 0, 4, 8
    or 12 (PS3.15 A.5.2.1); `study` a random 16-byte tag; `commitment` SHA-256(salt || StudyRoot CID);
    `records_root` the RFC 6962 root over the batch's records.
    """

    node: bytes
    sequence: int
    previous: bytes
    type: str
    ledger: bytes
    time_us: int
    purpose: str
    outcome: int
    who: Who
    study: bytes | None
    commitment: bytes | None
    records_root: bytes
    version: int = VERSION

    @property
    def action(self) -> str:
        """C, R, U, D or E: fixed by the type."""
        return ENTRY_TYPES[self.type].action


def ledger_id(origin: str, public_key: keys.PublicKey) -> bytes:
    """The id of a solo ledger: the first 8 bytes of SHA-256 of canonical CBOR {"k": public key, "o": origin}."""
    return hashlib.sha256(codec.encode({"k": keys.raw(public_key), "o": origin})).digest()[:8]


def envelope_hash(envelope: bytes) -> bytes:
    """SHA-256 of an envelope: what the node's next entry names as its previous."""
    return hashlib.sha256(envelope).digest()


def leaf_hash(envelope: bytes) -> bytes:
    """The envelope's leaf in the log, which is also the entry's id: RFC 6962 section 2.1."""
    return merkle.leaf_hash(envelope)


def encode(entry: Entry) -> bytes:
    """The canonical payload; raises CodecError for a field out of its range."""
    _check(entry)
    who: dict[str, object] = {"k": entry.who.kind, "i": entry.who.tag}
    if entry.who.role:
        who["r"] = entry.who.role
    if entry.who.address is not None:
        who["a"] = entry.who.address
    payload: dict[str, object] = {
        "n": entry.node,
        "p": entry.previous,
        "q": entry.sequence,
        "t": entry.type,
        "v": entry.version,
        "ac": entry.action,
        "lg": entry.ledger,
        "oc": entry.outcome,
        "pu": entry.purpose,
        "rr": entry.records_root,
        "ts": entry.time_us,
        "who": who,
    }
    if entry.study is not None:
        payload["sub"] = {"s": entry.study}
    if entry.commitment is not None:
        payload["obj"] = {"h": entry.commitment}
    return codec.encode(payload)


def decode(payload: bytes) -> Entry:
    """The entry of exactly these bytes; raises CodecError for anything but its one encoding."""
    value: Any = codec.decode(payload)
    try:
        who, subject, manifest = value["who"], value.get("sub", {}), value.get("obj", {})
        entry = Entry(
            node=value["n"],
            sequence=value["q"],
            previous=value["p"],
            type=value["t"],
            ledger=value["lg"],
            time_us=value["ts"],
            purpose=value["pu"],
            outcome=value["oc"],
            who=Who(who["k"], who["i"], who.get("r", ""), who.get("a")),
            study=subject.get("s"),
            commitment=manifest.get("h"),
            records_root=value["rr"],
            version=value["v"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CodecError("the payload lacks a field of an entry, or one has another type") from error
    # Encoding again refuses what the reading above passed over: unknown keys, an empty role, another action.
    if encode(entry) != payload:
        raise CodecError("the payload is not the encoding of an entry")
    return entry


def sign(payload: bytes, private_key: keys.Signer) -> bytes:
    """The envelope over an encoded payload; raises CodecError when it would exceed 16 KiB."""
    protected = _PROTECTED + keys.key_id(private_key.public_key())
    signature = private_key.sign(_to_be_signed(protected, payload))
    return codec.encode([protected, {}, payload, signature], MAX_SIZE)


def open(envelope: bytes, public_key: keys.PublicKey) -> Entry:
    """The entry of an envelope whose signature verifies.

    Raises CodecError for anything but the strict encoding, SignatureInvalid when the envelope names another key or the
    signature does not verify.
    """
    protected, payload, signature = unwrap(envelope)
    key = keys.verifier(public_key)
    if protected != _PROTECTED + keys.key_id(key):
        raise SignatureInvalid("the envelope names another algorithm or key")
    keys.check(key, signature, _to_be_signed(protected, payload))
    return decode(payload)


def read(envelope: bytes) -> Entry:
    """The entry of an envelope that was verified before; its signature is NOT checked. Raises CodecError."""
    return decode(unwrap(envelope)[1])


def unwrap(envelope: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature of an envelope, unverified; raises CodecError when it is not one."""
    value = codec.decode(envelope, MAX_SIZE)
    match value:
        case [bytes() as protected, {} as unprotected, bytes() as payload, bytes() as signature] if not unprotected:
            if len(signature) != keys.SIGNATURE_SIZE:
                raise CodecError("an Ed25519 signature is 64 bytes")
            return protected, payload, signature
    raise CodecError("not an untagged COSE_Sign1 with an empty unprotected header")


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    return _SIGNATURE1 + codec.encode(protected) + b"\x40" + codec.encode(payload)


_FIXED = (("node", 16), ("previous", 32), ("ledger", 8), ("records_root", 32))
_OPTIONAL = (("study", 16), ("commitment", 32))
_COUNTS = range(2**63)


def _check(entry: Entry) -> None:
    """Raise CodecError unless every field has its type, length and range."""
    for name, size in _FIXED:
        _check_bytes(name, getattr(entry, name), size)
    for name, size in _OPTIONAL:
        if getattr(entry, name) is not None:
            _check_bytes(name, getattr(entry, name), size)
    _check_bytes("actor tag", entry.who.tag, 16)
    if entry.who.address is not None:
        _check_bytes("address tag", entry.who.address, 16)
    for name, number, allowed in (
        ("sequence", entry.sequence, _COUNTS),
        ("time", entry.time_us, _COUNTS),
        ("version", entry.version, (VERSION,)),
        ("outcome", entry.outcome, (0, 4, 8, 12)),
        ("actor kind", entry.who.kind, (0, 1, 2, 3)),
    ):
        if type(number) is not int or number not in allowed:
            raise CodecError(f"{name} is out of its range")
    for name, text in (("purpose", entry.purpose), ("role", entry.who.role)):
        if type(text) is not str or len(text) > MAX_TEXT:
            raise CodecError(f"{name} is at most {MAX_TEXT} characters")
    if type(entry.type) is not str or entry.type not in ENTRY_TYPES:
        raise CodecError("an entry of unknown type")


def _check_bytes(name: str, value: object, size: int) -> None:
    if type(value) is not bytes or len(value) != size:
        raise CodecError(f"{name} is {size} bytes")
