"""audit.db: opened by many threads and processes, and made again whenever it is missing, damaged or of another version.

WAL, synchronous=NORMAL: what a power cut takes back is read from the ledger again. Whoever writes holds a flock on
`audit.db.lock`, and so does whoever replaces the file or opens a connection to it, since a connection opened meanwhile
would take the journals of one file for those of another. Each use looks whether the file is still the one it has open.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from bridge.audit import schema
from bridge.errors import StorageFault, StorageFull

_WAIT_S: Final = 10.0
_DAMAGED: Final = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_JOURNALS: Final = ("-wal", "-shm")
File = tuple[int, int]
"""Device and number of a file."""


class AuditDatabase:
    """The database at `path`. Thread-safe; every method raises StorageFault, StorageFull.

    With `alone`, nobody else opens this file, and there is no flock. A fault that tells of damage leaves the file to be
    made again by the next `writing`.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._path = path
        self._alone = alone
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._file: File = 0, 0
        self._made = 0  # a new file may get the number of one that was removed
        self._damaged: File | None = None  # which file it was
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection within a read transaction: one state of the database throughout."""
        with self._faults():
            connection, file = self._pooled() or self._opened_to_read()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                self._give_back(connection, file)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection within a write transaction, committed unless an exception passes."""
        with self._faults(), self._exclusive():
            if self._is_damaged() or not (self._identity() == self._file or self._sound()):
                self._remove()
                self._create()
            connection, file = self._pooled() or self._opened()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            finally:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                self._give_back(connection, file)

    def renew(self) -> None:
        """Make an empty database in the place of this one."""
        with self._faults(), self._exclusive():
            self._remove()
            self._create()

    def settle(self) -> None:
        """Move all that was written into the file itself, and leave no journals; no connection may be in use."""
        with self._faults(), self._exclusive():
            with self._lock:
                self._forget()  # SQLite does it when the last connection is closed
            left = [suffix for suffix in _JOURNALS if self._path.with_name(self._path.name + suffix).exists()]
            if left:
                raise StorageFault("the audit trail is held open by another process")

    def replace(self, fresh: Path) -> None:
        """Put another database, settled, in the place of this one."""
        with self._faults(), self._exclusive():
            self._remove()
            fresh.replace(self._path)

    def file(self) -> object:
        """What tells the file from any that was in its place before; None when it is missing or damaged."""
        file = None if self._is_damaged() else self._identity()
        return file and (*file, self._made)

    def close(self) -> None:
        """Close the connections; those in use are closed when they are given back."""
        with self._lock:
            self._closed = True
            self._forget()

    def _pooled(self) -> tuple[sqlite3.Connection, File] | None:
        """A connection that is open to the file, and which file that is."""
        file = self._identity()
        with self._lock:
            return (self._idle.pop(), file) if file is not None and file == self._file and self._idle else None

    def _opened_to_read(self) -> tuple[sqlite3.Connection, File]:
        with self._exclusive():
            if self._identity() is None:
                self._remove()
                self._create()
            return self._opened()

    def _opened(self) -> tuple[sqlite3.Connection, File]:
        """A new connection to the file, which is there; the caller holds the flock."""
        file = self._identity()
        assert file is not None
        connection = self._connect()
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # opens the journals too
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if file != self._file:
                self._forget()
                self._file = file
        return connection, file

    def _give_back(self, connection: sqlite3.Connection, file: File) -> None:
        with self._lock:
            if file == self._file and not self._closed and file != self._damaged:
                self._idle.append(connection)
                return
        connection.close()

    def _forget(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _identity(self) -> File | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _is_damaged(self) -> bool:
        return self._damaged is not None and self._damaged == self._identity()

    def _connect(self) -> sqlite3.Connection:
        address = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            address, uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint=8000")
        return connection

    def _sound(self) -> bool:
        """Whether there is a database of this version; its content is not looked through."""
        if self._identity() is None:
            return False
        try:
            with closing(self._connect()) as connection:
                found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _IDENTITY]
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname.startswith(_DAMAGED):
                return False
            raise
        return found == list(_IDENTITY.values())

    def _create(self) -> None:
        self._made += 1
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema.SCHEMA:
                connection.execute(statement)
            for name, value in _IDENTITY.items():
                connection.execute(f"PRAGMA {name}={value}")
            connection.execute("COMMIT")

    def _remove(self) -> None:
        # The database goes first: nobody may open it without the journal that belongs to it, or with another's.
        for suffix in ("", *_JOURNALS):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        with self._lock:
            self._damaged = None
            self._forget()

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._alone:
            yield
            return
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            if self._closed:
                raise StorageFault("the audit trail is closed")
            yield
        except sqlite3.ProgrammingError:
            raise
        except sqlite3.DatabaseError as error:
            name = error.sqlite_errorname
            if name == "SQLITE_FULL":
                raise StorageFull("the audit trail cannot grow") from error
            # A broken constraint too: the file does not hold what was written, and would break it again and again.
            if name.startswith(_DAMAGED) or isinstance(error, sqlite3.IntegrityError):
                self._damaged = self._identity()
            raise StorageFault(f"the audit trail failed ({name})") from error
        except OSError as error:
            raise StorageFault(f"the audit trail failed ({error.strerror})") from error


_IDENTITY: Final = {"application_id": schema.APPLICATION_ID, "user_version": schema.VERSION}
