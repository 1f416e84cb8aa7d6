"""Bearer tokens, and the Authoriser port: who a credential is, and whether they may."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bridge.access import policy, secrets
from bridge.errors import CredentialEnded, NotFound, Unauthenticated
from bridge.index.credentials import TokenRow
from bridge.index.index import SqlIndex
from bridge.model import Action, Actor, ActorKind, Role

Clock = Callable[[], int]
_NOT_VALID: Final = "the credential is not valid"


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


class NewToken(NamedTuple):
    """A token just made: its id, and the secret that is shown this once."""

    id: str
    secret: str


class Tokens:
    """The tokens of a node; identifies sessions too (`bridge.access.sessions`). Thread-safe.

    A revocation is seen by the next request in every process.
    """

    def __init__(self, index: SqlIndex, clock: Clock = now_us) -> None:
        self._credentials = index.credentials
        self._clock = clock

    def create(self, role: Role, name: str, expires: int | None = None, study: str | None = None) -> NewToken:
        """Make a token that is durable on return.

        Parameters
        ----------
        role
            What it may do.
        name
            Who bears it, as records will say.
        expires
            Microseconds since the epoch; None for never.
        study
            The Study Instance UID whose sealed blocks are all that it is good for; None for what the role says.

        Raises StorageFull, StorageFault, Busy.
        """
        secret = secrets.make(secrets.TOKEN)
        row = TokenRow(os.urandom(8).hex(), role.value, name, self._clock(), expires, None, study)
        self._credentials.add_token(row, secrets.digest(secret, secrets.TOKEN) or b"").result()
        return NewToken(row.id, secret)

    def list(self) -> Sequence[TokenRow]:
        """All tokens ever made, oldest first, without their secrets. Raises StorageFault."""
        return self._credentials.tokens()

    def revoke(self, token: str) -> None:
        """Revoke a token by its id. Raises NotFound when none of that id still holds, and as `create`."""
        if not self._credentials.revoke_token(token, self._clock()).result():
            raise NotFound("no token of that id that still holds")

    def identify(self, credential: str, address: str) -> Actor:
        """As `bridge.ports.Authoriser.identify`: the actor of a token's or session's secret.

        Raises Unauthenticated, in the same words whether it is unknown, revoked or expired; of the latter two it is a
        CredentialEnded, which says so to the record of the failure.
        """
        secret_hash = secrets.digest(credential, secrets.TOKEN, secrets.SESSION)
        row = self._credentials.find(secret_hash) if secret_hash is not None else None
        if row is None:
            raise Unauthenticated(_NOT_VALID)
        id = row.id if isinstance(row, TokenRow) else "session"
        if isinstance(row, TokenRow) and row.revoked is not None:
            raise CredentialEnded(_NOT_VALID, "revoked", id, row.name)
        if row.expires is not None and row.expires <= self._clock():
            raise CredentialEnded(_NOT_VALID, "expired", id, row.name)
        role = Role(row.role)
        kind = ActorKind.DEVICE if role is Role.DEVICE else ActorKind.USER
        study = row.study if isinstance(row, TokenRow) else None
        return Actor(kind, row.name, role, address, "http" if study is None else "gateway", study)

    def allow(self, actor: Actor, action: Action) -> None:
        """As `bridge.ports.Authoriser.allow`. Raises Forbidden."""
        policy.check(actor, action)
