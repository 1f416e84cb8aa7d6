"""Writing to PostgreSQL: the turn of each writer, and what became of a commit whose answer was lost.

In the table `writing` one row counts all transactions and is the writers' lock; each writer has a row that counts its
own. So a writer that was cut off from the server while it committed learns from its row, when it is back, whether that
came to pass; and whoever keeps things in memory learns from the first row that something was committed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from bridge.errors import CairnError, StorageFault
from bridge.index.postgresql_connection import Connection, connect, fault_of, faults, translate
from bridge.index.postgresql_statements import compiled

__all__ = ["LOCK", "TABLE", "PostgresqlWatch", "PostgresqlWriting"]

TABLE: Final = (
    'CREATE TABLE writing (writer TEXT COLLATE "C" PRIMARY KEY, groups BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL)'
    " WITH (fillfactor = 10)",
    "INSERT INTO writing VALUES ('', 0, now())",
)
LOCK: Final = b"SELECT 1 FROM writing WHERE writer = '' FOR UPDATE"
"""Waits until nobody else writes."""

_WATCH_S: Final = 2.0
_AGAIN_S: Final = 0.5
_OLD: Final = "30 days"
_NEW_WRITER: Final = b"INSERT INTO writing VALUES (%(me)s, 0, now()) ON CONFLICT DO NOTHING"
_FORGET_OLD: Final = f"DELETE FROM writing WHERE writer <> '' AND at < now() - interval '{_OLD}'".encode()
_FORGET_ME: Final = b"DELETE FROM writing WHERE writer = %(me)s"
_BEGIN: Final = b"BEGIN; SELECT 1 FROM writing WHERE writer = '' FOR UPDATE SKIP LOCKED"
_COUNT: Final = (
    b"UPDATE writing SET groups = groups + 1, at = now() WHERE writer IN ('', %(me)s) RETURNING writer, groups"
)
_MINE: Final = b"SELECT groups FROM writing WHERE writer = %(me)s"
_VERSION: Final = b"SELECT groups FROM writing WHERE writer = ''"


class _Cursor:
    """`bridge.index.database.Cursor` over psycopg's."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def execute(self, text: str, parameters: Any = None, /) -> _Cursor:
        try:
            self._cursor.execute(compiled(text), parameters)
        except psycopg.DataError:
            clean = _without_nul(parameters)
            if clean == parameters:
                raise
            self._cursor.execute(compiled(text), clean)  # the former was not sent: the transaction is as it was
        return self

    def executemany(self, text: str, parameters: Any, /) -> _Cursor:
        self._cursor.executemany(compiled(text), parameters)
        return self

    def fetchone(self) -> Any:
        return self._cursor.fetchone()

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()


def _without_nul(parameters: Any) -> Any:
    """The parameters, U+FFFD in the place of U+0000, which PostgreSQL's text cannot hold; senders' names may."""
    if not isinstance(parameters, dict):
        return parameters
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in parameters.items()
    }


class PostgresqlWriting:
    """`bridge.index.database.Writing` over one connection, made anew when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._me = {"me": os.urandom(16).hex()}
        self._connection: Connection | None = None
        self._all = self._own = -1
        with faults():
            connection = self._connected()
            connection.execute(_FORGET_OLD)
        self.cursor = _Cursor(connection.cursor(binary=True))

    @property
    def is_intact(self) -> bool:
        """As the protocol."""
        return self._connection is not None and self._connection.pgconn.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        )

    def begin(self, meanwhile: Callable[[], None]) -> bool:
        """As the protocol. A connection that was lost since the last time is made anew."""
        try:
            free = self._begun(self._connected())
        except psycopg.OperationalError:
            if self._connection is not None and not self._connection.is_lost:
                raise
            free = self._begun(self._connected())
        connection = self._connected()
        if not free:
            meanwhile()
            connection.execute(LOCK)
        counts = dict(connection.execute(_COUNT, self._me).fetchall())
        own = counts.get(self._me["me"])
        if own is None:  # too long ago
            connection.execute(_NEW_WRITER, self._me)
            own = 0
        others = counts[""] != self._all + 1 or own != self._own + 1
        self._all, self._own = counts[""] - 1, own - 1
        self.cursor = _Cursor(connection.cursor(binary=True))
        return others

    def commit(self, refuse: Callable[[CairnError], bool]) -> None:
        """As the protocol."""
        connection = self._connected()
        if connection.pgconn.transaction_status != TransactionStatus.INTRANS:
            raise StorageFault("a transaction of the index database failed")  # COMMIT would undo it, and not say so
        try:
            connection.execute("COMMIT")
        except psycopg.Error as error:
            if not connection.is_lost:
                raise
            if not self._came_to_pass(self._own + 1, refuse, fault_of(error)):
                raise
        self._all, self._own = self._all + 1, self._own + 1

    def end(self) -> None:
        """As the protocol."""
        connection = self._connection
        if connection is None or connection.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()

    def told(self, error: Exception) -> Exception:
        """As the protocol."""
        return translate(error)

    def close(self) -> None:
        """As the protocol."""
        if self._connection is not None:
            with suppress(psycopg.Error):  # else another forgets it, when it is old
                self._connection.execute(_FORGET_ME, self._me)
            self._drop()

    def _begun(self, connection: Connection) -> bool:
        """Begin; whether the lock was free and is taken."""
        cursor = connection.execute(_BEGIN, prepare=False)
        cursor.nextset()
        return cursor.fetchone() is not None

    def _connected(self) -> Connection:
        if self._connection is not None and self._connection.is_lost:
            self._drop()
        if self._connection is None:
            self._connection = connect(self._url)
            self._connection.execute(_NEW_WRITER, self._me)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _came_to_pass(self, groups: int, refuse: Callable[[CairnError], bool], fault: CairnError) -> bool:
        """Whether a commit whose answer was lost has come to pass: asked until PostgreSQL answers.

        The lock is taken first, so that the server is through with it.
        """
        while refuse(fault):
            try:
                connection = self._connected()
                connection.execute("BEGIN")
                connection.execute(LOCK)
                found = connection.execute(_MINE, self._me).fetchone()
                connection.execute("ROLLBACK")
                return found is not None and found[0] == groups
            except psycopg.Error as error:
                self._drop()
                fault = fault_of(error)
                time.sleep(_AGAIN_S)
        return False


class PostgresqlWatch:
    """`bridge.index.database.Watch`: the count of all transactions. Thread-safe.

    For a moment after a failure it fails at once, so that many who ask do not wait one after the other.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._failed: tuple[float, CairnError] | None = None

    def version(self) -> int:
        """As the protocol."""
        with self._lock:
            if self._failed is not None and time.monotonic() - self._failed[0] < _AGAIN_S:
                raise self._failed[1]
            try:
                version = self._asked()
            except psycopg.Error as error:
                self._drop()
                fault = fault_of(error)
                self._failed = (time.monotonic(), fault)
                raise fault from None
            self._failed = None
            return version

    def close(self) -> None:
        """As the protocol."""
        with self._lock:
            self._drop()

    def _asked(self) -> int:
        if self._connection is not None:
            try:
                return self._ask(self._connection)
            except psycopg.OperationalError:
                self._drop()
        self._connection = connect(self._url, limit=_WATCH_S)
        return self._ask(self._connection)

    def _ask(self, connection: Connection) -> int:
        row = connection.execute(_VERSION).fetchone()
        if row is None:
            raise StorageFault("the index database failed")
        version: int = row[0]
        return version

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
