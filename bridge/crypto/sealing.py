"""Tink's streaming AEAD, AES256_GCM_HKDF_1MB: ciphertext in segments of exactly 1 MiB, each opened on its own.

Format ("AES-GCM-HKDF Streaming AEAD", Tink wire format): a 40-byte header (its length 0x28, 32 bytes of salt, 7 of
nonce prefix) lies inside segment 0. The segments' key is HKDF-SHA256(key, salt, info=associated data); the nonce of a
segment is prefix || index (32 bit, big endian) || 1 for the last segment, else 0. So a segment that is cut, moved,
repeated or taken from another object does not open.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bridge.errors import ContentCorrupt

__all__ = [
    "FIRST_PLAINTEXT",
    "HEADER_SIZE",
    "KEY_SIZE",
    "PLAINTEXT",
    "SEGMENT_SIZE",
    "TAG_SIZE",
    "Opener",
    "Sealer",
    "Slice",
    "ciphertext_length",
    "open_segment",
    "segment_count",
    "segment_range",
]

KEY_SIZE: Final = 32
SEGMENT_SIZE: Final = 1 << 20
TAG_SIZE: Final = 16
HEADER_SIZE: Final = 40
FIRST_PLAINTEXT: Final = SEGMENT_SIZE - HEADER_SIZE - TAG_SIZE
PLAINTEXT: Final = SEGMENT_SIZE - TAG_SIZE
_SALT_SIZE: Final = 32
_PREFIX_SIZE: Final = 7

Buffer = bytes | bytearray | memoryview


class Slice(NamedTuple):
    """The part of one segment's plaintext that a range needs: bytes `start` to `stop` of segment `number`."""

    number: int
    start: int
    stop: int


