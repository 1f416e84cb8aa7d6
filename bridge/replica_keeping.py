"""Sealed blocks kept here for other members: taken in, signed for, given up.

    (1) what a member asks to be kept is written down                                bridge.replica_offers
    (2) its assignment is final on this node's own ledger: that member's, to this node, of that study tag
    (3) the blocks are fetched, verified and pinned, without any key                 services.keep_replica
    (4) replica.receipt on the ledger: whoever knows salt and root can compare it
    (5) when the ledger says that it was released, the tree is let go

What cannot be kept is said to the member, which asks another: keeping is off, there is no room, or what came is none
of that study. What merely does not answer is tried again, each time later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from bridge.index.replicas_kept import InRow
from bridge.ports import Consortium
from bridge.replicating import commitment
from bridge.services.access import SYSTEM
from bridge.services.keep_replica import Asked, Holder, keep_replica
from bridge.services.provenance import Clock, now_us
from bridge.services.statement import Statements
from ledger.block import FinalEntry

__all__ = ["ReplicaKeeping"]

log = logging.getLogger(__name__)
AT_ONCE: Final = 4
STATED_AT_ONCE: Final = 100
SECOND_US: Final = 1_000_000
LONGEST_REST_US: Final = 600 * SECOND_US
REFUSED_FOR_US: Final = 3600 * SECOND_US
WAITS_US: Final = SECOND_US
OFF: Final = "this member keeps no blocks for others"


class _NotFinal(Exception):
    """The assignment is not on this node's ledger yet."""


@dataclass(frozen=True, slots=True)
class ReplicaKeeping:
    """The holder's part. One thread at a time; every method may raise StorageFault, and as `SqlIndex.commit`.

    `gateway` gives the listener of a member by its node.
    """

    index: SqlIndex
    consortium: Consortium
    statements: Statements
    holder: Holder
    gateway: Callable[[bytes], Source]
    settings: Replication
    clock: Clock = now_us

    def step(self) -> bool:
        """Some of what there is to do; whether anything was."""
        for row in self.index.replicas_in.forgotten(AT_ONCE):
            self.index.replicas_in.lost(row)
        due = self.index.replicas_in.due(self.clock(), AT_ONCE)
        for row in due:
            self._try(row)
        return self._state() or bool(due)

    def released(self, final: FinalEntry) -> None:
        """(5) A replica.release on the ledger, whoever's it is."""
        said = final.entry
        row = self.index.replicas_in.by_entry(said.refs[0]) if said.refs else None
        if row is None or row.node != said.node:
            return
        self.index.replicas_in.drop(row)
        if not self.index.replicas_in.of_tag(row.tag):
            self._give_up(row)

    def _try(self, row: InRow) -> None:
        """(2), (3) Keep one, or write down why not."""
        try:
            if self.settings.accept == "off":
                raise RequestError(OFF)
            self._check(row)
            keep_replica(self.holder, self.gateway(row.node), Asked(row.tag, row.root, row.octets, row.kept))
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
            self.index.replicas_in.took(row, row.root, self.clock())

    def _check(self, row: InRow) -> None:
        """(2) Raises RequestError when the ledger says something else than the member."""
        final, own = self.consortium.entry(row.entry), self.consortium.own()
        if final is None or own is None:
            raise _NotFinal
        said = final.entry
        if (said.type, said.node, said.terms.get("to")) != ("replica.assign", row.node, own.node):
            raise RequestError("the entry that it names assigns nothing of that member to this one")
        if said.terms.get("s", row.tag) != row.tag:
            raise RequestError("the entry that it names is about another study")
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
