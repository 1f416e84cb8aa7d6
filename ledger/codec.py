"""Strict deterministic CBOR: one value, one encoding.

The data model is that of DAG-CBOR without links: null, booleans, integers of 64 bits, byte strings, text strings,
lists and maps with text keys; no floats, no tags, no indefinite lengths. Map keys are in length-first order, which
for text keys is that of RFC 8949 section 4.2.1 (Core Deterministic Encoding).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import cbor2

from ledger.errors import CodecError

Value: TypeAlias = "bool | int | bytes | str | list[Value] | dict[str, Value] | None"

MAX_DEPTH = 16  # containers within containers
MAX_SIZE = 16 * 1024  # bytes of one encoding

_SMALLEST = -(2**64)
_LARGEST = 2**64 - 1


def encode(value: object, max_size: int = MAX_SIZE) -> bytes:
    """The canonical encoding of a value; tuples count as lists, any Mapping as a map.

    Raises CodecError when the value lies outside the data model, is nested more than 16 deep, or encodes to more than
    `max_size` bytes.
    """
    try:
        encoded = cbor2.dumps(_ordered(value, 0))
    except UnicodeEncodeError as error:
        raise CodecError("text with a lone surrogate has no UTF-8") from error
    if len(encoded) > max_size:
        raise CodecError(f"{len(encoded)} bytes encoded, more than {max_size}")
    return encoded


def decode(encoded: bytes, max_size: int = MAX_SIZE) -> Value:
    """The value of a canonical encoding: scan, decode, encode again, compare.

    Raises CodecError for everything else: trailing or missing bytes, integers or lengths not in their shortest form,
    keys that repeat, are out of order or not text, indefinite lengths, tags, floats, depth or size beyond the limits.
    """
    if len(encoded) > max_size:
        raise CodecError(f"{len(encoded)} bytes, more than {max_size}")
    end = _scan(encoded, 0, 0)
    if end != len(encoded):
        raise CodecError(f"{len(encoded) - end} bytes after the value")
    try:
        value: Any = cbor2.loads(encoded)
    except cbor2.CBORDecodeError as error:
        raise CodecError("not CBOR") from error
    if encode(value, max_size) != encoded:
        raise CodecError("not the canonical encoding")
    return value  # type: ignore[no-any-return]


def head(major: int, argument: int) -> bytes:
    """The initial byte of a major type and the shortest form of its argument (RFC 8949 sections 3 and 4.2.1)."""
    if argument < 24:
        return _SHORT[major << 5 | argument]
    width = (argument.bit_length() - 1) >> 3
    size = 0 if width < 1 else 1 if width < 2 else 2 if width < 4 else 3
    return _SHORT[major << 5 | 24 + size] + argument.to_bytes(1 << size, "big")


_SHORT = [bytes([initial]) for initial in range(256)]


def _ordered(value: object, depth: int) -> Value:
    """The value in plain types with its keys in canonical order, so that the fast encoder yields canonical bytes."""
    # bool is an int, hence the exact types: a subclass could encode as something else.
    kind = type(value)
    if value is None or kind is bool or kind is bytes or kind is str:
        return value  # type: ignore[return-value]
    if kind is int:
        if not _SMALLEST <= value <= _LARGEST:  # type: ignore[operator]
            raise CodecError("an integer beyond 64 bits")
        return value  # type: ignore[return-value]
    if depth == MAX_DEPTH:
        raise CodecError(f"nested more than {MAX_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [_ordered(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {key: _ordered(value[key], depth + 1) for key in _ordered_keys(value)}
    raise CodecError(f"{kind.__name__} is outside the data model")


def _ordered_keys(value: Mapping[str, object]) -> list[str]:
    """Keys by the length of their UTF-8, then by it; the order of code points is that of UTF-8 bytes."""
    if not all(type(key) is str for key in value):
        raise CodecError("a map key that is not text")
    ordered = sorted(value)
    ordered.sort(key=len if all(map(str.isascii, ordered)) else lambda key: len(key.encode()))
    return ordered


def _scan(data: bytes, at: int, depth: int) -> int:
    """The offset behind the item at `at`: refuses what the data model lacks before a general decoder acts on it."""
    try:
        initial = data[at]
    except IndexError:
        raise CodecError("ends within a value") from None
    major, info = initial >> 5, initial & 31
    if major == 6:
        raise CodecError("a tag", f"byte {at}")
    if major == 7:
        if info not in (20, 21, 22):  # false, true, null
            raise CodecError("a float, undefined or other simple value", f"byte {at}")
        return at + 1
    argument, at = _argument(data, at, info)
    if major < 2:
        return at
    if major < 4:
        if argument > len(data) - at:
            raise CodecError("ends within a string")
        return at + argument
    if depth == MAX_DEPTH:
        raise CodecError(f"nested more than {MAX_DEPTH} deep")
    # Each item takes at least a byte, so a count beyond the bytes left ends at once.
    for _ in range(argument * (major - 3)):
        at = _scan(data, at, depth + 1)
    return at


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    """The argument of an initial byte (RFC 8949 section 3) and the offset behind it."""
    if info < 24:
        return info, at + 1
    if info > 27:
        raise CodecError("an indefinite length or a reserved value", f"byte {at}")
    end = at + 1 + (1 << (info - 24))
    if end > len(data):
        raise CodecError("ends within a value")
    return int.from_bytes(data[at + 1 : end], "big"), end
