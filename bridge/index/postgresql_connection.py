"""Connections to PostgreSQL: how they are made, how long an answer is waited for, faults in our own words.

Nothing here tells the URL, and no error tells a value: PostgreSQL's messages quote both.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bridge.errors import Busy, CairnError, ConfigError, StorageFault, StorageFull

T = TypeVar("T")
RV = TypeVar("RV")
SCHEMA: Final = "cairn"
"""The tables' schema, so that other tables of the database are left alone."""

_TURN_S: Final = 50  # of a writer, while another takes in a large study
_FREE_S: Final = 20
ANSWER_S: Final = 60.0
"""How long an answer is waited for; a server that is stopped, or a network that swallows, must not hold a thread."""

CONNECT_S: Final = 5
_AT_ONCE: Final = 4
_POLL_S: Final = 0.1
_PREPARED: Final = 500
_SETTINGS: Final = (
    f"SET search_path TO {SCHEMA}; SET lock_timeout = '{_TURN_S}s'; SET statement_timeout = '{int(ANSWER_S) - 5}s';"
    " SET idle_in_transaction_session_timeout = '120s'; SET client_min_messages = warning;"
    " SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'read committed';"
    " SET default_transaction_read_only = off;"
    " SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)
# Operators may have set more than "on" (remote_apply), which is left; what is less is not.
_DURABLE: Final = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
)
_FULL: Final = frozenset({"53100"})
_LATER: Final = frozenset({"53300", "53200", "55P03", "57014", "40001", "40P01"})
"""Too many connections, out of memory, a lock or an answer that took too long, a deadlock."""
_GONE: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""Shut down, crashed, starting up; a session that was ended for being idle."""
_REFUSED: Final = ("28", "3D", "42501")
"""Who may not enter or create, and a database that is not there."""


class StatementRefused(Exception):
    """A constraint or statement of ours that PostgreSQL refused: a bug. Names the SQLSTATE, and no value."""


class Connection(psycopg.Connection[Any]):
    """A connection that waits for an answer no longer than `limit` seconds, and is closed when that was too long."""

    limit: float = ANSWER_S

    def wait(self, gen: PQGen[RV], interval: float = _POLL_S, timeout: float | None = None) -> RV:
        """As psycopg's. Raises OperationalError when no answer came in time."""
        try:
            return super().wait(gen, interval=interval, timeout=self.limit if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()  # what it answers from now on would be an answer to something else
            raise

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be asked here any more."""
        return self.closed or self.pgconn.transaction_status == TransactionStatus.UNKNOWN


def connect(url: str, *, limit: float | None = None) -> Connection:
    """A new connection that begins no transaction by itself. Raises psycopg.Error."""
    patience = CONNECT_S if limit is None else min(CONNECT_S, int(limit))
    connection = Connection.connect(
        url, autocommit=True, connect_timeout=patience, fallback_application_name="cairn", prepare_threshold=3
    )
    try:
        if limit is not None:
            connection.limit = limit
        connection.prepared_max = _PREPARED
        connection.execute(_SETTINGS.encode(), prepare=False)
        connection.execute(_DURABLE, prepare=False)
    except BaseException:
        connection.close()
        raise
    return connection


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def translate(error: Exception) -> Exception:
    """A driver's error as ours: StorageFull, Busy, ConfigError, StorageFault; StatementRefused for a bug."""
    if isinstance(error, PoolTimeout):
        return Busy("every connection to the index database is in use")
    cause: BaseException | None = error.orig if isinstance(error, StatementError) else error
    if not isinstance(cause, psycopg.Error):
        return error
    state = _state(cause)
    if state in _FULL:
        return StorageFull("the index database cannot grow")
    if state in _LATER:
        return Busy(f"the index database is at its limit ({state})")
    if state.startswith(_REFUSED):
        return ConfigError(f"index.url: PostgreSQL refuses ({type(cause).__name__}, {state})")
    if state in _GONE or (not state and isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError))):
        return StorageFault("the index database cannot be reached")
    if isinstance(cause, (psycopg.OperationalError, psycopg.InternalError, psycopg.InterfaceError)):
        return StorageFault(f"the index database failed ({state or type(cause).__name__})")
    return StatementRefused(f"{type(cause).__name__} {state}")


@contextmanager
def faults() -> Iterator[None]:
    """Let no driver's error out untranslated."""
    try:
        yield
    except (psycopg.Error, DBAPIError, PoolTimeout) as error:
        raise translate(error) from None


class Pool:
    """Connections for short reads, as many at once as `most`; they hold no transaction between two borrowings."""

    def __init__(self, url: str, most: int = _AT_ONCE) -> None:
        self._url = url
        self._idle: deque[Connection] = deque()
        self._free = threading.BoundedSemaphore(most)

    @contextmanager
    def borrowed(self, first: Callable[[Connection], T]) -> Iterator[tuple[Connection, T]]:
        """A connection and what `first` has got by it, which is done again by a new one when the old one was lost.

        Raises StorageFault, Busy and what `translate` makes of errors in the body.
        """
        if not self._free.acquire(timeout=_FREE_S):
            raise Busy("every connection to the index database is in use")
        try:
            with faults():
                connection, got = self._asked(first)
                try:
                    yield connection, got
                except BaseException:
                    connection.close()
                    raise
                self._idle.append(connection)
        finally:
            self._free.release()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What one question is answered."""
        with self.borrowed(question) as (_, answer):
            return answer

    def close(self) -> None:
        """Close those that are idle."""
        while self._idle:
            self._idle.pop().close()

    def _asked(self, first: Callable[[Connection], T]) -> tuple[Connection, T]:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._fresh(first)
        try:
            return connection, first(connection)
        except psycopg.OperationalError:
            lost = connection.is_lost
            connection.close()
            if not lost:
                raise
        self.close()  # a server that was restarted has lost them all
        return self._fresh(first)

    def _fresh(self, first: Callable[[Connection], T]) -> tuple[Connection, T]:
        connection = connect(self._url)
        try:
            return connection, first(connection)
        except BaseException:
            connection.close()
            raise


def fault_of(error: Exception) -> CairnError:
    """`translate` of an error that is known to be no bug."""
    told = translate(error)
    return told if isinstance(told, CairnError) else StorageFault("the index database failed")
