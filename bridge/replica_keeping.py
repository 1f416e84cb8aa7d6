"""Sealed blocks kept here for other members: taken in, signed for, given up.

    (1) what a member asks to be kept is written down                                bridge.replica_offers
    (2) its assignment is final on this node's own ledger: that member's, to this node, of that study tag
    (3) the blocks are fetched from it, or from others that have signed for the same, verified and pinned, without any
        key                                                                          services.keep_replica
    (4) replica.receipt on the ledger: whoever knows salt and root can compare it
    (5) when the ledger says that it was released, the tree is let go
    (6) of a member that was retired, after `retired_days`; the ledger says so: replica.receipt of outcome 8

What cannot be kept is said to the member, which asks another: keeping is off, there is no room, or what came is none
of that study. What merely does not answer is tried again, each time later.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bridge.config import Replication
from bridge.content.incoming import Source
from bridge.errors import (
    CairnError,
    CapacityError,
    CarInvalid,
    ContentMissing,
    EngineFault,
    RequestError,
    StorageFault,
)
from bridge.index.forgetting import forget
from bridge.index.index import SqlIndex
from bridge.index.replicas_beside import Beside
from bridge.index.replicas_kept import InRow
from bridge.ports import Consortium
from bridge.replica_offers import Offer
from bridge.replicating import commitment
from bridge.services.access import SYSTEM
from bridge.services.keep_replica import Asked, Holder, keep_replica
from bridge.services.provenance import Clock, now_us
from bridge.services.share import Lane, at_once
from bridge.services.statement import Statements
from ledger.block import FinalEntry
from ledger.members import Member

__all__ = ["ReplicaKeeping"]

log = logging.getLogger(__name__)
AT_ONCE: Final = 4
LOOKED_AT: Final = 200
STATED_AT_ONCE: Final = 100
SECOND_US: Final = 1_000_000
LONGEST_REST_US: Final = 600 * SECOND_US
REFUSED_FOR_US: Final = 3600 * SECOND_US
WAITS_US: Final = SECOND_US
DAY_US: Final = 86400 * SECOND_US
LET_GO: Final = 8
"""EventOutcomeIndicator of a receipt that says that what was kept is kept no longer."""
OFF: Final = "this member keeps no blocks for others"


class _NotFinal(Exception):
    """The assignment is not on this node's ledger yet."""


