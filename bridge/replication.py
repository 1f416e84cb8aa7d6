"""Replication for availability, as a step of the process that deals with members.

(1) what the ledger says since the last look: assignments to this node, receipts for it, releases
(2) every other member is asked in turn what this node is to keep for it, and so whether it answers at all
(3) this node's own studies are given to members                                 bridge.replicating
(4) other members' are taken in                                                  bridge.replica_keeping
"""

from __future__ import annotations

import logging
from typing import Final

from bridge.errors import CairnError, ContentMissing, EngineFault, RequestError
from bridge.index.replicas import PeerRow
from bridge.member_sources import MemberGateways
from bridge.node import Node
from bridge.replica_keeping import ReplicaKeeping
from bridge.replica_offers import PATH, read
from bridge.replicating import Replicating
from bridge.services.keep_replica import Holder
from bridge.services.provenance import Clock, now_us
from ledger.members import Member

__all__ = ["Replication"]

log = logging.getLogger(__name__)
FOLLOWED: Final = "replication"
TYPES: Final = ("replica.assign", "replica.receipt", "replica.release")
SECOND_US: Final = 1_000_000
ASKED_EVERY_US: Final = 5 * SECOND_US
SILENT_ASKED_EVERY_US: Final = 30 * SECOND_US
MOST_FOLLOWED: Final = 20
FROM_THE_START_US: Final = 3600 * SECOND_US
"""How often a member's list is read from its beginning, whatever position was reached."""


class Replication:
    """Steps of one process, one at a time.

    Parameters
    ----------
    node
        A node that is in a consortium and has a certificate to show.
    clock
        Microseconds since the epoch.
    """

    def __init__(self, node: Node, clock: Clock = now_us) -> None:
        if node.consortium is None or node.gateways is None:
            raise ValueError("a node in no consortium replicates nothing")
        self._index, self._clock = node.index, clock
        self._consortium = node.consortium
        self._gateways: MemberGateways = node.gateways
        settings = node.settings.replication
        consortium = node.consortium
        self._out = Replicating(
            node.index,
            node.statements,
            lambda root: consortium.made(root, True),
            node.keys.study_key,
            settings,
            clock,
        )
        holder = Holder(
            node.content,
            lambda tree, blocks: node.index.adopt(tree, (), blocks),
            node.index.trees.by_tag,
            node.index.add_blocks,
            node.packs.require_room,
            node.settings.home / "incoming" / "replicas",
        )
        self._in = ReplicaKeeping(node.index, consortium, node.statements, holder, self._gateways.of, settings, clock)
        self._asked: dict[bytes, int] = {}
        self._from_start: dict[bytes, int] = {}

    def step(self) -> bool:
        """(1) to (4), some of each; whether anything was done. Raises StorageFault, and as `SqlIndex.commit`."""
        own = self._consortium.own()
        if own is None or not own.active:
            return False  # not taken in yet, or retired: nobody answers
        others = self._gateways.others()
        done = False
        for _ in range(MOST_FOLLOWED):  # what the ledger knows already is not done again
            if not self._follow(own, others):
                break
            done = True
        self._ask(others)
        return any([done, self._out.step(others), self._in.step()])

    def _follow(self, own: Member, others: list[Member]) -> bool:
        """(1)"""
        found = self._consortium.follow(self._index.followed.position(FOLLOWED), TYPES)
        for final in found:
            said = final.entry
            if said.type == "replica.receipt":
                self._out.receipt(final)
            elif said.type == "replica.release":
                self._out.released(final) if said.node == own.node else self._in.released(final)
            elif said.node == own.node:
                self._out.assigned(final, others)
            elif said.terms.get("to") == own.node:
                self._asked.pop(said.node, None)  # what it wants kept is asked at once
        if found:
            self._index.followed.advance(FOLLOWED, found[-1].index)
        return bool(found)

    def _ask(self, others: list[Member]) -> None:
        """(2)"""
        for member in others:
            now = self._clock()
            if now < self._asked.get(member.node, 0):
                continue
            if not member.active:
                self._out.note(member, False, False, now)
                self._asked[member.node] = now + FROM_THE_START_US
                continue
            answered = self._ask_one(member, now)
            pause = ASKED_EVERY_US if answered else SILENT_ASKED_EVERY_US
            self._asked[member.node] = self._clock() + pause

    def _ask_one(self, member: Member, now: int) -> bool:
        """One member's list, from where it was read to; whether it answered."""
        again = now >= self._from_start.get(member.node, 0)
        position = 0 if again else self._index.replicas_out.peers().get(member.node, PeerRow(member.node)).position
        try:
            client = self._gateways.of(member.node)
            more = True
            while more:
                offer = read(client.ask("GET", f"{PATH}?after={position}"))
                more = offer.more and offer.next > position
                position = offer.next
                self._index.replicas_in.ask(member.node, member.name, offer.replicas, now)
                self._out.refused(member.node, offer.refused, now)
                self._out.note(member, True, offer.accepts, now)
        except EngineFault:
            self._out.note(member, False, False, now)
            return False
        except (ContentMissing, RequestError) as error:  # it is there, and says nothing of replicas
            log.warning("a member does not say what it wants kept", extra={"peer": member.name, "slug": error.slug})
            self._out.note(member, True, False, now)
            return True
        row = self._index.replicas_out.peers().get(member.node, PeerRow(member.node))
        if row.position != position:
            self._index.replicas_out.note_peers([row._replace(position=position)])
        if again:
            self._from_start[member.node] = now + FROM_THE_START_US
        return True


def step_or_log(replication: Replication) -> bool:
    """A step; what cannot be done now is logged and tried again by the next."""
    try:
        return replication.step()
    except CairnError as error:
        log.error("replication waits", extra={"slug": error.slug})
        return False
