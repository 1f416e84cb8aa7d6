"""A digest of every page of the ledger's database, kept beside it, so that a flip of any byte of it is found.

SQLite has no checksums of its own, and a b-tree page has bytes that no content explains (unallocated space, header
counters). The digests are of the pages as the ledger process last checkpointed them:

1. the committed pages of the write-ahead log are digested, and the digests made durable;
2. only then is the log checkpointed into the database and truncated.

So a page of the database has the digest kept for it, or, when 2 has not come about (a crash, or a reader that held it
up), the log still holds the version that has, and the page in the database is one that it will replace. Anything else
was not written by the ledger.

File: 32 bytes of SHA-256 over the database's state row at the last checkpoint, then 16 bytes (BLAKE2b) for each page.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

Buffer: TypeAlias = bytes | memoryview

PAGE_SIZE = 4096  # bytes
DIGEST_SIZE = 16  # bytes
_HEADER = 32  # bytes


def digest(page: Buffer) -> bytes:
    """BLAKE2b-128 of a page."""
    return hashlib.blake2b(page, digest_size=DIGEST_SIZE).digest()


class PageDigests:
    """The digests in one file; written by the ledger process alone. Raises OSError from the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def state(self) -> bytes | None:
        """The 32 bytes given to the last `update` or `rebuild`; None when there is no file."""
        try:
            return self._path.read_bytes()[:_HEADER]
        except FileNotFoundError:
            return None

    def update(self, pages: Mapping[int, Buffer], state: bytes) -> None:
        """Step 1: keep the digests of these pages (numbered from 1), durably."""
        with self._path.open("r+b", buffering=0) as file:
            for run in _runs(sorted(pages)):
                os.pwrite(
                    file.fileno(), b"".join(digest(pages[at]) for at in run), _HEADER + (run.start - 1) * DIGEST_SIZE
                )
            os.pwrite(file.fileno(), state, 0)
            os.fdatasync(file.fileno())

    def rebuild(self, database: Path, state: bytes) -> None:
        """Digest every page of a database that has no log; atomic."""
        temporary = self._path.with_name(self._path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(state)
            for page in read_pages(database):
                file.write(digest(page))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        sync_directory(self._path.parent)

    def mismatches(self, database: Path, log: Mapping[int, Sequence[Buffer]]) -> Iterator[str]:
        """What does not hold, in words: pages that are not as they were written, digests without page.

        `log` holds every committed version of the pages in the write-ahead log.
        """
        try:
            kept = self._path.read_bytes()[_HEADER:]
        except FileNotFoundError:
            yield "the page digests are missing"
            return
        number = 0
        for number, page in enumerate(read_pages(database), 1):
            expected = kept[(number - 1) * DIGEST_SIZE : number * DIGEST_SIZE]
            if digest(page) != expected and expected not in map(digest, log.get(number, ())):
                yield f"page {number} is not as the ledger wrote it"
        waiting = max([number, *log])
        if len(kept) % DIGEST_SIZE or not number <= len(kept) // DIGEST_SIZE <= waiting:
            yield f"it has {number} pages, the digests are of {len(kept) / DIGEST_SIZE:g}"


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """Ascending numbers as runs without a gap."""
    start = 0
    for at, number in enumerate(numbers, 1):
        if at == len(numbers) or numbers[at] != number + 1:
            yield range(numbers[start], number + 1)
            start = at


def read_pages(database: Path) -> Iterator[bytes]:
    """The pages of a database file in order; the last may be short."""
    with database.open("rb") as file:
        while page := file.read(PAGE_SIZE):
            yield page


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
