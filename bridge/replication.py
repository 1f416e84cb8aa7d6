"""Replication for availability, as a step of the process that deals with members.

(1) what the ledger says since the last look: assignments to this node, receipts for it, releases; images that came
    to what is kept here
(2) the members that something goes on with are asked what this node is to keep for them, and so whether they answer
(3) this node's own studies are given to members                                 bridge.replicating
(4) other members' are taken in                                                  bridge.replica_keeping

Nobody asks whom it has no business with. A member that this node keeps something for, or that keeps something for it,
is asked when the ledger says that something happened, and soon again; while nothing does, ever more seldom, down to
once in ten minutes (`bridge.services.member_pace`). An assignment may be final here before its member knows that, or
while that cannot be reached: it is asked until it has told of it, and a restart follows the ledger from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from bridge.errors import ContentMissing, EngineFault, RequestError
from bridge.index.replicas import PeerRow
from bridge.member_sources import MemberGateways
from bridge.node import Node
from bridge.replica_keeping import ReplicaKeeping
from bridge.replica_offers import PATH, Offer, read
from bridge.replicating import Replicating
from bridge.services.keep_replica import Holder
from bridge.services.member_pace import Pace
from bridge.services.provenance import Clock, now_us
from bridge.services.receive_share import member_actor
from bridge.services.share import Lane, at_once
from ledger.block import FinalEntry
from ledger.members import Member

__all__ = ["Replication"]

log = logging.getLogger(__name__)
FOLLOWED: Final = "replication"
GROWTH: Final = frozenset({"study.store", "study.import"})
TYPES: Final = ("replica.assign", "replica.receipt", "replica.release", *sorted(GROWTH))
SECOND_US: Final = 1_000_000
LOOKED_EVERY_US: Final = 5 * SECOND_US
MOST_FOLLOWED: Final = 20
MOST_PAGES: Final = 20
"""Parts of a member's list that are read at once; it goes on where it was the next time."""
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
    asking, fetching
        Lanes for what is asked of each member, and fetched from it.
    """

    def __init__(self, node: Node, clock: Clock = now_us, asking: Lane = at_once, fetching: Lane = at_once) -> None:
        if node.consortium is None or node.gateways is None:
            raise ValueError("a node in no consortium replicates nothing")
        self._index, self._clock, self._access = node.index, clock, node.access
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
        self._in = ReplicaKeeping(
            node.index, consortium, node.statements, holder, self._gateways.of, settings, clock, fetching
        )
        self._asking = asking
        self._pace = Pace()
        self._hurried: set[bytes] = set()
        self._business: set[bytes] = set()
        self._awaited: dict[bytes, tuple[bytes, int]] = {}
        """Assignments to this node, by entry, of which their member has told nothing yet: its node, their index."""
        self._followed = self._seen_to = -1  # all was looked at up to here; and need not be looked at again
        self._looked = 0
        self._from_start: dict[bytes, int] = {}
        self._retired: dict[bytes, int] = {}

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
        self._advance()
        self._ask(others)
        return any([done, self._let_go(others), self._out.step(others), self._in.step()])

    def _follow(self, own: Member, others: list[Member]) -> bool:
        """(1)"""
        seen_to = self._index.followed.position(FOLLOWED)
        if seen_to != self._seen_to:  # the first look, or the index is another
            self._followed = self._seen_to = seen_to
        found = self._consortium.follow(self._followed, TYPES)
        self._grown(own, found)
        for final in found:
            said = final.entry
            if said.type == "replica.receipt":
                self._out.receipt(final)
                self._in.signed(final)
            elif said.type == "replica.release":
                self._out.released(final) if said.node == own.node else self._in.released(final)
                self._told_of(said.refs)
            elif said.type == "replica.assign":
                self._assigned(final, own, others)
        if found:
            self._followed = found[-1].index
        return bool(found)

    def _advance(self) -> None:
        """What was seen to, up to the first assignment that is awaited, need not be followed again."""
        reached = min([self._followed, *(index - 1 for _, index in list(self._awaited.values()))])
        if reached > self._seen_to:
            self._index.followed.advance(FOLLOWED, reached)
            self._seen_to = reached

    def _known(self, entries: Iterable[bytes]) -> None:
        """Those of the awaited that are written down are awaited no longer."""
        self._told_of([entry for entry in entries if self._index.replicas_in.by_entry(entry) is not None])

    def _told_of(self, entries: Iterable[bytes]) -> None:
        for entry in entries:
            self._awaited.pop(entry, None)

    def _assigned(self, final: FinalEntry, own: Member, others: list[Member]) -> None:
        said = final.entry
        if said.node == own.node:
            self._out.assigned(final, others)
        elif said.terms.get("to") == own.node:
            self._awaited[final.id] = said.node, final.index
            self._known([final.id])
            self._hurry(said.node)  # what it wants kept is asked at once
        else:
            self._in.assigned(final)

    def _grown(self, own: Member, found: Sequence[FinalEntry]) -> None:
        """Images came to studies that are kept here: whose they are tells the newest root soon."""
        stored = {(one.entry.node, one.entry.study) for one in found if one.entry.type in GROWTH}
        for node, tag in stored:
            if node == own.node or tag is None:
                continue
            if any(row.node == node for row in self._index.replicas_in.of_tag(tag)):
                self._hurry(node)

    def _hurry(self, node: bytes) -> None:
        self._hurried.add(node)
        self._pace.hurry(node)

    def _ask(self, others: list[Member]) -> None:
        """(2)"""
        now = self._clock()
        if now >= self._looked:
            self._business = self._index.replicas_out.nodes() | self._index.replicas_in.nodes()
            self._looked = now + LOOKED_EVERY_US
        awaited = {node for node, _ in list(self._awaited.values())}
        concerned = self._business | self._hurried | self._out.candidates | awaited
        for member in others:
            if member.active and member.node in concerned and self._pace.is_due(member.node, self._clock()):
                self._asking(member.node, partial(self._ask_member, member))

    def _ask_member(self, member: Member) -> int:
        self._hurried.discard(member.node)
        news = self._ask_one(member, self._clock())
        self._pace.asked(member.node, self._clock(), news=news)
        return int(news)

    def _let_go(self, others: list[Member]) -> bool:
        """What a retired member had kept here goes after a while; what it kept is asked of others."""
        done = False
        for member in others:
            now = self._clock()
            if not member.active and now >= self._retired.get(member.node, 0):
                self._out.note(member, False, False, now)
                peer = self._index.replicas_out.peers().get(member.node)
                more = self._in.retired(member.node, now if peer is None or peer.silent is None else peer.silent)
                self._retired[member.node] = now + (0 if more else FROM_THE_START_US)
                done = done or more
        return done

    def _ask_one(self, member: Member, now: int) -> bool:
        """A member's list, from where it was read to; whether it said anything new."""
        again = now >= self._from_start.get(member.node, 0)
        position = 0 if again else self._index.replicas_out.peers().get(member.node, PeerRow(member.node)).position
        news = False
        try:
            for _ in range(MOST_PAGES):
                offer = read(self._gateways.of(member.node).ask("GET", f"{PATH}?after={position}"))
                found, final = self._heard(member, offer, now)
                news = news or found
                if not final:
                    return news  # it is asked for this part again
                more, position = offer.more and offer.next > position, max(offer.next, position)
                if not more:
                    break
        except EngineFault:
            self._out.note(member, False, False, now)
            return False
        except (ContentMissing, RequestError) as error:  # it is there, and says nothing of replicas, or what is false
            log.warning("a member does not say what it wants kept", extra={"peer": member.name, "slug": error.slug})
            if isinstance(error, RequestError):
                self._told_of([entry for entry, (node, _) in list(self._awaited.items()) if node == member.node])
                self._access.refused(member_actor(member.name), "", f"a replica: {error.detail}"[:400])
            self._out.note(member, True, False, now)
            return False
        row = self._index.replicas_out.peers().get(member.node, PeerRow(member.node))
        if row.position != position:
            self._index.replicas_out.note_peers([row._replace(position=position)])
        if again and not more:
            self._from_start[member.node] = now + FROM_THE_START_US
        return news

    def _heard(self, member: Member, offer: Offer, now: int) -> tuple[bool, bool]:
        """What is done with a part of a list: whether it is new, and whether all in it is final here."""
        new, final = self._in.offered(member, offer, now)
        self._known([one.entry for one in offer.replicas if one.entry in self._awaited])
        refused = self._out.refused(member.node, offer.refused, now)
        self._out.note(member, True, offer.accepts, now)
        return bool(new or refused), final
