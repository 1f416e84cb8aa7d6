"""Content identifiers: binary CIDv1 over sha2-256 or blake3, and their base32 text form.

A CID is `bytes` everywhere: version 1, codec, then a multihash (code, length, digest), all varints
(multiformats "CID v1", "unsigned-varint"). Text is multibase base32, lower case, unpadded, prefix "b" (RFC 4648).
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, Literal, NamedTuple

from blake3 import blake3

__all__ = [
    "BLAKE3",
    "DAG_CBOR",
    "DAG_PB",
    "DIGEST_SIZE",
    "IDENTITY",
    "RAW",
    "SHA2_256",
    "Buffer",
    "Cid",
    "HashName",
    "from_text",
    "kind",
    "make",
    "parse",
    "read",
    "read_varint",
    "to_text",
    "varint",
    "verify",
]

# https://github.com/multiformats/multicodec/blob/master/table.csv
RAW: Final = 0x55
DAG_PB: Final = 0x70
DAG_CBOR: Final = 0x71
IDENTITY: Final = 0x00
SHA2_256: Final = 0x12
BLAKE3: Final = 0x1E
DIGEST_SIZE: Final = 32
MAX_IDENTITY: Final = 128

HashName = Literal["blake3", "sha2-256"]
Buffer = bytes | bytearray | memoryview

_CODECS: Final = frozenset({RAW, DAG_PB, DAG_CBOR})
_HASH_CODES: Final[dict[str, int]] = {"blake3": BLAKE3, "sha2-256": SHA2_256}
_PREFIXES: Final = {
    (codec, name): bytes((1, codec, code, DIGEST_SIZE)) for codec in _CODECS for name, code in _HASH_CODES.items()
}
_PREFIX_SIZE: Final = 4
_OF_PREFIX: Final = {prefix: (codec, _HASH_CODES[name]) for (codec, name), prefix in _PREFIXES.items()}
_MAX_VARINT: Final = 9


class Cid(NamedTuple):
    """The parts of a CIDv1: multicodec code, multihash code, digest."""

    codec: int
    hash: int
    digest: bytes


def varint(value: int) -> bytes:
    """Encode an unsigned-varint (multiformats: LEB128, minimal). Raises ValueError below 0 or beyond 63 bits."""
    if not 0 <= value < 1 << 63:
        raise ValueError("an unsigned-varint holds 0 to 2**63 - 1")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: Buffer, offset: int = 0) -> tuple[int, int]:
    """Decode an unsigned-varint at `offset`: the value and the offset behind it.

    Raises ValueError when it is cut short, longer than 9 bytes, or not minimal (unsigned-varint, "Practical maximum").
    """
    value = 0
    for index in range(_MAX_VARINT):
        if offset + index >= len(data):
            raise ValueError("varint cut short")
        byte = data[offset + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index:
                raise ValueError("varint is not minimal")
            return value, offset + index + 1
    raise ValueError("varint longer than 9 bytes")


def digest_of(code: int, data: Buffer) -> bytes:
    """The 32-byte digest of `data` by multihash code (BLAKE3 or SHA2_256)."""
    if code == BLAKE3:
        return blake3(data).digest()
    return hashlib.sha256(data).digest()


def make(codec: int, data: Buffer, hash: HashName = "blake3") -> bytes:
    """The binary CIDv1 of a block. Raises KeyError for a codec or hash outside the table."""
    return _PREFIXES[codec, hash] + digest_of(_HASH_CODES[hash], data)


def read(data: Buffer, offset: int = 0) -> tuple[Cid, int]:
    """Parse the CID that starts at `offset`: its parts and the offset behind it.

    Raises ValueError for anything but version 1, codec raw, dag-pb or dag-cbor, and sha2-256 or blake3 with 32 bytes
    or the identity with at most 128 (Kubo's limit); CIDv0 is refused.
    """
    version, position = read_varint(data, offset)
    if version != 1:
        raise ValueError("not a CID of version 1")
    codec, position = read_varint(data, position)
    if codec not in _CODECS:
        raise ValueError(f"codec 0x{codec:x} is not raw, dag-pb or dag-cbor")
    code, position = read_varint(data, position)
    size, position = read_varint(data, position)
    if code == IDENTITY:
        if size > MAX_IDENTITY:
            raise ValueError("identity multihash longer than 128 bytes")
    elif code not in (SHA2_256, BLAKE3) or size != DIGEST_SIZE:
        raise ValueError("multihash is not sha2-256, blake3 (32 bytes) or identity")
    if position + size > len(data):
        raise ValueError("digest cut short")
    return Cid(codec, code, bytes(data[position : position + size])), position + size


def parse(cid: bytes) -> Cid:
    """Parse a whole binary CID strictly; ValueError as `read`, and for bytes behind it."""
    known = _OF_PREFIX.get(cid[:_PREFIX_SIZE])
    if known is not None and len(cid) == _PREFIX_SIZE + DIGEST_SIZE:  # one of ours: nothing to decode
        return Cid(*known, bytes(cid[_PREFIX_SIZE:]))
    parts, end = read(cid)
    if end != len(cid):
        raise ValueError("bytes behind the CID")
    return parts


def kind(cid: bytes) -> tuple[int, int]:
    """Codec and hash code of a whole binary CID, at half the cost of `parse`; ValueError as that."""
    if len(cid) == _PREFIX_SIZE + DIGEST_SIZE and (known := _OF_PREFIX.get(cid[:_PREFIX_SIZE])) is not None:
        return known
    parts = parse(cid)
    return parts.codec, parts.hash


def verify(cid: bytes, data: Buffer) -> bool:
    """Whether `data` is the block that `cid` names. Raises ValueError when `cid` is not a CID."""
    parts = parse(cid)
    if parts.hash == IDENTITY:
        return parts.digest == data
    return digest_of(parts.hash, data) == parts.digest


def to_text(cid: bytes) -> str:
    """The text form, as IPFS tools show it ("bafkr4i...")."""
    return "b" + base64.b32encode(cid).decode().rstrip("=").lower()


def from_text(text: str) -> bytes:
    """Read the base32 text form strictly. Raises ValueError for another base, case, padding, or no valid CID."""
    body = text[1:]
    if not text.startswith("b") or not body.isascii() or body != body.lower() or "=" in body:
        raise ValueError("not a CID in lower-case base32")
    cid = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
    parse(cid)
    if to_text(cid) != text:
        raise ValueError("base32 with stray bits")
    return cid
