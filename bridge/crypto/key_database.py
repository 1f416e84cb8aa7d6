"""`keys/keys.db`: one SQLite connection to it, its writers' lock, and what is deleted in it gone from its log too.

WAL, synchronous=FULL, secure_delete=ON.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bridge.content.pack_format import sync_directory
from bridge.errors import Busy, DatabaseDamaged, StorageFault, StorageFull

__all__ = ["KeyDatabase", "exclusive", "faults"]

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)
_LOCK: Final = ".lock"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS study_key (
    study TEXT NOT NULL,          -- Study Instance UID
    origin BLOB NOT NULL,         -- node id of the member whose key it is
    generation INTEGER NOT NULL,
    tag BLOB NOT NULL,            -- the study's random tag, the same in every generation of one origin
    wrapped BLOB NOT NULL,
    PRIMARY KEY (study, origin, generation),
    UNIQUE (tag, generation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS former_tag (
    tag BLOB PRIMARY KEY,         -- of another node's keys that were given up: what was done with them stays told
    study TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS patient_tag (
    patient TEXT PRIMARY KEY,
    tag BLOB NOT NULL UNIQUE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erasure (
    id BLOB PRIMARY KEY,          -- 16 random bytes
    mark BLOB NOT NULL,           -- of the Study Instance UID, keyed: answers whether it was this one, tells it not
    begun INTEGER NOT NULL,       -- microseconds since the epoch
    ended INTEGER,
    study TEXT,                   -- NULL when it has ended, as the next
    asked TEXT,                   -- who asked for it and why, JSON
    roots TEXT NOT NULL           -- what the content engine is still to let go of, JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS erased_tag (
    erasure BLOB NOT NULL,
    tag BLOB NOT NULL,
    entry BLOB,                   -- the records root of the ledger's entry that says so
    PRIMARY KEY (erasure, tag)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erased_tag_by_tag ON erased_tag (tag);
CREATE TABLE IF NOT EXISTS wrapping (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    kek BLOB NOT NULL             -- which key-encryption key wraps the keys; no row: the keystore's first
);
"""


class KeyDatabase:
    """An open key database. `lock` is for the connection: one user at a time. Raises StorageFault when it cannot open.

    Parameters
    ----------
    path
        The file; created with mode 0600. `<path>.lock` beside it is the writers' lock.
    """

    def __init__(self, path: Path) -> None:
        self._lock_path = path.with_name(path.name + _LOCK)
        self.lock = threading.Lock()
        with faults():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                with exclusive(path):
                    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                        self.connection.execute(f"PRAGMA {pragma}").fetchall()
                    self.connection.executescript(_SCHEMA)
                sync_directory(path.parent)
                self._file = _identity(path)
            except BaseException:
                self.connection.close()
                raise
        self._path = path

    def version(self) -> int:
        """A number that changes when another connection has written (`PRAGMA data_version`)."""
        version: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    @contextlib.contextmanager
    def write(self, begun: Callable[[], None] = lambda: None) -> Iterator[None]:
        """A transaction, while no other process writes; `begun` is called in it before anything else.

        Raises StorageFault when somebody removed the file or put another in its place: a key would be gone with it.
        """
        with exclusive(self._path):
            if not self._path.exists() or _identity(self._path) != self._file:
                raise StorageFault("keys/keys.db was removed or replaced while it was open: no key is written any more")
            yield from self._transaction(begun)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """The same by who holds the writers' lock (`exclusive`) already."""
        yield from self._transaction(lambda: None)

    def _transaction(self, begun: Callable[[], None]) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            begun()
            yield
            self.connection.execute("COMMIT")
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def empty_log(self) -> None:
        """Write everything into the file and cut its log: what was deleted is in neither. Raises Busy while it is read.

        A copy of the files made before still has it.
        """
        with exclusive(self._path):
            busy, _, _ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise Busy("the key database is being read; its log could not be emptied: do it again")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _identity(path: Path) -> tuple[int, int]:
    file = path.stat()
    return file.st_dev, file.st_ino


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """The lock of a key database that writers of every process wait for in turn, instead of SQLite's busy handler.

    It is also held by whoever reads or writes the database and the keystore beside it as one (DESIGN 7).
    """
    fd = os.open(path.with_name(path.name + _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def faults() -> Iterator[None]:
    """The database's and the disk's errors as StorageFull, DatabaseDamaged or StorageFault."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL" or getattr(error, "errno", None) in _NO_SPACE:
            raise StorageFull("the key database cannot grow") from error
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DatabaseDamaged(f"the key database is damaged ({name})") from error
        raise StorageFault(f"key database: {error}") from error