class Sealer:
    """Seals one object as its bytes arrive, holding one segment.

    Parameters
    ----------
    key
        32 bytes, used for this object alone.
    associated_data
        Bound to every segment through the derived key; must be given again to open.

    Attributes
    ----------
    header
        The 40-byte stream header, which is also the beginning of segment 0.
    """

    def __init__(self, key: bytes, associated_data: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError("the key has 32 bytes")
        self.header = bytes((HEADER_SIZE,)) + os.urandom(_SALT_SIZE + _PREFIX_SIZE)
        self._cipher = _cipher(key, self.header, associated_data)
        self._prefix = self.header[1 + _SALT_SIZE :]
        self._pending: bytes | bytearray = b""
        self._number = 0
        self._closed = False

    def update(self, data: Buffer) -> list[bytes | bytearray]:
        """Add plaintext; the full ciphertext segments (1 MiB each) that are now known not to be the last."""
        if self._closed:
            raise ValueError("the object is closed")
        room = self._capacity() - len(self._pending)
        if len(data) <= room:
            self._hold(data)
            return []
        view = memoryview(data)
        segments: list[bytes | bytearray] = []
        if self._pending:
            self._hold(view[:room])
            segments.append(self._seal(self._pending, last=False))
            self._pending = b""
            view = view[room:]
        while len(view) > (room := self._capacity()):
            segments.append(self._seal(view[:room], last=False))
            view = view[room:]
        self._hold(view)
        return segments

    def finalize(self) -> bytes | bytearray:
        """The last segment: 16 bytes (56 in segment 0) to 1 MiB; an empty object has one too."""
        if self._closed:
            raise ValueError("the object is closed")
        self._closed = True
        segment = self._seal(self._pending, last=True)
        self._pending = b""
        return segment

    def _hold(self, data: Buffer) -> None:
        """Keep bytes for the segment under way; an object given in one piece is not copied."""
        if not self._pending and type(data) is bytes:
            self._pending = data
            return
        if type(self._pending) is bytes:
            self._pending = bytearray(self._pending)
        self._pending += data

    def _capacity(self) -> int:
        return PLAINTEXT if self._number else FIRST_PLAINTEXT

    def _seal(self, plaintext: Buffer, *, last: bool) -> bytes | bytearray:
        nonce = _nonce(self._prefix, self._number, last)
        self._number += 1
        if self._number > 1:
            return self._cipher.encrypt(nonce, plaintext, None)
        segment = bytearray(HEADER_SIZE + len(plaintext) + TAG_SIZE)  # the header goes in front without another copy
        segment[:HEADER_SIZE] = self.header
        self._cipher.encrypt_into(nonce, plaintext, None, memoryview(segment)[HEADER_SIZE:])
        return segment


class Opener:
    """Opens segments of one sealed object in any order.

    Parameters
    ----------
    key, associated_data
        As given to the `Sealer`.
    header
        The 40-byte stream header.
    length
        The object's plaintext length in bytes; it says which segment is the last.

    Raises ContentCorrupt for a header that is not of this format.
    """

    def __init__(self, key: bytes, header: bytes, associated_data: bytes, length: int) -> None:
        self.length = length
        self._last = segment_count(length) - 1
        self._header = header
        self._cipher = _cipher(key, header, associated_data)

    def open(self, number: int, segment: Buffer) -> bytes:
        """The plaintext of segment `number`. Raises ContentCorrupt when it is not that segment of this object."""
        plaintext = _open(self._cipher, self._header, number, number == self._last, segment)
        if len(plaintext) != _plaintext_length(number, self.length):
            raise ContentCorrupt(f"segment {number} has another length than the object")
        return plaintext

    def read(self, offset: int, length: int, fetch: Callable[[int], Buffer]) -> Iterator[bytes]:
        """Plaintext bytes `offset` to `offset + length`, a segment at a time; `fetch` gives a segment by its number.

        Raises as `open` and `segment_range`, and what `fetch` raises.
        """
        for number, start, stop in segment_range(offset, length, self.length):
            plaintext = self.open(number, fetch(number))
            yield plaintext if stop - start == len(plaintext) else plaintext[start:stop]


def open_segment(key: bytes, header: bytes, associated_data: bytes, number: int, last: bool, segment: Buffer) -> bytes:
    """Open one segment without knowing the object's length. Raises ContentCorrupt as `Opener`."""
    return _open(_cipher(key, header, associated_data), header, number, last, segment)


def segment_count(length: int) -> int:
    """How many segments a plaintext of `length` bytes has: one at least."""
    return 1 if length <= FIRST_PLAINTEXT else 1 - (FIRST_PLAINTEXT - length) // PLAINTEXT


def ciphertext_length(length: int) -> int:
    """The length in bytes of all segments of a plaintext of `length` bytes."""
    return length + HEADER_SIZE + TAG_SIZE * segment_count(length)


def segment_range(offset: int, length: int, total: int) -> list[Slice]:
    """Which part of which segments holds bytes `offset` to `offset + length` of a plaintext of `total` bytes.

    Empty for an empty range. Raises ValueError for a range that is not inside the object.
    """
    if offset < 0 or length < 0 or offset + length > total:
        raise ValueError("the range is not inside the object")
    if not length:
        return []
    end = offset + length
    slices: list[Slice] = []
    for number in range(_segment_of(offset), _segment_of(end - 1) + 1):
        begin = 0 if number == 0 else FIRST_PLAINTEXT + (number - 1) * PLAINTEXT
        size = _plaintext_length(number, total)
        slices.append(Slice(number, max(offset - begin, 0), min(end - begin, size)))
    return slices


def _segment_of(offset: int) -> int:
    return 0 if offset < FIRST_PLAINTEXT else 1 + (offset - FIRST_PLAINTEXT) // PLAINTEXT


def _plaintext_length(number: int, total: int) -> int:
    if number == 0:
        return min(FIRST_PLAINTEXT, total)
    return max(min(PLAINTEXT, total - FIRST_PLAINTEXT - (number - 1) * PLAINTEXT), 0)


def _cipher(key: bytes, header: bytes, associated_data: bytes) -> AESGCM:
    if len(header) != HEADER_SIZE or header[0] != HEADER_SIZE:
        raise ContentCorrupt("the stream header is not of AES256_GCM_HKDF_1MB")
    salt = header[1 : 1 + _SALT_SIZE]
    return AESGCM(HKDF(SHA256(), KEY_SIZE, salt, associated_data).derive(key))


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    return prefix + struct.pack(">IB", number, last)


def _open(cipher: AESGCM, header: bytes, number: int, last: bool, segment: Buffer) -> bytes:
    body = memoryview(segment)
    if number == 0:
        if body[:HEADER_SIZE] != header:
            raise ContentCorrupt("segment 0 begins with another stream header")
        body = body[HEADER_SIZE:]
    try:
        return cipher.decrypt(_nonce(header[1 + _SALT_SIZE :], number, last), body, None)
    except InvalidTag:
        raise ContentCorrupt(f"segment {number} does not open under the object's key") from None
