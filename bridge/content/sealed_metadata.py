"""What the sealed metadata of an instance holds: all that the index needs to serve it again without reading pixels.

One canonical CBOR map (RFC 8949 section 4.2.1) with text keys; the DICOM JSON is deflated (zlib, RFC 1950). Decoding is
bounded, so that a hostile member's metadata cannot exhaust memory.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import cbor2

from bridge.errors import ContentCorrupt

__all__ = ["MAX_ENCODED", "MAX_JSON", "SealedMetadata", "decode", "deflate", "encode", "inflate"]

MAX_ENCODED: Final = 256 << 20
MAX_JSON: Final = 64 << 20
_VERSION: Final = 1
_MAX_UID: Final = 64  # PS3.5 section 9.1
_MAX_SOURCE: Final = 1024
_DIGEST_SIZE: Final = 32
_HEADER_SIZE: Final = 40  # bridge.crypto.sealing.HEADER_SIZE
_MAX_NUMBER: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SealedMetadata:
    """One instance's metadata.

    `json` is its DICOM JSON object (UTF-8), deflated (zlib); `frames` and `bulk` the encoded tables; `data_set` the
    offset of the data set in the object's plaintext; `header` the object's 40-byte stream header and `length` its
    plaintext length in bytes; `received` microseconds since the epoch; `source` who sent it, in words.
    """

    study: str
    series: str
    sop: str
    sop_class: str
    transfer_syntax: str
    digest: bytes
    json: bytes
    frames: bytes
    bulk: bytes
    data_set: int
    header: bytes
    length: int
    received: int
    source: str


_TEXTS: Final = {
    "study": _MAX_UID,
    "series": _MAX_UID,
    "sop": _MAX_UID,
    "sop_class": _MAX_UID,
    "transfer_syntax": _MAX_UID,
    "source": _MAX_SOURCE,
}
_BYTES: Final = ("digest", "json", "frames", "bulk", "header")
_NUMBERS: Final = ("data_set", "length", "received")


def encode(metadata: SealedMetadata) -> bytes:
    """The plaintext to seal. Raises ValueError for a value that `decode` would refuse."""
    fields: dict[str, object] = {name: getattr(metadata, name) for name in (*_TEXTS, *_BYTES, *_NUMBERS)}
    fields["v"] = _VERSION
    fault = _fault(fields)
    if fault:
        raise ValueError(fault)
    return cbor2.dumps(fields, canonical=True)


def decode(data: bytes) -> SealedMetadata:
    """Read the plaintext strictly. Raises ContentCorrupt for anything else, and beyond 256 MiB (JSON: 64 MiB)."""
    if len(data) > MAX_ENCODED:
        raise ContentCorrupt("sealed metadata beyond 256 MiB")
    try:
        fields = cbor2.loads(data)
    except cbor2.CBORError as error:
        raise ContentCorrupt(f"sealed metadata is not CBOR: {error}") from None
    if not isinstance(fields, dict) or fields.keys() != {*_TEXTS, *_BYTES, *_NUMBERS, "v"}:
        raise ContentCorrupt("sealed metadata has other fields")
    fault = _fault(fields)
    if fault or cbor2.dumps(fields, canonical=True) != data:
        raise ContentCorrupt(f"sealed metadata: {fault or 'not canonical'}")
    del fields["v"]
    inflate(fields["json"])
    return SealedMetadata(**fields)


def _fault(fields: dict[str, object]) -> str | None:
    if type(fields["v"]) is not int or fields["v"] != _VERSION:
        return "version is not 1"
    for name, limit in _TEXTS.items():
        text = fields[name]
        if type(text) is not str or len(text) > limit:
            return f"{name} is not text of at most {limit} characters"
    for name in _BYTES:
        if type(fields[name]) is not bytes:
            return f"{name} is not bytes"
    for name in _NUMBERS:
        number = fields[name]
        if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
            return f"{name} is not a number of at most 63 bits"
    if _size(fields["digest"]) != _DIGEST_SIZE or _size(fields["header"]) != _HEADER_SIZE:
        return "digest has 32 bytes and header 40"
    return None


def _size(value: object) -> int:
    return len(value) if type(value) is bytes else -1


def deflate(json: bytes) -> bytes:
    """A DICOM JSON object as it is kept; level 1, since it is done once for each instance on its way in."""
    return zlib.compress(json, 1)


def inflate(deflated: bytes) -> bytes:
    """The DICOM JSON object. Raises ContentCorrupt when it is cut short, followed by more, or beyond 64 MiB."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(deflated, MAX_JSON + 1)
    except zlib.error as error:
        raise ContentCorrupt(f"sealed metadata: {error}") from None
    if not inflater.eof or inflater.unused_data or len(data) > MAX_JSON:
        raise ContentCorrupt("sealed metadata: JSON cut short, followed by more, or beyond 64 MiB")
    return data
