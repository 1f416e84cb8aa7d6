"""Breaking the glass across hospitals: a member's study for a limited time, without its grant, seen by all.

Who breaks the glass
    (1) the entry `emergency.start`: whose study, until when; the reason stays in its sealed record
    (2) once it is final, the member is told which study it is about, and why
    (3) the study comes like any that is shared (services.receive_share), on the strength of that entry
    (4) it ends: at its time, or before that by the entry `emergency.end`; its keys go as those of a grant

Whose study it is
    (5) the entry is final here, of the member that asks, for this node; the policy `sharing.emergency` lets it
    (6) this node's own entry `consent.grant`, for ETREAT, about the study: what it gave, and the reason, sealed
    (7) the row that delivers the key (services.deliver_share), for `sharing.emergency_hours` at most

Both raise an alert at once (8), and both must review their own entry (`audit.review`). Whoever was broken off before
that raises it when the entry is followed on the ledger; an alert has the id of its entry, and is told once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bridge.config import Sharing as Policy
from bridge.errors import Busy, CairnError, CapacityError, EngineFault, Forbidden, NotFound, RequestError, StorageFault
from bridge.index.emergencies import Emergencies, EmergencyRow
from bridge.index.followed import FollowedTo
from bridge.index.shares import EMERGENCY, Given, GivenState
from bridge.model import Actor, FinalEntry, Tree
from bridge.services.access import SYSTEM
from bridge.services.deliver_share import again
from bridge.services.follow_shares import end as end_share
from bridge.services.share import Lane, Sharing, at_once, other_member, own_tree
from ledger.alerts import Alert, glass_broken
from ledger.members import Member
from ledger.types import EMERGENCY as PURPOSE

if TYPE_CHECKING:
    from bridge.node import Node

__all__ = ["PATH", "Glass", "glass_of"]

log = logging.getLogger(__name__)
PATH: Final = "/consortium/emergencies"
NAME: Final = "emergencies"
TYPES: Final = ("emergency.start", "emergency.end")
SEALED_S: Final = 60.0
"""How long it waits to learn the entry's id, without which the member cannot be told."""
HOUR_US: Final = 3600 * 1_000_000
SKEW_US: Final = 300 * 1_000_000
"""How much longer than `emergency_hours` a member's clock may make it."""
LONGEST_REASON: Final = 500
LONGEST_STUDY: Final = 64
OVER: Final = "the emergency is over"
BROKEN_OFF: Final = "it was broken off before the other hospital was asked"


