"""Login links and browser sessions: a link works once within ten minutes and buys a session of twelve hours.

The door keeps the session's secret in an HttpOnly cookie; here only its hash is kept.
"""

from __future__ import annotations

from typing import Final

from bridge.access import secrets
from bridge.access.tokens import Clock, now_us
from bridge.errors import Unauthenticated
from bridge.index.credentials import SessionRow
from bridge.index.index import SqlIndex
from bridge.model import Role

LINK_US: Final = 10 * 60 * 1_000_000
SESSION_US: Final = 12 * 3600 * 1_000_000


class Sessions:
    """The login links and sessions of a node. Thread-safe."""

    def __init__(self, index: SqlIndex, clock: Clock = now_us) -> None:
        self._credentials = index.credentials
        self._clock = clock

    def link(self, role: Role, name: str) -> str:
        """The secret of a new login link, durable on return. Raises StorageFull, StorageFault, Busy."""
        secret = secrets.make(secrets.LINK)
        row = SessionRow(secrets.digest(secret, secrets.LINK) or b"", role.value, name, self._clock() + LINK_US)
        self._credentials.add_link(row).result()
        return secret

    def redeem(self, link_token: str) -> str:
        """The session secret that a login link buys, once.

        Raises Unauthenticated when the link is unknown, used or too old; StorageFull, StorageFault, Busy.
        """
        link_hash = secrets.digest(link_token, secrets.LINK)
        now = self._clock()
        secret = secrets.make(secrets.SESSION)
        session_hash = secrets.digest(secret, secrets.SESSION) or b""
        if link_hash is None or not self._credentials.redeem(link_hash, session_hash, now, now + SESSION_US).result():
            raise Unauthenticated("the login link is not valid")
        return secret

    def end(self, session_secret: str) -> None:
        """Log out: the session holds no longer. Raises StorageFull, StorageFault, Busy."""
        session_hash = secrets.digest(session_secret, secrets.SESSION)
        if session_hash is not None:
            self._credentials.end_session(session_hash).result()
