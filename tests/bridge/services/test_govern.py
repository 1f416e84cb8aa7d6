"""Proposing and voting: what would have no effect is refused before it is stated, and said why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from bridge.errors import ConfigError, NotFound, RequestError
from bridge.model import OPERATOR, FinalEntry
from bridge.services.govern import Governance
from bridge.services.statement import Statements
from ledger.genesis import Card
from ledger.members import Member, Proposal, State
from tests.ledger.ledger_hospitals import HOSPITALS, Hospital, Ledger, joined

A, B, C, D = HOSPITALS


class Seen:
    """The Consortium port over a ledger in memory, as hospital A sees it."""

    def __init__(self, ledger: Ledger, hospital: Hospital = A) -> None:
        self.ledger, self.hospital = ledger, hospital

    def own(self) -> Member | None:
        return self.ledger.state.members.get(self.hospital.node)

    def members(self) -> Sequence[Member]:
        return sorted(self.ledger.state.members.values(), key=lambda member: (not member.active, member.name))

    def proposals(self) -> Sequence[Proposal]:
        return self.ledger.state.proposals

    def state(self) -> State:
        return self.ledger.state

    def entry(self, id: bytes) -> FinalEntry | None:
        return None

    def follow(self, after: int, types: Sequence[str]) -> Sequence[FinalEntry]:
        return ()

    def made(self, root: bytes, final: bool) -> bytes | None:
        return None


class Said:
    """Takes statements straight to the ledger."""

    def __init__(self, ledger: Ledger, hospital: Hospital = A) -> None:
        self.ledger, self.hospital = ledger, hospital
        self.details: list[Mapping[str, object]] = []

    def make(self, kind: str, actor: object, body: object, refs: Any = (), detail: Any = None) -> bytes:
        self.details.append(detail)
        return self.ledger.say(self.hospital, (kind, body, list(refs)))[0]


def governance(ledger: Ledger, hospital: Hospital = A) -> Governance:
    return Governance(Seen(ledger, hospital), cast(Statements, Said(ledger, hospital)))


def propose(of: Governance, do: str, member: str = "", card: Card | None = None, power: int | None = None) -> bytes:
    return of.propose(OPERATOR, of.plan(do, member, card, power))


def test_what_is_proposed_and_voted_takes_effect() -> None:
    ledger = joined()
    id = propose(governance(ledger), "retire", "h3")
    assert governance(ledger).proposal(id.hex()[:8].upper()).id == id
    for hospital in (B, C):
        governance(ledger, hospital).vote(OPERATOR, id, True)
    assert [member.name for member in ledger.state.active if member.name == "h3"] == []
    propose(governance(ledger), "power", "h1", power=4)
    propose(governance(ledger), "enroll", "", Hospital("h7").card())
    propose(governance(ledger), "rotate", B.node.hex(), B.with_key("b two").card())
    assert [row.do for row in ledger.state.proposals] == ["retire", "power", "enroll", "rotate"]


def test_what_would_have_no_effect_is_refused_with_the_reason() -> None:
    ledger = joined((A,))
    of = governance(ledger)
    before = ledger.height
    acts: list[tuple[str, Callable[[], bytes]]] = [
        ("name or one of these keys", lambda: propose(of, "enroll", "", A.card())),
        ("not of this member", lambda: propose(of, "rotate", "h0", Hospital("h9").card())),
        ("no validator", lambda: propose(of, "power", "h0", power=0)),
        ("no member, would", lambda: propose(of, "retire", "h0")),
        ("from 0 to 1,048,576", lambda: propose(of, "power", "h0", power=-1)),
        ("no such change", lambda: propose(of, "enroll", "h0")),
        ("no such change", lambda: propose(of, "crown", "h0")),
    ]
    for why, act in acts:
        with pytest.raises(RequestError, match=why):
            act()
    for unknown in ("h9", "", A.node.hex()[:8]):
        with pytest.raises(NotFound):
            propose(of, "retire", unknown)
    assert ledger.height == before


def test_proposals_are_named_by_id_and_votes_are_on_open_ones() -> None:
    ledger = joined()
    of = governance(ledger)
    id = propose(of, "power", "h1", power=2)
    for name, error in (("xyz", RequestError), ("abc", RequestError), ("0" * 64, NotFound), ("g" * 8, RequestError)):
        with pytest.raises(error):
            of.proposal(name)
    with pytest.raises(NotFound):
        of.vote(OPERATOR, bytes(32), True)
    of.vote(OPERATOR, id, False)
    with pytest.raises(RequestError, match="withdrawn"):
        of.vote(OPERATOR, id, True)


def test_no_more_is_proposed_than_has_an_effect() -> None:
    ledger = joined()
    of = governance(ledger)
    for number in range(8):
        propose(of, "power", "h1", power=number)
    with pytest.raises(RequestError, match="open"):
        propose(of, "power", "h1", power=9)


def test_who_is_no_active_member_has_no_say() -> None:
    ledger = joined()
    stranger = governance(ledger, Hospital("h9"))
    with pytest.raises(ConfigError):
        propose(stranger, "retire", "h1")
    id = propose(governance(ledger), "retire", "h3")
    for hospital in (B, C):
        governance(ledger, hospital).vote(OPERATOR, id, True)
    with pytest.raises(ConfigError):
        governance(ledger, D).vote(OPERATOR, id, True)
