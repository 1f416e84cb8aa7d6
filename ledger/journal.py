"""The journal: entries that are durable before they are in the database, in a small file written in place.

A transaction of SQLite's makes its write-ahead log longer, and to make a file longer durably costs several times what
overwriting a part of it does. So a few entries go here first, with one synchronisation; the database takes them in
afterwards, and the journal begins anew.

The file has a fixed size. A record is: length of its body (4 bytes, big endian), index in the log (8), tag (16), the
first 16 bytes of SHA-256 over index, tag and body, then the body: epoch (16), batch (8), records (4), the entry's
payload. Behind the records of the round there is nothing but zeros. Whatever does not continue the log at the index
that is asked for, does not match its hash, or has another tag, ends the journal.

An entry waits here without its signature, which is made while the disk writes. The tag, keyed BLAKE2b (RFC 7693) over
index and body, proves instead that who keeps this ledger wrote it: nothing else is ever signed after a crash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ledger.entry import MAX_PAYLOAD
from ledger.source import Cursor

SIZE: Final = 256 * 1024  # bytes of the file
_HEAD: Final = struct.Struct(">IQ16s16s")
_BODY: Final = struct.Struct(">16sQI")


class Journaled(NamedTuple):
    """An entry's payload, the closed batch it is of, and how many records that has."""

    payload: bytes
    batch: Cursor
    records: int


class Journal:
    """The file at `path`, made when it is not there; `key` is the tags'. Raises OSError. One thread at a time."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._key = key
        self._end = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            missing = SIZE - os.fstat(self._fd).st_size
            if missing > 0:  # written for real, so that no later write has to find room
                os.pwrite(self._fd, bytes(missing), SIZE - missing)
                os.fsync(self._fd)
                _sync_directory(path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, index: int, entries: Sequence[Journaled], meanwhile: Callable[[], None] = lambda: None) -> bool:
        """Write entries from an index of the log on, behind those written since `begin`, durably; False: no room.

        `meanwhile` is called while the disk writes. What it raises is raised: the entries may be durable then.
        """
        parts = []
        for at, (payload, batch, records) in enumerate(entries, index):
            body = _BODY.pack(batch.epoch, batch.id, records) + payload
            tag = self._tag(at, body)
            parts += [_HEAD.pack(len(body), at, tag, _check(at, tag, body)), body]
        data = b"".join(parts)
        if self._end + len(data) > SIZE:
            return False
        if os.pwrite(self._fd, data, self._end) != len(data):
            raise OSError("the journal was not written whole")
        # Linux starts to write on this advice; pages that are being written stay in memory.
        os.posix_fadvise(self._fd, self._end, len(data), os.POSIX_FADV_DONTNEED)
        meanwhile()
        os.fdatasync(self._fd)
        self._end += len(data)
        return True

    def begin(self) -> None:
        """Start at the beginning again: what was written is in the database. Durable with what is appended next."""
        os.pwrite(self._fd, bytes(self._end), 0)
        self._end = 0

    def clear(self) -> None:
        """The same, whatever another engine, or this one before a crash, has left."""
        if os.pread(self._fd, SIZE, 0).strip(b"\0"):
            os.pwrite(self._fd, bytes(SIZE), 0)
        self._end = 0

    def continues(self, index: int) -> bool:
        """Whether the first record is of this index, not checked further."""
        head = os.pread(self._fd, _HEAD.size, 0)
        return len(head) == _HEAD.size and _HEAD.unpack(head)[:2] != (0, 0) and _HEAD.unpack(head)[1] == index

    def read(self, index: int) -> list[Journaled]:
        """The entries from an index of the log on, in order: those of the newest round."""
        found: list[Journaled] = []
        for number, tag, body in _records(os.pread(self._fd, SIZE, 0)):
            if number != index + len(found) or not hmac.compare_digest(tag, self._tag(number, body)):
                break
            epoch, batch, records = _BODY.unpack_from(body)
            found.append(Journaled(body[_BODY.size :], Cursor(epoch, batch), records))
        return found

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

    def _tag(self, index: int, body: bytes) -> bytes:
        return hashlib.blake2b(index.to_bytes(8, "big") + body, key=self._key, digest_size=16).digest()


def fault(path: Path) -> str | None:
    """What is wrong with the file at `path`; None when it is as it was written, or not there. Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    end = sum(_HEAD.size + len(body) for _, _, body in _records(data))
    if len(data) != SIZE or data[end:].strip(b"\0"):
        return f"what it holds from byte {end} on was not written there"
    return None


def _records(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Index, tag and body of the records from the beginning on, up to one that is none or does not match its hash."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, number, tag, check = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + length]
        sound = _BODY.size < length <= _BODY.size + MAX_PAYLOAD and len(body) == length
        if not sound or check != _check(number, tag, body):
            return
        yield number, tag, body
        at += _HEAD.size + length


def _check(index: int, tag: bytes, body: bytes) -> bytes:
    return hashlib.sha256(index.to_bytes(8, "big") + tag + body).digest()[:16]


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
