"""The entry: one signed envelope over a closed batch of records.

An envelope is an untagged COSE_Sign1 (RFC 9052 section 4.2) in the strict CBOR of `ledger.codec`:
[protected, {}, payload, signature] with protected = {1: -8 (EdDSA), 4: kid}. Its leaf in the log is
SHA-256(0x00 || envelope). It names no study, no patient, no CID and no count of images. What an entry states besides
(`body`) and the entries that it refers to (`refs`) are those that `ledger.terms` allows its type.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import contains
from typing import Any

from ledger import codec, keys, merkle, terms
from ledger.errors import CodecError, SignatureInvalid
from ledger.types import ENTRY_TYPES

VERSION = 1
MAX_SIZE = codec.MAX_SIZE  # bytes of an envelope
MAX_PAYLOAD = MAX_SIZE - 85  # bytes of a payload: the rest are header, signature and heads of three bytes or less
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
    `records_root` the RFC 6962 root over the batch's records. `body` is the canonical encoding of a map of
    `ledger.terms`, None for none; `refs` are ids of entries (32 bytes each) that this one is about.
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
    body: bytes | None = None
    refs: tuple[bytes, ...] = ()

    @property
    def terms(self) -> Mapping[str, codec.Value]:
        """What the body states; empty when there is none."""
        return {} if self.body is None else terms.read(self.type, self.body)

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
    """The canonical payload; raises CodecError for a field out of its range, and when no envelope would hold it."""
    _check(entry)
    who, study, commitment, body, refs = entry.who, entry.study, entry.commitment, entry.body, entry.refs
    # Written out, in canonical order, because an entry is encoded for every one that is sealed or verified: it is what
    # `codec.encode` gives for the map of docs/ledger-format.md, several times faster.
    parts = [
        _MAP[12 + (study is not None) + (commitment is not None) + (body is not None) + (len(refs) != 0)],
        b"\x61n\x50",
        entry.node,
        b"\x61p\x58\x20",
        entry.previous,
        b"\x61q",
        codec.head(0, entry.sequence),
        _TYPES[entry.type],
        b"" if body is None else b"\x62bd" + body,
        b"\x62lg\x48",
        entry.ledger,
        b"\x62oc",
        codec.head(0, entry.outcome),
        b"\x62pu",
        _text(entry.purpose),
        b"\x62rr\x58\x20",
        entry.records_root,
        b"\x62ts",
        codec.head(0, entry.time_us),
    ]
    if commitment is not None:
        parts += b"\x63obj\xa1\x61h\x58\x20", commitment
    if refs:
        parts += b"\x63ref", codec.head(4, len(refs)), *(b"\x58\x20" + ref for ref in refs)
    if study is not None:
        parts += b"\x63sub\xa1\x61s\x50", study
    parts += b"\x63who", _MAP[2 + (who.address is not None) + (who.role != "")]
    if who.address is not None:
        parts += b"\x61a\x50", who.address
    parts += b"\x61i\x50", who.tag, b"\x61k", codec.head(0, who.kind)
    if who.role:
        parts += b"\x61r", _text(who.role)
    payload = b"".join(parts)
    if len(payload) > MAX_PAYLOAD:
        raise CodecError(f"{len(payload)} bytes of an entry, more than {MAX_PAYLOAD}")
    return payload


_MAP = tuple(codec.head(5, size) for size in range(17))
_TYPES = {
    name: b"\x61t" + codec.encode(name) + b"\x61v" + codec.encode(VERSION) + b"\x62ac" + codec.encode(row.action)
    for name, row in ENTRY_TYPES.items()
}
_text = lru_cache(1024)(codec.encode)


def decode(payload: bytes) -> Entry:
    """The entry of exactly these bytes; raises CodecError for anything but its one encoding."""
    entry = _guess(payload)
    if entry is not None:
        return entry
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
            body=codec.encode(value["bd"]) if "bd" in value else None,
            refs=tuple(value.get("ref", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CodecError("the payload lacks a field of an entry, or one has another type") from error
    # Encoding again refuses what the reading above passed over: unknown keys, an empty role, another action.
    if encode(entry) != payload:
        raise CodecError("the payload is not the encoding of an entry")
    return entry


_UINT = rb"([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})"
_TEXT = rb"(?:[\x60-\x77]|\x78.)"
_LAYOUT = re.compile(
    rb"[\xac-\xae]\x61n\x50(.{16})\x61p\x58\x20(.{32})\x61q" + _UINT + rb"\x61t[\x60-\x77]([a-z.]+)\x61v.\x62ac.."
    rb"\x62lg\x48(.{8})\x62oc(.)\x62pu"
    + _TEXT
    + rb"(.*?)\x62rr\x58\x20(.{32})\x62ts"
    + _UINT
    + rb"(?:\x63obj\xa1\x61h\x58\x20(.{32}))?(?:\x63sub\xa1\x61s\x50(.{16}))?"
    rb"\x63who[\xa2-\xa4](?:\x61a\x50(.{16}))?\x61i\x50(.{16})\x61k(.)(?:\x61r" + _TEXT + rb"(.*))?",
    re.DOTALL,
)


def _guess(payload: bytes) -> Entry | None:
    """The entry of a payload laid out as `encode` does it; None for any other, about which `decode` says more.

    The pattern only proposes: what it read is taken when it encodes to these very bytes, so nothing lax gets through.
    """
    found = _LAYOUT.fullmatch(payload)
    if found is None:
        return None
    node, previous, sequence, type, ledger, outcome, purpose, root, time, commitment, study, *who = found.groups()
    address, tag, kind, role = who
    try:
        entry = Entry(
            node,
            _unsigned(sequence),
            previous,
            str(type, "ascii"),
            ledger,
            _unsigned(time),
            str(purpose, "utf-8"),
            outcome[0],
            Who(kind[0], tag, str(role or b"", "utf-8"), address),
            study,
            commitment,
            root,
        )
        return entry if encode(entry) == payload else None
    except (CodecError, UnicodeDecodeError):
        return None


def _unsigned(item: bytes) -> int:
    return int.from_bytes(item if len(item) == 1 else item[1:], "big")


def sign(payload: bytes, private_key: keys.Signer, kid: bytes | None = None) -> bytes:
    """The envelope over an encoded payload; raises CodecError when it would exceed 16 KiB.

    `kid` is the key's id, asked of the key when not given.
    """
    protected = _PROTECTED + (keys.key_id(private_key.public_key()) if kid is None else kid)
    signature = private_key.sign(_to_be_signed(protected, payload))
    envelope = _envelope(protected, payload, signature)
    if len(envelope) > MAX_SIZE or len(signature) != keys.SIGNATURE_SIZE:
        raise CodecError(f"{len(envelope)} bytes with a signature of {len(signature)} are no envelope")
    return envelope


def open(envelope: bytes, public_key: keys.PublicKey, kid: bytes | None = None) -> Entry:
    """The entry of an envelope whose signature verifies; `kid` is the key's id, computed when not given.

    Raises CodecError for anything but the strict encoding, SignatureInvalid when the envelope names another key or the
    signature does not verify.
    """
    parts = unwrap(envelope)
    check_signature(parts, public_key, kid)
    return decode(parts[1])


def check_signature(parts: tuple[bytes, bytes, bytes], public_key: keys.PublicKey, kid: bytes | None = None) -> None:
    """Raise SignatureInvalid unless what `unwrap` gave is signed with this key, which it must name.

    `kid` is the key's id, computed when not given.
    """
    protected, payload, signature = parts
    key = keys.raw(public_key)
    if protected != _PROTECTED + (keys.key_id(key) if kid is None else kid):
        raise SignatureInvalid("the envelope names another algorithm or key")
    keys.check(key, signature, _to_be_signed(protected, payload))


def read(envelope: bytes) -> Entry:
    """The entry of an envelope that was verified before; its signature is NOT checked. Raises CodecError."""
    return decode(unwrap(envelope)[1])


def unwrap(envelope: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature of an envelope, unverified; raises CodecError when it is not one."""
    # Laid out as `sign` does it; these parts are right when they make up the envelope again.
    parts = envelope[2:15], envelope[18 + (envelope[16:17] == b"\x59") : -66], envelope[-64:]
    if len(envelope) <= MAX_SIZE and _envelope(*parts) == envelope:
        return parts
    value = codec.decode(envelope, MAX_SIZE)
    match value:
        case [bytes() as protected, {} as unprotected, bytes() as payload, bytes() as signature] if not unprotected:
            if len(signature) != keys.SIGNATURE_SIZE:
                raise CodecError("an Ed25519 signature is 64 bytes")
            return protected, payload, signature
    raise CodecError("not an untagged COSE_Sign1 with an empty unprotected header")


