"""A provenance record: one fact, salted, in canonical CBOR; its RFC 6962 leaf hash is what the ledger commits to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger import codec, merkle
from ledger.errors import CodecError
from ledger.types import ENTRY_TYPES

SALT_SIZE = 16  # random bytes, so that a leaf hash tells nothing about a guessed record
_KEYS = ["b", "s", "t", "u"]


@dataclass(frozen=True, slots=True)
class Record:
    """One fact: its entry type, when (microseconds since the epoch), 16 random bytes, and what the caller states.

    `body` lies in the data model of `ledger.codec` (text keys; no floats); it may hold UIDs, never names.
    """

    type: str
    time_us: int
    salt: bytes
    body: Mapping[str, object]


def encode(record: Record) -> bytes:
    """Canonical CBOR {"b": body, "s": salt, "t": type, "u": time}; raises CodecError for what `decode` would refuse."""
    _check(record)
    return codec.encode({"b": record.body, "s": record.salt, "t": record.type, "u": record.time_us})


def decode(encoded: bytes) -> Record:
    """The record of exactly these bytes; raises CodecError unless they are its one encoding."""
    value = codec.decode(encoded)
    if not isinstance(value, dict) or list(value) != _KEYS:
        raise CodecError("a record is a map of b, s, t and u")
    record = Record(value["t"], value["u"], value["s"], value["b"])  # type: ignore[arg-type]
    _check(record)
    return record


def leaf_hash(encoded: bytes) -> bytes:
    """SHA-256(0x00 || encoded record): RFC 6962 section 2.1."""
    return merkle.leaf_hash(encoded)


def _check(record: Record) -> None:
    if type(record.type) is not str or record.type not in ENTRY_TYPES:
        raise CodecError("a record of unknown type")
    if type(record.time_us) is not int or record.time_us < 0:
        raise CodecError("a record's time is microseconds since the epoch")
    if type(record.salt) is not bytes or len(record.salt) != SALT_SIZE:
        raise CodecError(f"a record's salt is {SALT_SIZE} bytes")
    if not isinstance(record.body, Mapping):
        raise CodecError("a record's body is a map")
