"""Studies given to members and received from them, as values: what each rests on, and how far it is. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["EMERGENCY", "GRANT", "Given", "GivenState", "Received", "ReceivedState"]

GRANT, EMERGENCY = "grant", "emergency"
"""What a share rests on: an entry of who gives, or of who broke the glass."""


class GivenState(StrEnum):
    """How far a study given to a member is."""

    WAITING = "waiting"
    """Its entry is not final yet: nothing is served, nothing delivered."""
    GRANTED = "granted"
    DELIVERED = "delivered"
    REVOKING = "revoking"
    """Nothing is served any more; the ledger does not say so yet."""
    REVOKED = "revoked"
    EXPIRED = "expired"


class ReceivedState(StrEnum):
    """How far a study that a member granted is."""

    GRANTED = "granted"
    OFFERED = "offered"
    """Its key is here; it is fetched."""
    HELD = "held"
    ENDING = "ending"
    ENDED = "ended"
    REFUSED = "refused"


class Given(NamedTuple):
    """A study given: `grant` is the entry's id; `study` its UID, `tag` that of this node's tree; to which member.

    Times are microseconds since the epoch. `root` is what was delivered last; `receipt` and `gone` are entries of the
    member: that it has the study, that its keys are gone; `revocation` this node's. `refused`: why the member did not
    take in what was brought to it, until it does.
    """

    grant: bytes
    kind: str
    study: str
    tag: bytes
    node: bytes
    member: str
    purpose: str
    at: int
    expires: int | None
    state: str
    root: bytes | None = None
    delivered: int | None = None
    ended: int | None = None
    receipt: bytes | None = None
    gone: bytes | None = None
    revocation: bytes | None = None
    fault: str | None = None
    tries: int = 0
    again: int = 0
    refused: str | None = None

    @property
    def live(self) -> bool:
        """Whether the member may have the study, until `expires`."""
        return self.state in (GivenState.WAITING, GivenState.GRANTED, GivenState.DELIVERED)


class Received(NamedTuple):
    """A study received, or to be: `node` and `member` are who gave it, `tag` that of the tree there.

    `study` is None until a package (the key file as it came) has told it. `made` is the sender's time of the package,
    `received` when all was taken in: `instances` of them, `octets` bytes sealed. `why` it ended or was refused; `told`
    is the refusal that was stated on the ledger last (`ledger.terms.SHARE_REFUSALS`).
    """

    grant: bytes
    kind: str
    study: str | None
    tag: bytes
    node: bytes
    member: str
    purpose: str
    at: int
    expires: int | None
    state: str
    why: str | None = None
    root: bytes | None = None
    package: bytes | None = None
    made: int | None = None
    received: int | None = None
    ended: int | None = None
    instances: int | None = None
    octets: int | None = None
    fault: str | None = None
    tries: int = 0
    again: int = 0
    told: int | None = None

    @property
    def live(self) -> bool:
        """Whether this node may have the study, until `expires`."""
        return self.state in (ReceivedState.GRANTED, ReceivedState.OFFERED, ReceivedState.HELD)