@dataclass(frozen=True, slots=True)
class ReplicaKeeping:
    """The holder's part. One thread at a time; every method may raise StorageFault, and as `SqlIndex.commit`.

    `gateway` gives the listener of a member by its node; what each member wants kept is fetched in a `lane` of its own.
    """

    index: SqlIndex
    consortium: Consortium
    statements: Statements
    holder: Holder
    gateway: Callable[[bytes], Source]
    settings: Replication
    clock: Clock = now_us
    lane: Lane = at_once
    _settling: threading.Lock = field(default_factory=threading.Lock, init=False)

    def offered(self, member: Member, offer: Offer, now: int) -> tuple[int, bool]:
        """(1) What a member says that it wants kept: how much of it is new, and whether all of it is final here.

        Written down is what this node's own ledger says too, so that nobody's word alone leaves anything. Raises
        RequestError for an offer that the ledger contradicts.
        """
        own, wanted, final = self.consortium.own(), [], True
        known = {row.tag: row for row in self.index.replicas_in.of_node(member.node)} if offer.replicas else {}
        for one in offer.replicas:
            entry = self.consortium.entry(one.entry)
            if entry is None or own is None:
                final = False
                continue
            _compare(entry, member.node, own, one.tag)
            wanted.append(one)
        self.index.replicas_in.ask(member.node, member.name, wanted, now)
        names = {other.node: other.name for other in self.consortium.members() if own is None or other.node != own.node}
        for one in wanted:
            also = [(self.consortium.entry(entry), kept) for entry, kept in one.beside]
            self._note_beside([(entry, kept) for entry, kept in also if entry], member.node, one.tag, names)
        return sum(one.tag not in known or known[one.tag].root != one.root for one in wanted), final

    def assigned(self, final: FinalEntry) -> None:
        """A replica.assign on the ledger of another member to another: whether it is of a tree that is kept here."""
        tag, node = final.entry.terms.get("s"), final.entry.node
        if isinstance(tag, bytes) and any(row.node == node for row in self.index.replicas_in.of_tag(tag)):
            names = {member.node: member.name for member in self.consortium.members()}
            self._note_beside([(final, False)], node, tag, names)

    def signed(self, final: FinalEntry) -> None:
        """A replica.receipt on the ledger, whoever's it is."""
        if final.entry.refs and final.entry.outcome == 0:
            self.index.replicas_beside.signed(final.entry.refs[0])

    def step(self) -> bool:
        """Some of what there is to do; whether anything was."""
        for row in self.index.replicas_in.forgotten(AT_ONCE):
            self.index.replicas_in.lost(row)
        of: dict[bytes, list[InRow]] = {}
        for row in self.index.replicas_in.due(self.clock(), LOOKED_AT):
            of.setdefault(row.node, []).append(row)
        begun = [self.lane(node, partial(self._try_some, rows[:AT_ONCE])) for node, rows in of.items()]
        return self._state() or any(begun)

    def released(self, final: FinalEntry) -> None:
        """(5) A replica.release on the ledger, whoever's it is."""
        said = final.entry
        row = self.index.replicas_in.by_entry(said.refs[0]) if said.refs else None
        if said.refs:
            self.index.replicas_beside.drop(said.refs[0])
        if row is not None and row.node == said.node:
            self._drop(row)

    def retired(self, node: bytes, since: int) -> bool:
        """(6) A member is retired and was heard of last at `since` (microseconds); whether anything was let go."""
        if self.clock() - since < self.settings.retired_days * DAY_US:
            return False
        rows = self.index.replicas_in.of_node(node)[:STATED_AT_ONCE]
        for row in rows:
            if row.kept is not None:
                detail = {"member": row.member, "root": row.kept, "why": "the member is retired"}
                self.statements.make(
                    *("replica.receipt", SYSTEM, None, [row.entry], None, "HOPERAT", detail), outcome=LET_GO
                )
            self._drop(row)
        return bool(rows)

    def _try_some(self, rows: Sequence[InRow]) -> int:
        for row in rows:
            self._try(row)
        return len(rows)

    def _try(self, row: InRow) -> None:
        """(2), (3) Keep one, or write down why not."""
        try:
            if self.settings.accept == "off":
                raise RequestError(OFF)
            self._check(row)
            self._keep(row)
        except _NotFinal:
            self.index.replicas_in.failed(
                row, "its assignment is not on this ledger yet", self._later(WAITS_US), refused=False
            )
        except (RequestError, CarInvalid) as error:
            self._fail(row, error, REFUSED_FOR_US, refused=True)
        except CapacityError as error:
            self._fail(row, error, REFUSED_FOR_US, refused=row.kept is None)
        except (EngineFault, ContentMissing, StorageFault) as error:
            self._fail(row, error, min(SECOND_US << min(row.tries, 20), LONGEST_REST_US), refused=False)
        else:
            with self._settling:
                if self.index.replicas_in.by_entry(row.entry) is None:  # it was released meanwhile
                    self._give_up(row)
                else:
                    self.index.replicas_in.took(row, row.root, self.clock())

    def _keep(self, row: InRow) -> None:
        """(3) From its origin, else from the next of those that have signed for the same. Raises as `keep_replica`."""
        asked = Asked(row.tag, row.root, row.octets, row.kept)
        try:
            keep_replica(self.holder, self.gateway(row.node), asked)
            return
        except (EngineFault, ContentMissing) as error:
            failed: CairnError = error
        for other in self.index.replicas_beside.of_tree(row.node, row.tag):
            if other.kept:
                try:
                    keep_replica(self.holder, self.gateway(other.holder), asked)
                    return
                except (EngineFault, ContentMissing, CarInvalid) as error:
                    log.info("a replica is not to be had from another holder", extra={"peer": other.member})
                    failed = error if isinstance(error, EngineFault) else failed
        raise failed

    def _note_beside(
        self, entries: Sequence[tuple[FinalEntry, bool]], node: bytes, tag: bytes, names: Mapping[bytes, str]
    ) -> None:
        """Other members that the ledger says are to keep this tree."""
        rows = []
        for final, kept in entries:
            said, to = final.entry, final.entry.terms.get("to")
            if (said.type, said.node, said.terms.get("s")) == ("replica.assign", node, tag) and to in names:
                assert isinstance(to, bytes)
                rows.append(Beside(final.id, node, tag, to, names[to], kept))
        self.index.replicas_beside.note(rows)

    def _check(self, row: InRow) -> None:
        """(2) Raises RequestError when the ledger says something else than the member."""
        final, own = self.consortium.entry(row.entry), self.consortium.own()
        if final is None or own is None:
            raise _NotFinal
        _compare(final, row.node, own, row.tag)
        tree = self.index.trees.by_tag(row.tag)
        lent = self.index.shares.received_of(row.tag)
        if tree is not None and tree.origin and all(one.node != row.node for one in lent):
            raise RequestError("a study that another member gave has this tag here")
        if any(one.node != row.node and one.kept is not None for one in self.index.replicas_in.of_tag(row.tag)):
            raise RequestError("another member has its study of this tag kept here")

    def _fail(self, row: InRow, error: CairnError, rest_us: int, *, refused: bool) -> None:
        log.warning("a replica is not kept: %s", error.slug, extra={"peer": row.member, "slug": error.slug})
        self.index.replicas_in.failed(row, error.detail[:200], self._later(rest_us), refused=refused)

    def _later(self, rest_us: int) -> int:
        return self.clock() + rest_us

    def _state(self) -> bool:
        """(4)"""
        rows = self.index.replicas_in.unstated(STATED_AT_ONCE)
        for row in rows:
            if row.kept is not None:
                body = {"c": commitment(row.salt, row.kept)}
                detail = {"member": row.member, "root": row.kept, "bytes": row.octets}
                self.statements.make("replica.receipt", SYSTEM, body, [row.entry], None, "HOPERAT", detail)
                self.index.replicas_in.stated(row, row.kept)
        return bool(rows)

    def _drop(self, row: InRow) -> None:
        with self._settling:
            self.index.replicas_in.drop(row)
            self.index.replicas_beside.drop_tree(row.node, row.tag)
            if not self.index.replicas_in.of_tag(row.tag):
                self._give_up(row)

    def _give_up(self, row: InRow) -> None:
        """Let a tree go, unless its key is held by now: then it is a study that this node has."""
        tree = self.index.trees.by_tag(row.tag)
        if tree is None or tree.study is not None or tree.origin is None:
            return
        for root in {row.kept, tree.root} - {None}:
            assert root is not None
            try:
                self.holder.content.unpin(root)
            except CairnError as error:
                log.warning("a replica that was released stays pinned", extra={"slug": error.slug})
        self.index.run(lambda transaction: forget(transaction, row.tag, (), keep_sealed=False)).result()


def _compare(final: FinalEntry, node: bytes, own: Member, tag: bytes) -> None:
    """Raise RequestError unless an entry asks this node, for that member, to keep the study of that tag."""
    said = final.entry
    if (said.type, said.node, said.terms.get("to")) != ("replica.assign", node, own.node):
        raise RequestError("the entry that it names assigns nothing of that member to this one")
    if said.terms.get("s", tag) != tag:
        raise RequestError("the entry that it names is about another study")