@dataclass(frozen=True, slots=True)
class Glass:
    """What a node has to break the glass with, and to answer those who do. Thread-safe.

    `tell` records an alert, once. Every method may raise StorageFault, and as a commit.
    """

    sharing: Sharing
    rows: Emergencies
    followed: FollowedTo
    tell: Callable[[Alert], None]
    policy: Policy

    def start(self, actor: Actor, member: str, study: str, reason: str) -> EmergencyRow:
        """(1); (2) and (3) follow as soon as the entry is final.

        Parameters
        ----------
        member
            Whose study it is, by name.
        study
            Its Study Instance UID, or the study's tag there (32 hexadecimal digits).

        Raises RequestError for a member, study or reason that cannot be; Busy when the entry stands and has no id yet.
        """
        reason = reason.strip()
        if not 1 <= len(reason) <= LONGEST_REASON:
            raise RequestError(f"breaking the glass needs a reason of 1 to {LONGEST_REASON} characters")
        other, (uid, tag) = other_member(self.sharing.consortium, member), _study_named(study)
        now = self.sharing.clock()
        until = now + self.policy.emergency_hours * HOUR_US
        body = {"of": other.node, "x": until, "s": tag}
        detail = {"member": other.name, "asked": study, "reason": reason}
        root = self.sharing.statements.make("emergency.start", actor, body, (), None, PURPOSE, detail)
        entry = self.sharing.statements.entry_id(root, SEALED_S, final=False)
        if entry is None:
            raise Busy("the entry stands, and has no id before the ledger's process has sealed it; try again")
        row = EmergencyRow(entry, True, other.node, other.name, uid, tag, reason, now, until)
        self.rows.add(row)
        self._alert(row.entry, row.member, row.own, row.started)  # (8)
        return row

    def end(self, actor: Actor, entry: bytes) -> EmergencyRow:
        """(4) End one of this node's own before its time. Raises NotFound, RequestError when it is over."""
        row = self.rows.of(entry) or self._broken_off(entry)
        if row is None or not row.own:
            raise NotFound("this node has broken no glass by this entry")
        if row.stated or row.ended is not None:
            raise RequestError("it is over already")
        self.rows.change(entry, ended=self.sharing.clock())
        self.sharing.statements.make("emergency.end", actor, None, [entry], None, PURPOSE)
        self.rows.change(entry, stated=True)
        end_share(self.sharing, entry, OVER)
        return row

    def _broken_off(self, entry: bytes) -> EmergencyRow | None:
        """One of this node's own that has no row yet: written down as what is not to be asked for any more."""
        final, own = self.sharing.consortium.entry(entry), self.sharing.consortium.own()
        said = None if final is None else final.entry
        if said is None or own is None or said.type != "emergency.start" or said.node != own.node:
            return None
        other = next((one for one in self.sharing.consortium.members() if one.node == said.terms["of"]), None)
        tag, until = said.terms.get("s"), said.terms["x"]
        assert isinstance(until, int) and (tag is None or isinstance(tag, bytes))
        if other is None:
            return None
        row = EmergencyRow(entry, True, other.node, other.name, None, tag, "", said.time_us, until)
        self.rows.add(row._replace(refused=True, trouble=BROKEN_OFF))
        return self.rows.of(entry)

    def accept(self, actor: Actor, asked: Any) -> None:
        """(5) to (7) A member, by its connection, says which study it broke the glass for, and why.

        Raises RequestError for what is no such request, Busy while the entry is not final here, Forbidden when it does
        not hold or the policy does not let it, NotFound when the study is not held here.
        """
        entry, study, reason = _request(asked)
        giver = self.sharing.consortium.own()
        member = next((one for one in self.sharing.consortium.members() if one.active and one.name == actor.name), None)
        if giver is None or member is None:
            raise Forbidden("only an active member of the consortium may ask")
        final = self.sharing.consortium.entry(entry)
        if final is None:
            raise Busy("the entry is not final here yet")
        until = self._judge(final, giver, member, study)  # (5)
        tree = self._tree(study)
        assert tree.study is not None
        held = self.sharing.shares.given(entry)
        if held is not None:
            if held.study != tree.study:
                raise Forbidden("this entry was used for another study")
            return
        self._note_start(final, member)
        key = self.sharing.keys.study_key(tree.study)
        detail = {"member": member.name, "reason": reason, "emergency": entry}
        self.sharing.statements.make("consent.grant", SYSTEM, None, [entry], key, PURPOSE, detail)  # (6)
        given = Given(
            *(entry, EMERGENCY, tree.study, tree.tag, member.node, member.name, PURPOSE, self._started(final), until),
            GivenState.WAITING.value,
        )
        self.sharing.shares.give(given)  # (7)
        self.rows.change(entry, study=tree.study, tag=tree.tag, reason=reason, told=self.sharing.clock(), trouble=None)

    def step(self, lane: Lane = at_once) -> int:
        """What the ledger says since the last look, and what is to be told and stated; how much was done.

        Each member is told in a lane of its own.
        """
        return self._follow() + self._tell(lane) + self._state()

    def _judge(self, final: FinalEntry, own: Member, member: Member, study: str) -> int:
        """(5) Until when the entry holds. Raises Forbidden."""
        said, now = final.entry, self.sharing.clock()
        terms = said.terms
        if said.type != "emergency.start" or said.node != member.node or terms.get("of") != own.node:
            raise Forbidden("the entry is none by which this member broke the glass of this one")
        if self.policy.emergency == "off":
            raise Forbidden("this hospital gives nothing by breaking the glass")
        stated, longest = terms["x"], self._started(final) + self.policy.emergency_hours * HOUR_US
        assert isinstance(stated, int)
        if stated > longest + SKEW_US:
            raise Forbidden(f"an emergency lasts at most {self.policy.emergency_hours} hours here")
        tag = terms.get("s")
        if tag is not None and tag != self._tree(study).tag:
            raise Forbidden("the entry is about another study")
        row = self.rows.of(final.id)
        if stated <= now or (row is not None and row.ended is not None):
            raise Forbidden(OVER)
        return min(stated, longest)

    def _started(self, final: FinalEntry) -> int:
        """When it began: as it was first seen here, whenever the member comes and tells the study."""
        row = self.rows.of(final.id)
        return final.from_us(self.sharing.clock()) if row is None else row.started

    def _tree(self, study: str) -> Tree:
        """This node's own tree of a study, by UID or tag. Raises NotFound."""
        uid, tag = _study_named(study)
        if tag is not None:
            uid = self.sharing.keys.study_of(tag)
        if uid is None:
            raise NotFound("no such study is held")
        try:
            return own_tree(self.sharing.trees, uid)
        except RequestError as error:
            raise NotFound(error.detail) from None

    def _follow(self) -> int:
        found = self.sharing.consortium.follow(self.followed.position(NAME), TYPES)
        own = self.sharing.consortium.own()
        if not found or own is None:
            return 0
        members = {member.node: member for member in self.sharing.consortium.members()}
        for final in found:
            if final.entry.type == "emergency.end":
                self._ended(final)
            else:
                self._begun(final, own.node, members)
        self.followed.advance(NAME, found[-1].index)
        return len(found)

    def _begun(self, final: FinalEntry, own: bytes, members: Mapping[bytes, Member]) -> None:
        """(8) Somebody broke this node's glass, or this node another's: `start` may have been broken off before."""
        said = final.entry
        of, by = said.terms.get("of"), members.get(said.node)
        if of == own and by is not None:
            self._note_start(final, by)
        elif said.node == own and isinstance(of, bytes) and of in members:
            self._alert(final.id, members[of].name, True, said.time_us)

    def _note_start(self, final: FinalEntry, member: Member) -> None:
        """Write down that a member broke this node's glass, and tell it (8); what is known, and told, is left."""
        until = final.entry.terms["x"]
        assert isinstance(until, int)
        row = EmergencyRow(final.id, False, member.node, member.name, None, None, "", self._started(final), until)
        self.rows.add(row)
        self._alert(row.entry, row.member, row.own, row.started)

    def _ended(self, final: FinalEntry) -> None:
        """(4) Who broke the glass says that it is over: nothing is given from now on, and the key is renewed."""
        row = self.rows.of(final.entry.refs[0])
        if row is None or row.own or row.node != final.entry.node:
            return
        self.rows.change(row.entry, ended=final.from_us(self.sharing.clock()))
        given = self.sharing.shares.given(row.entry)
        if given is not None and given.live:
            ended = {"state": GivenState.EXPIRED.value, "ended": self.sharing.clock()}
            if self.sharing.shares.let(given, **ended):
                self.sharing.keys.next_generation(given.study)

    def _tell(self, lane: Lane) -> int:
        """(2)"""
        rows = [row for row in self.rows.to_tell(self.sharing.clock()) if self.sharing.consortium.entry(row.entry)]
        return sum(lane(row.node, partial(self._tell_one, row)) for row in rows)

    def _tell_one(self, row: EmergencyRow) -> int:
        now = self.sharing.clock()
        study = row.tag.hex() if row.tag is not None else row.study or ""
        request = {"entry": row.entry.hex(), "study": study, "reason": row.reason}
        try:
            self.sharing.listener(row.node).ask("POST", PATH, request)
        except (EngineFault, Busy, CapacityError, StorageFault) as error:
            self._later(row, error, now, refused=False)
        except CairnError as error:
            self._later(row, error, now, refused=True)
        else:
            self.rows.change(row.entry, told=now, trouble=None)
        return 1

    def _later(self, row: EmergencyRow, error: CairnError, now: int, *, refused: bool) -> None:
        log.warning("a member does not open its glass", extra={"slug": error.slug, "peer": row.member})
        tries = row.tries + 1
        self.rows.change(
            row.entry, trouble=error.detail[:200], refused=refused, tries=tries, again=again(now, min(tries, 6))
        )

    def _state(self) -> int:
        """(4) Those whose time is over."""
        rows = self.rows.to_state(self.sharing.clock())
        for row in rows:
            self.sharing.statements.make("emergency.end", SYSTEM, None, [row.entry], None, PURPOSE)
            self.rows.change(row.entry, stated=True, ended=row.ended or self.sharing.clock())
            end_share(self.sharing, row.entry, OVER)
        return len(rows)

    def _alert(self, entry: bytes, member: str, own: bool, started_us: int) -> None:
        self.tell(glass_broken(entry, member, own, started_us))


