"""Proto3 by hand, for the few messages there are (protobuf.dev/programming-guides/encoding).

Fields that are not known are skipped, absent ones have their default, an embedded message that comes twice is merged,
the last of a repeated scalar counts ("Last One Wins"). Scalars that are zero or empty are not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ledger.errors import CodecError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK64: Final = (1 << 64) - 1
_NANOS: Final = 1_000_000_000


def varint(value: int) -> bytes:
    """An unsigned varint of at most 64 bits; negative numbers as their two's complement, as int64 is written."""
    value &= _MASK64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """A field of bytes or an embedded message, written also when it is empty."""
    return varint(number << 3 | _BYTES) + varint(len(body)) + body


def octets(number: int, value: bytes) -> bytes:
    return field(number, value) if value else b""


def text(number: int, value: str) -> bytes:
    return octets(number, value.encode("utf-8", "replace"))


def integer(number: int, value: int) -> bytes:
    return varint(number << 3 | _VARINT) + varint(value) if value else b""


class Message:
    """The fields of one message that are varints or bytes, in the order they came; all others are skipped.

    A field of another wire type than is asked for counts as absent, as for every reader of protobuf. Text that is not
    UTF-8 is replaced: what strangers send to the RPC is not ours to fall over.
    """

    __slots__ = ("_numbers", "_parts", "last")

    def __init__(self, data: bytes) -> None:
        self._numbers: dict[int, int] = {}
        self._parts: dict[int, list[bytes]] = {}
        self.last = 0
        at, end = 0, len(data)
        while at < end:
            tag, at = read_varint(data, at)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise CodecError("a protobuf field without a number")
            if kind == _VARINT:
                self._numbers[number], at = read_varint(data, at)
                continue
            if kind == _BYTES:
                length, at = read_varint(data, at)
                self._parts.setdefault(number, []).append(data[at : at + length])
                self.last = number
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise CodecError(f"a protobuf field of wire type {kind}")
            at += length
        if at > end:
            raise CodecError("a protobuf message that ends within a field")

    def uint64(self, number: int) -> int:
        return self._numbers.get(number, 0)

    def uint32(self, number: int) -> int:
        return self.uint64(number) & 0xFFFFFFFF

    def int64(self, number: int) -> int:
        value = self.uint64(number)
        return value - (1 << 64) if value >> 63 else value

    def int32(self, number: int) -> int:
        value = self.uint32(number)
        return value - (1 << 32) if value >> 31 else value

    def octets(self, number: int) -> bytes:
        return self._parts[number][-1] if number in self._parts else b""

    def each(self, number: int) -> Sequence[bytes]:
        return tuple(self._parts.get(number, ()))

    def text(self, number: int) -> str:
        return self.octets(number).decode("utf-8", "replace")

    def message(self, number: int) -> Message:
        """One embedded message: what comes twice is merged, which is what parsing both in a row does."""
        return Message(b"".join(self._parts.get(number, ())))

    def messages(self, number: int) -> Sequence[Message]:
        return tuple(Message(part) for part in self._parts.get(number, ()))

    def time(self, number: int) -> int:
        """google.protobuf.Timestamp, in nanoseconds since the epoch."""
        stamp = self.message(number)
        return stamp.int64(1) * _NANOS + stamp.int32(2)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at a place and where it ends; bits beyond 64 are dropped. Raises CodecError when it does not end."""
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & _MASK64, at
            shift += 7
            if shift > 63:
                raise CodecError("a varint of more than ten bytes")
    except IndexError:
        raise CodecError("a protobuf message that ends within a field") from None
