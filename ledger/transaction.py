"""A transaction: a contiguous run of one node's entries, as consensus orders it. Pure.

It is the canonical CBOR list of their envelopes in the order of their sequence, at most 256 KiB. All of it is taken, or
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ledger import codec, entry
from ledger.errors import CodecError

MAX_SIZE: Final = 256 * 1024  # bytes
MAX_ENTRIES: Final = 1024
_HEAD: Final = 9  # bytes that the list's own head may take


def encode(envelopes: Sequence[bytes]) -> bytes:
    """The transaction of at least one envelope; raises CodecError when it would be too large."""
    if not 0 < len(envelopes) <= MAX_ENTRIES:
        raise CodecError(f"a transaction has 1 to {MAX_ENTRIES} entries")
    encoded = b"".join(
        (codec.head(4, len(envelopes)), *(codec.head(2, len(envelope)) + envelope for envelope in envelopes))
    )
    if len(encoded) > MAX_SIZE:
        raise CodecError(f"a transaction of {len(encoded)} bytes, more than {MAX_SIZE}")
    return encoded


def decode(tx: bytes) -> tuple[bytes, ...]:
    """The envelopes of exactly these bytes, unverified; raises CodecError for anything but their one encoding."""
    value: Any = codec.decode(tx, MAX_SIZE)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_ENTRIES:
        raise CodecError(f"a transaction is a list of 1 to {MAX_ENTRIES} envelopes")
    if any(type(envelope) is not bytes or len(envelope) > entry.MAX_SIZE for envelope in value):
        raise CodecError(f"an envelope has at most {entry.MAX_SIZE} bytes")
    return tuple(value)


def fit(envelopes: Sequence[bytes], most: int = MAX_SIZE) -> int:
    """How many of the first envelopes go into one transaction of at most `most` bytes; at least 1 if there is any."""
    size = _HEAD
    for count, envelope in enumerate(envelopes[:MAX_ENTRIES]):
        size += len(envelope) + 3
        if size > most and count:
            return count
    return min(len(envelopes), MAX_ENTRIES)
