"""What pages and commands tell of a consortium, as values: members, votes, shares, replicas, emergencies. Pure.

Times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MemberOverview:
    """One hospital: `power` is its validator's (0: none), `entries` how many of its entries are final.

    `cosigned` is the size of the newest checkpoint of which its cosignature is held here.
    """

    name: str
    node: bytes
    own: bool
    active: bool
    power: int
    url: str | None
    entries: int = 0
    last_us: int | None = None
    cosigned: int | None = None


@dataclass(frozen=True, slots=True)
class ProposalOverview:
    """A motion on the ledger: `needed` yes-votes carry it; `own` is this node's vote, None while it has none.

    `state` is "open", or what became of it: "accepted", "rejected", "withdrawn", "void" (it could not take effect).
    """

    id: bytes
    what: str
    by: str
    time_us: int | None
    yes: tuple[str, ...]
    no: tuple[str, ...]
    needed: int
    own: bool | None
    state: str = "open"


@dataclass(frozen=True, slots=True)
class Motion:
    """A change that is to be proposed: "enroll" and "rotate" (with a member's card as text), "retire", "power"."""

    do: str
    member: str = ""
    card: str = ""
    power: int | None = None


@dataclass(frozen=True, slots=True)
class CardOverview:
    """What a card says: `fingerprint` is what two people compare; `key`, `consensus` and `certificate` are SHA-256.

    `until_us` is when its certificate ends; None when that cannot be read.
    """

    name: str
    node: bytes
    url: str
    address: str
    power: int
    fingerprint: str
    key: bytes
    consensus: bytes
    certificate: bytes
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A motion that would have an effect: the member it is about, by name, with the card it has and is to have.

    `power` is the member's now; `total` that of all, `after` that of all when it has taken effect; `largest` the most
    votes of one validator then. `needed` members must vote for it.
    """

    motion: Motion
    member: str
    power: int
    total: int
    after: int
    largest: int
    needed: int
    former: CardOverview | None = None
    card: CardOverview | None = None


@dataclass(frozen=True, slots=True)
class EvidenceOverview:
    """A proved wrong of a member, such as two signatures for one height, or two roots for one size."""

    member: str
    what: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why entries of this node wait for their block, in words; what to do; since when, where that is known."""

    what: str
    advice: str
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class ConsortiumOverview:
    """How the consortium stands, as this node sees it.

    `quorum` members must cosign a checkpoint; `cosigned` is the newest size for which so many did. `outbox` entries of
    this node wait for consensus, the oldest since `waiting_since`; `hindrances` say why. `unheard` are members, by
    name, to whose CometBFT this node's has no connection, and since when.
    """

    name: str
    ledger: bytes
    height: int
    block_us: int | None
    size: int
    members: tuple[MemberOverview, ...]
    quorum: int
    cosigned: int | None = None
    outbox: int = 0
    waiting_since: int | None = None
    proposals: tuple[ProposalOverview, ...] = ()
    evidence: tuple[EvidenceOverview, ...] = ()
    hindrances: tuple[Hindrance, ...] = ()
    unheard: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """A study given to a member or received from one, under one grant (its entry's id).

    `state` of what was given: "waiting" (for consensus), "granted" (not delivered yet), "delivered" (the other has the
    key), "received" (it has stated so on the ledger), "revoking" (nothing is served, the ledger does not say so yet),
    "revoked", "expired", "ended" (the receiver attested that its keys are gone). Of what is received: "announced"
    (granted, its key is not here yet), "fetching", "held", "ending", "ended", "refused".

    `refused`: why the receiver did not take in what was given, as its entry says, until it does; the grant goes on.
    """

    grant: bytes
    study: str | None
    member: str
    given: bool
    purpose: str
    state: str
    granted_us: int
    expires_us: int | None = None
    trouble: str | None = None
    emergency: bool = False
    refused: str | None = None

    @property
    def live(self) -> bool:
        """Whether the receiver may have the study."""
        return self.state in ("waiting", "granted", "delivered", "received", "announced", "fetching", "held")


@dataclass(frozen=True, slots=True)
class Replica:
    """Sealed blocks of a study kept at a member (`kept_here` False) or here for a member; they cannot be read there.

    `state`: "assigned", "kept" (receipt on the ledger), "lost", "released".
    """

    study: str | None
    tag: bytes
    member: str
    kept_here: bool
    state: str
    since_us: int
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What somebody of this hospital found about an emergency, and the entry that says so."""

    entry: bytes
    by: str
    time_us: int
    finding: str


@dataclass(frozen=True, slots=True)
class Emergency:
    """A break-glass access: `from_member` is whose study it is, `to_member` who broke the glass.

    Both are this hospital for an access of its own people to its own study. `who` broke it, where that is known here;
    by `due_us` this hospital has to review it.
    """

    entry: bytes
    study: str | None
    from_member: str
    to_member: str
    own: bool
    reason: str
    started_us: int
    ends_us: int
    reviewed: bool
    who: str = ""
    reviews: tuple[Review, ...] = ()
    due_us: int | None = None

    @property
    def local(self) -> bool:
        """Whether no other hospital has part in it."""
        return self.from_member == self.to_member
