"""Studies of this node kept at other members: who is asked, what the ledger says of it, who takes whose place.

(1) own trees that lack a copy, or have one at a member that is lost                    index
(2) what is to be done for each                                                         services.replica_plan [pure]
(3) a member is asked: replica.assign on the ledger, then the assignment, by which it may fetch
(4) the assignment is told to it once its entry is final                                bridge.replica_offers
(5) its receipt on the ledger counts as a copy while it names the newest root
(6) a member is let go: it is given nothing more from then on, and the ledger says so: replica.release
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.config import Replication
from bridge.index.index import SqlIndex
from bridge.index.replicas import OutRow, PeerRow
from bridge.model import StudyKey
from bridge.services.access import SYSTEM
from bridge.services.member_pace import LONGEST_US
from bridge.services.provenance import Clock, now_us
from bridge.services.replica_plan import Holding, Move, Peer, Step, is_lost, plan, to_ask
from bridge.services.statement import Statements
from ledger.block import FinalEntry
from ledger.members import Member

__all__ = ["AT_ONCE", "Replicating", "commitment"]

AT_ONCE: Final = 200
HOUR_US: Final = 3600 * 1_000_000
RESTS_US: Final = 3 * 1_000_000
FRESH_US: Final = 2 * LONGEST_US
"""How long what a member answered is good for."""
SALT: Final = 16


def commitment(salt: bytes, root: bytes) -> bytes:
    """What the ledger has of a root, which only who knows the salt can compare: SHA-256(salt || CID)."""
    return hashlib.sha256(salt + root).digest()


@dataclass(slots=True)
class Replicating:
    """The origin's part. One thread at a time; every method may raise StorageFault, and as `SqlIndex.commit`.

    `key` gives the newest key of an own study, by its UID; `made` finds the final entry over a records root.
    """

    index: SqlIndex
    statements: Statements
    made: Callable[[bytes], bytes | None]
    key: Callable[[str], StudyKey]
    settings: Replication
    clock: Clock = now_us
    _after: int = field(default=0, init=False)
    _rests_until: int = field(default=0, init=False)
    _answered: dict[bytes, int] = field(default_factory=dict, init=False)
    candidates: set[bytes] = field(default_factory=set, init=False)
    """Members (nodes) that are to be asked, since some study has too few copies."""

    def step(self, others: Sequence[Member]) -> bool:
        """Some of what there is to do; whether anything was. `others` are all other members, retired ones too."""
        return any([self._find_entries(), self._renew(), self._plan(others), self._let_go()])

    def note(self, member: Member, answered: bool, accepts: bool, now: int) -> None:
        """A member was asked: whether it answered, and whether it keeps blocks for others."""
        known = self.index.replicas_out.peers().get(member.node)
        before = known or PeerRow(member.node)
        silent = None if answered else before.silent or now
        lost = is_lost(Peer(member.node, member.active, silent=silent), now, self._lost_us)
        after = before._replace(silent=silent, lost=lost, accepts=accepts if answered else before.accepts)
        self._answered[member.node], self._rests_until = now, 0
        if after != known:
            self.index.replicas_out.note_peers([after])

    def refused(self, node: bytes, refused: Iterable[tuple[bytes, str]], now: int) -> int:
        """What a member says that it does not keep; how much of that is new."""
        new = 0
        for entry, why in refused:
            row = self.index.replicas_out.by_entry(entry)
            if row is not None and row.node == node and row.refused is None and row.kept is None:
                self.index.replicas_out.refuse(node, entry, why, now)
                new += 1
        return new

    def assigned(self, final: FinalEntry, others: Sequence[Member]) -> None:
        """A replica.assign of this node on the ledger: known, or of an index that was lost or never told of it."""
        said, out = final.entry, self.index.replicas_out
        tag, to = said.terms.get("s"), said.terms.get("to")
        member = next((one for one in others if one.node == to), None)
        if out.by_entry(final.id) is not None or not isinstance(tag, bytes) or member is None:
            return
        rows = out.of_tag(tag)
        if any(row.statement == said.records_root for row in rows):
            out.sealed(said.records_root, final.id, self.clock())
            return
        if any(row.node == to for row in rows):  # asked again meanwhile, by another entry
            self.statements.make("replica.release", SYSTEM, None, [final.id], self._key_of(tag))
            return
        tree = self.index.trees.by_tag(tag)
        if tree is not None and tree.root is not None and tree.origin is None:
            salt, octets = os.urandom(SALT), out.octets(tag)
            row = OutRow(
                tag, member.node, member.name, 0, self.clock(), said.records_root, None, salt, tree.root, octets
            )
            out.assign(row)
            out.sealed(said.records_root, final.id, self.clock())

    def released(self, final: FinalEntry) -> None:
        """A replica.release of this node on the ledger."""
        row = self.index.replicas_out.by_entry(final.entry.refs[0]) if final.entry.refs else None
        if row is not None:
            self.index.replicas_out.drop(row.tag, row.node)

    def receipt(self, final: FinalEntry) -> None:
        """(5) A replica.receipt on the ledger, whoever's it is."""
        said = final.entry
        row = self.index.replicas_out.by_entry(said.refs[0]) if said.refs else None
        if row is not None and row.node == said.node and said.terms.get("c") == commitment(row.salt, row.root):
            self.index.replicas_out.confirm(said.refs[0], row.root, final.from_us(self.clock()))

    @property
    def _lost_us(self) -> int:
        return self.settings.lost_hours * HOUR_US

    def _find_entries(self) -> bool:
        """(4) The entries of assignments that have become final."""
        found = False
        for row in self.index.replicas_out.unsealed(AT_ONCE):
            entry = self.made(row.statement)
            if entry is not None:
                self.index.replicas_out.sealed(row.statement, entry, self.clock())
                found = True
        return found

    def _renew(self) -> bool:
        """Assignments follow their study's newest root."""
        behind = self.index.replicas_out.behind(AT_ONCE)
        for row, root in behind:
            self.index.replicas_out.renew(row, root, self.index.replicas_out.octets(row.tag), self.clock())
        return bool(behind)

    def _plan(self, others: Sequence[Member]) -> bool:
        """(1), (2) The next own trees that may need something; from the first again after the last."""
        now = self.clock()
        if now < self._rests_until:
            return False
        first = not self._after
        found = self.index.replicas_out.unsettled(self.settings.copies, self._after, AT_ONCE)
        self._after = found[-1][0] if len(found) == AT_ONCE else 0
        known, peers = {member.node: member for member in others}, self._peers(others)
        done = False
        self.candidates = set() if first else self.candidates
        for _, tag in found:
            rows = self.index.replicas_out.held(tag)
            held = [Holding(row.node, row.kept == row.root, row.refused) for row in rows]
            self.candidates.update(to_ask(tag, self.settings.copies, peers, held, now, self._lost_us))
            for step in plan(tag, self.settings.copies, peers, held, now, self._lost_us):
                done = self._take(step, tag, known, {row.node: row for row in rows}) or done
        for row in self.index.replicas_out.gone(AT_ONCE):
            self.index.replicas_out.release(row.tag, row.node, now)
            done = True
        if not done and not self._after:
            self._rests_until = now + RESTS_US  # what cannot be done now is looked at again a little later
        return done

    def _peers(self, others: Sequence[Member]) -> list[Peer]:
        """The members as they were when they were asked last."""
        rows = self.index.replicas_out.peers()
        since = self.clock() - FRESH_US
        peers = []
        for member in others:
            row = rows.get(member.node, PeerRow(member.node))
            fresh = self._answered.get(member.node, 0) > since
            peers.append(Peer(member.node, member.active, row.accepts, row.silent, fresh))
        return peers

    def _take(self, step: Step, tag: bytes, known: Mapping[bytes, Member], rows: Mapping[bytes, OutRow]) -> bool:
        if step.move is Move.RELEASE:
            self.index.replicas_out.release(tag, step.node, self.clock())
            return True
        tree = self.index.trees.by_tag(tag)
        if step.node in {row.node for row in self.index.replicas_out.of_tag(tag)}:
            return False  # the ledger does not say yet that it was let go
        if tree is None or tree.root is None or tree.study is None:
            return False
        member, salt = known[step.node], os.urandom(SALT)
        body = {"to": member.node, "s": tag, "c": commitment(salt, tree.root)}
        detail = {"member": member.name, "why": step.why}
        statement = self.statements.make("replica.assign", SYSTEM, body, (), self.key(tree.study), "HOPERAT", detail)
        octets = self.index.replicas_out.octets(tag)
        row = OutRow(tag, member.node, member.name, 0, self.clock(), statement, None, salt, tree.root, octets)
        self.index.replicas_out.assign(row)  # (3)
        return True

    def _let_go(self) -> bool:
        """(6)"""
        rows = self.index.replicas_out.let_go(AT_ONCE)
        for row in rows:
            if row.entry is not None:
                self.statements.make("replica.release", SYSTEM, None, [row.entry], self._key_of(row.tag))
            self.index.replicas_out.drop(row.tag, row.node)
        return bool(rows)

    def _key_of(self, tag: bytes) -> StudyKey | None:
        """The study's key, while it is held."""
        tree = self.index.trees.by_tag(tag)
        return None if tree is None or tree.study is None or tree.origin is not None else self.key(tree.study)