def glass_of(node: Node) -> Glass | None:
    """What breaks the glass at a node; None where it is in no consortium."""
    if node.sharing is None:
        return None
    index = node.index
    return Glass(node.sharing, index.emergencies, index.followed, node.watch.tell, node.settings.sharing)


def _study_named(study: str) -> tuple[str | None, bytes | None]:
    """A Study Instance UID, or a tag. Raises RequestError for neither."""
    if len(study) == 32 and all(digit in "0123456789abcdef" for digit in study):
        return None, bytes.fromhex(study)
    if 1 <= len(study) <= LONGEST_STUDY and all(char in "0123456789." for char in study):
        return study, None
    raise RequestError("a study is named by its Study Instance UID, or by its tag of 32 hexadecimal digits")


def _request(asked: Any) -> tuple[bytes, str, str]:
    """Entry, study and reason of a member's request. Raises RequestError."""
    try:
        entry, study, reason = bytes.fromhex(asked["entry"]), str(asked["study"]), str(asked["reason"]).strip()
    except (KeyError, TypeError, ValueError):
        raise RequestError("a request names entry, study and reason") from None
    _study_named(study)
    if len(entry) != 32 or not 1 <= len(reason) <= LONGEST_REASON:
        raise RequestError("a request names entry, study and reason")
    return entry, study, reason
