"""Tokens, login links and sessions as rows. Only hashes of secrets come here; what they mean is `bridge.access`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update

from bridge.index import schema as s
from bridge.index.database import Database, Watch, sql
from bridge.index.writer import Transaction, Writer

_t = s.token.c
_TOKEN: Final = (_t.id, _t.role, _t.name, _t.created, _t.expires, _t.revoked, _t.study)
_ADD_TOKEN: Final = sql(insert(s.token), ("id", "hash", "role", "name", "created", "expires", "study"))
_TOKENS: Final = sql(select(*_TOKEN).order_by(s.token.c.created, s.token.c.id))
_FIND_TOKEN: Final = sql(select(*_TOKEN).where(s.token.c.hash == bindparam("hash")))
_REVOKE: Final = sql(
    update(s.token).where(s.token.c.id == bindparam("of_token"), s.token.c.revoked.is_(None)), ("revoked",)
)
_ADD_LINK: Final = sql(insert(s.login_link))
_FIND_LINK: Final = sql(select(s.login_link).where(s.login_link.c.hash == bindparam("hash")))
_USE_LINK: Final = sql(delete(s.login_link).where(s.login_link.c.hash == bindparam("hash")))
_OLD_LINKS: Final = sql(delete(s.login_link).where(s.login_link.c.expires <= bindparam("now")))
_ADD_SESSION: Final = sql(insert(s.session))
_FIND_SESSION: Final = sql(select(s.session).where(s.session.c.hash == bindparam("hash")))
_END_SESSION: Final = sql(delete(s.session).where(s.session.c.hash == bindparam("hash")))
_OLD_SESSIONS: Final = sql(delete(s.session).where(s.session.c.expires <= bindparam("now")))
_MOST_CACHED: Final = 1024


class TokenRow(NamedTuple):
    """A token without its secret; times in microseconds since the epoch, None for never.

    One with a `study` (a Study Instance UID) is good for the sealed blocks of that study and for nothing else.
    """

    id: str
    role: str
    name: str
    created: int
    expires: int | None
    revoked: int | None
    study: str | None = None


class SessionRow(NamedTuple):
    """A session or login link: who, as what, until when (microseconds since the epoch)."""

    hash: bytes
    role: str
    name: str
    expires: int


class Credentials:
    """The credential tables. Thread-safe.

    What was found is kept only as long as nothing was committed by any process, so that a revocation is seen by the
    next request everywhere.
    """

    def __init__(self, database: Database, writer: Writer, watch: Watch) -> None:
        self._database = database
        self._writer = writer
        self._lock = threading.Lock()
        self._watch = watch
        self._version = -1
        self._cache: OrderedDict[bytes, TokenRow | SessionRow | None] = OrderedDict()

    def add_token(self, row: TokenRow, secret_hash: bytes) -> Future[None]:
        """Add a token. Errors as `SqlIndex.commit`."""
        values = {**row._asdict(), "hash": secret_hash}
        del values["revoked"]

        def add(transaction: Transaction) -> None:
            transaction.cursor.execute(_ADD_TOKEN, values)

        return self._writer.submit(add)

    def tokens(self) -> Sequence[TokenRow]:
        """All tokens, oldest first. Raises StorageFault."""
        return [TokenRow(*row) for row in self._database.rows(_TOKENS, {})]

    def revoke_token(self, token: str, now: int) -> Future[bool]:
        """Revoke a token; False when there is none of that id that still holds."""

        def revoke(transaction: Transaction) -> bool:
            return transaction.cursor.execute(_REVOKE, {"of_token": token, "revoked": now}).rowcount == 1

        return self._writer.submit(revoke)

    def add_link(self, row: SessionRow) -> Future[None]:
        """Add a login link; those expired at its creation are thrown away by `redeem`."""

        def add(transaction: Transaction) -> None:
            transaction.cursor.execute(_ADD_LINK, row._asdict())

        return self._writer.submit(add)

    def redeem(self, link_hash: bytes, session_hash: bytes, now: int, expires: int) -> Future[bool]:
        """Turn a login link into a session, once; False when there is no such link or it is too old."""

        def redeem(transaction: Transaction) -> bool:
            cursor = transaction.cursor
            cursor.execute(_OLD_LINKS, {"now": now})
            cursor.execute(_OLD_SESSIONS, {"now": now})
            found = transaction.one(_FIND_LINK, {"hash": link_hash})
            if found is None:
                return False
            cursor.execute(_USE_LINK, {"hash": link_hash})
            link = SessionRow(*found)
            cursor.execute(_ADD_SESSION, link._replace(hash=session_hash, expires=expires)._asdict())
            return True

        return self._writer.submit(redeem)

    def end_session(self, session_hash: bytes) -> Future[None]:
        """Forget a session."""

        def end(transaction: Transaction) -> None:
            transaction.cursor.execute(_END_SESSION, {"hash": session_hash})

        return self._writer.submit(end)

    def find(self, secret_hash: bytes) -> TokenRow | SessionRow | None:
        """The token or session of a secret's hash, expired and revoked ones too. Raises StorageFault."""
        with self._lock:
            version = self._watch.version()
            if version != self._version:
                self._cache.clear()
                self._version = version
            if secret_hash in self._cache:
                return self._cache[secret_hash]
        # Read after the version was: at worst what is newer than the version is kept under it, never what is older.
        found = self._read(secret_hash)
        with self._lock:
            if version == self._version:
                self._cache[secret_hash] = found
                if len(self._cache) > _MOST_CACHED:
                    self._cache.popitem(last=False)
        return found

    def _read(self, secret_hash: bytes) -> TokenRow | SessionRow | None:
        tokens = self._database.rows(_FIND_TOKEN, {"hash": secret_hash})
        if tokens:
            return TokenRow(*tokens[0])
        sessions = self._database.rows(_FIND_SESSION, {"hash": secret_hash})
        return SessionRow(*sessions[0]) if sessions else None