def _envelope(protected: bytes, payload: bytes, signature: bytes) -> bytes:
    """The encoding of [protected, {}, payload, signature], for 13 bytes of header and a signature of 64."""
    return b"".join((b"\x84\x4d", protected, b"\xa0", codec.head(2, len(payload)), payload, b"\x58\x40", signature))


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The encoding of the Sig_structure, for 13 bytes of header."""
    return b"".join((_SIGNATURE1, b"\x4d", protected, b"\x40", codec.head(2, len(payload)), payload))


_SIZED = {
    "node": 16,
    "previous": 32,
    "ledger": 8,
    "records_root": 32,
    "actor tag": 16,
    "study": 16,
    "commitment": 32,
    "address tag": 16,
}
_SIZES = tuple(_SIZED.values())
_NUMBERS = ("sequence", "time", "version", "outcome", "actor kind")
_COUNTS = range(2**63)
_ALLOWED = (_COUNTS, _COUNTS, (VERSION,), (0, 4, 8, 12), (0, 1, 2, 3))


def _check(entry: Entry) -> None:
    """Raise CodecError unless every field has its type, length and range."""
    who, study, commitment = entry.who, entry.study, entry.commitment
    sized = (
        *(entry.node, entry.previous, entry.ledger, entry.records_root, who.tag),
        GENESIS[:16] if study is None else study,
        GENESIS if commitment is None else commitment,
        GENESIS[:16] if who.address is None else who.address,
    )
    if set(map(type, sized)) != {bytes} or tuple(map(len, sized)) != _SIZES:
        wrong = [
            f"{name} is {_SIZED[name]} bytes"
            for name, value in zip(_SIZED, sized, strict=True)
            if not (type(value) is bytes and len(value) == _SIZED[name])
        ]
        raise CodecError(wrong[0])
    numbers = (entry.sequence, entry.time_us, entry.version, entry.outcome, who.kind)
    if set(map(type, numbers)) != {int} or not all(map(contains, _ALLOWED, numbers)):
        wrong = [
            name
            for name, number, allowed in zip(_NUMBERS, numbers, _ALLOWED, strict=True)
            if not (type(number) is int and number in allowed)
        ]
        raise CodecError(f"{wrong[0]} is out of its range")
    for name, text in (("purpose", entry.purpose), ("role", who.role)):
        if type(text) is not str or len(text) > MAX_TEXT:
            raise CodecError(f"{name} is at most {MAX_TEXT} characters")
    if type(entry.type) is not str or entry.type not in ENTRY_TYPES:
        raise CodecError("an entry of unknown type")
    if entry.body is not None or entry.refs or entry.type in terms.DEMANDING:
        terms.check(entry.type, entry.body, entry.refs)
