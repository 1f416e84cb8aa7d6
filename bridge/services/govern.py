"""Proposing and voting on changes of the consortium: what cannot take effect is refused here, where it can be told why.

The members decide by entries of the shared ledger (`ledger.governance`); this looks at the state that this node holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from bridge.errors import ConfigError, NotFound, RequestError
from bridge.model import Actor
from bridge.ports import Consortium
from bridge.services.statement import Statements
from ledger import governance, terms
from ledger.genesis import Card
from ledger.members import Member, Proposal, State

SHORTEST_ID: Final = 8
"""Digits of an id by which a proposal may be named."""
CHANGES: Final = (terms.ENROLL, terms.ROTATE, terms.RETIRE, terms.POWER)


class Plan(NamedTuple):
    """What is to be proposed: the statement's body, and which member it is about, by name."""

    body: Mapping[str, object]
    name: str


class Governance:
    """Proposals and votes of this node. Thread-safe."""

    def __init__(self, consortium: Consortium, statements: Statements) -> None:
        self._consortium = consortium
        self._statements = statements

    def plan(self, do: str, member: str = "", card: Card | None = None, power: int | None = None) -> Plan:
        """What is to be proposed, of which it is sure that it would have an effect now; nothing is stated.

        Parameters
        ----------
        do
            Of `ledger.terms`: ENROLL and ROTATE need a card, POWER a number of votes.
        member
            By name, or node id in hexadecimal; of ROTATE the one that the card names, when it is empty.

        Raises NotFound for a member that is none, RequestError with the reason for what cannot be.
        """
        own, state = self._own(), self._consortium.state()
        body: dict[str, object] = {"do": do}
        if do not in CHANGES or (card is None) is (do in (terms.ENROLL, terms.ROTATE)):
            raise RequestError("there is no such change to propose")
        name = card.name if card is not None else ""
        if do != terms.ENROLL:
            found = self.member(member or name)
            body["m"], name = found.node, found.name
        if card is not None:
            body["c"] = card.signed
        if do == terms.POWER:
            if power is None or not 0 <= power <= terms.MAX_POWER:
                raise RequestError(f"a validator’s votes are a number from 0 to {terms.MAX_POWER:,}")
            body["w"] = power
        if sum(row.node == own.node and row.outcome is None for row in state.proposals) >= governance.OPEN_PER_MEMBER:
            raise RequestError(f"{governance.OPEN_PER_MEMBER} proposals of this node are open; more have no effect")
        if why := _hindrance(state, own, body):
            raise RequestError(why)
        return Plan(body, name)

    def propose(self, actor: Actor, plan: Plan) -> bytes:
        """Put it to the vote; the statement's records root."""
        detail = {"proposed": f"{plan.body['do']} {plan.name}"}
        return self._statements.make("gov.propose", actor, plan.body, detail=detail)

    def vote(self, actor: Actor, proposal: bytes, yes: bool) -> bytes:
        """Vote on an open proposal; the statement's records root. Raises NotFound, RequestError, ConfigError."""
        self._own()
        found = next((row for row in self._consortium.proposals() if row.id == proposal), None)
        if found is None:
            raise NotFound("there is no such proposal here")
        if found.outcome is not None:
            raise RequestError(f"it is decided already: {found.outcome}")
        return self._statements.make("gov.vote", actor, {"y": yes}, [proposal], detail={"vote": _words(found)})

    def proposal(self, name: str) -> Proposal:
        """The proposal of an id in hexadecimal, or of its first digits. Raises NotFound, RequestError."""
        wanted = name.strip().lower()
        if len(wanted) < SHORTEST_ID or wanted.strip("0123456789abcdef"):
            raise RequestError(f"a proposal is named by its id, or the first {SHORTEST_ID} digits of it or more")
        found = [row for row in self._consortium.proposals() if row.id.hex().startswith(wanted)]
        if not found:
            raise NotFound("there is no such proposal here; it may not be final yet")
        if len(found) > 1:
            raise RequestError("more than one proposal has an id that begins so")
        return found[0]

    def member(self, name: str) -> Member:
        """The active member of this name, or node id in hexadecimal. Raises NotFound."""
        for member in self._consortium.members():
            if member.active and name in (member.name, member.node.hex()):
                return member
        raise NotFound("no active member has this name")

    def _own(self) -> Member:
        own = self._consortium.own()
        if own is None or not own.active:
            raise ConfigError("this node is no active member of the consortium yet, or no more")
        return own


def _hindrance(state: State, own: Member, body: Mapping[str, object]) -> str:
    """Why the proposal would have no effect now; empty when it would have one."""
    proposed = governance.proposed(state, bytes(32), own.node, terms.encode("gov.propose", body), 0)
    if governance.effect(state, proposed, 0) is not None:
        return ""
    match proposed.do:
        case terms.ENROLL:
            return "another member has, or had, this name or one of these keys"
        case terms.ROTATE:
            return "the card is not of this member, or its keys are another's or were given up before"
    return "no validator, or no member, would be left"


def _words(proposal: Proposal) -> str:
    return f"{proposal.do} {proposal.name}"
