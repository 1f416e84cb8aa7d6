"""A node's part in a consortium, as the console shows it and acts on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from bridge import replica_overview
from bridge.access import expiry
from bridge.consensus import condition
from bridge.consortium import DATABASE, SharedConsortium, folder
from bridge.consortium_model import ConsortiumOverview, Emergency, Hindrance, Motion, Planned, Replica, Share
from bridge.consortium_motion import described, planned
from bridge.consortium_overview import overview
from bridge.consortium_waiting import hindrances
from bridge.errors import Busy, ConfigError, NotFound, RequestError
from bridge.index.index import SqlIndex
from bridge.index.shares import EMERGENCY, Given, GivenState, Received, ReceivedState
from bridge.ledger_reading import unreadable
from bridge.model import Actor
from bridge.services import share
from bridge.services.govern import Governance
from bridge.services.provenance import now_us
from bridge.services.share import Sharing
from bridge.services.statement import Statements
from ledger.block_store import BlockStore
from ledger.errors import LedgerError

FINAL_S: Final = 5.0
"""How long a proposal or vote is waited for, so that who made it sees what became of it."""


class Membership:
    """What the doors are given of the consortium (`dicomweb.node.Membership`). Thread-safe.

    Parameters
    ----------
    home
        The node's directory.
    consortium
        Members and proposals.
    statements
        Writes what this node states.
    index
        What was given to members and received from them, what they keep and what is kept for them, emergencies.
    sharing
        What gives and ends shares; None where the node has no certificate to show to members.
    """

    def __init__(
        self,
        home: Path,
        consortium: SharedConsortium,
        statements: Statements,
        index: SqlIndex,
        sharing: Sharing | None = None,
    ) -> None:
        self._home = home
        self._database = folder(home) / DATABASE
        self._consortium = consortium
        self._statements = statements
        self._governance = Governance(consortium, statements)
        self._index = index
        self._shares = index.shares
        self._sharing = sharing

    def overview(self) -> ConsortiumOverview:
        """How the consortium stands, as this node sees it now. Raises StorageFault; Busy before the first start."""
        own = self._consortium.own()
        if not self._database.exists():
            raise Busy("there is no shared log here yet: the ledger's process makes it at the node's first start")
        try:
            with contextlib.closing(BlockStore(self._database, readonly=True)) as store:
                stands = overview(store, self._consortium.genesis, own.node if own is not None else b"")
        except (LedgerError, OSError) as error:
            raise unreadable("the shared log", error) from error
        told = condition.read(self._home)
        found = self.hindrances(stands.waiting_since)
        return replace(stands, hindrances=found, unheard={} if told is None else told.unheard)

    def hindrances(self, waiting_since: int | None = None) -> tuple[Hindrance, ...]:
        """Why entries of this node wait for their block, the oldest since then. Raises StorageFault."""
        own, active = self._consortium.own(), self._consortium.state().active
        return hindrances(own, active, waiting_since, condition.read(self._home), now_us())

    def vote(self, actor: Actor, proposal: bytes, yes: bool) -> bool:
        """Vote on a proposal, durably on its way when it returns; whether it is final by then.

        Raises NotFound, RequestError.
        """
        with _asked():
            return self._final(self._governance.vote(actor, proposal, yes)) is not None

    def plan(self, motion: Motion) -> Planned:
        """What a proposal would change; nothing is stated. Raises NotFound, RequestError with the reason."""
        with _asked():
            return described(self._consortium.state(), motion, planned(self._governance, motion))

    def propose(self, actor: Actor, motion: Motion) -> bytes | None:
        """Put it to the vote, durably on its way when it returns; its id when it is final. Raises as `plan`."""
        with _asked():
            return self._final(self._governance.propose(actor, planned(self._governance, motion)))

    def _final(self, root: bytes) -> bytes | None:
        return self._statements.entry_id(root, FINAL_S, final=True)

    def grant(self, actor: Actor, study: str, member: str, purpose: str, expires: str | None) -> str:
        """As `services.share.grant`; the grant's id in hexadecimal digits."""
        try:
            until = expiry.parse(expires, now_us()) if expires is not None else None
        except ConfigError as error:
            raise RequestError(error.detail) from None
        return share.grant(self._own_sharing(), actor, study, member, purpose, until).hex()

    def revoke(self, actor: Actor, grant: str) -> None:
        """As `services.share.revoke`. Raises NotFound for what is no grant's id, too."""
        try:
            entry = bytes.fromhex(grant)
        except ValueError:
            raise NotFound("this is not the id of a grant") from None
        share.revoke(self._own_sharing(), actor, entry)

    def _own_sharing(self) -> Sharing:
        if self._sharing is None:
            raise RequestError("this node has no certificate to show to the other members")
        return self._sharing

    def shares(self, study: str | None = None) -> Sequence[Share]:
        """What was given and received, newest first; of one study when it is named."""
        given, received = self._shares.all_given(study), self._shares.all_received(study)
        told = [*map(_given, given), *map(_received, received)]
        return sorted(told, key=lambda share: share.granted_us, reverse=True)

    def replicas(self) -> Sequence[Replica]:
        """Sealed blocks kept at other members, and kept here for them."""
        return replica_overview.replicas(self._index)

    def emergencies(self) -> Sequence[Emergency]:
        """Break-glass accesses across hospitals that last or are not reviewed, newest first."""
        own = self._consortium.own()
        found = self._index.emergencies.open(now_us())
        return replica_overview.emergencies(found, own.name if own is not None else "this hospital")


@contextlib.contextmanager
def _asked() -> Iterator[None]:
    """Somebody asks for what this node cannot: no setting is wrong, as it would be of a command."""
    try:
        yield
    except ConfigError as error:
        raise RequestError(error.detail) from error


_RECEIVED: Final = {
    ReceivedState.GRANTED: "announced",
    ReceivedState.OFFERED: "fetching",
    ReceivedState.HELD: "held",
    ReceivedState.ENDING: "ending",
    ReceivedState.ENDED: "ended",
    ReceivedState.REFUSED: "refused",
}


def _given(row: Given) -> Share:
    state = row.state
    if row.gone is not None:
        state = "ended"
    elif state == GivenState.DELIVERED and row.receipt is not None:
        state = "received"
    return Share(
        grant=row.grant,
        study=row.study,
        member=row.member,
        given=True,
        purpose=row.purpose,
        state=str(state),
        granted_us=row.at,
        expires_us=row.expires,
        trouble=row.fault,
        emergency=row.kind == EMERGENCY,
        refused=row.refused,
    )


def _received(row: Received) -> Share:
    return Share(
        grant=row.grant,
        study=row.study,
        member=row.member,
        given=False,
        purpose=row.purpose,
        state=_RECEIVED[ReceivedState(row.state)],
        granted_us=row.at,
        expires_us=row.expires,
        trouble=row.fault or row.why,
        emergency=row.kind == EMERGENCY,
    )
