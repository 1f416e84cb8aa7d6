"""How a consortium changes itself: proposals, votes, and what takes effect when enough members said yes. Pure.

More than two thirds of the active members decide, each with one vote; who proposes says yes. A vote may be changed
while the proposal is open. What makes no sense (a vote on what is decided, a card that is a member's already) is kept
on the log and has no effect: a node must not be stopped by what others decided in the meantime.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ledger import terms
from ledger.errors import LedgerError
from ledger.genesis import Card, open_card
from ledger.members import Member, MemberKey, Outcome, Proposal, State, validators

OPEN_PER_MEMBER: Final = 8
"""Proposals that one member may have open at once; what it proposes besides has no effect."""
DECIDED_KEPT: Final = 64
"""Decided proposals that the state keeps; the log has them all."""


def propose(state: State, id: bytes, node: bytes, body: bytes, height: int) -> State:
    """The state after a `gov.propose` entry of an active member."""
    if sum(row.node == node and row.outcome is None for row in state.proposals) >= OPEN_PER_MEMBER:
        return state
    proposal = proposed(state, id, node, body, height)
    return _settled(replace(state, proposals=(*state.proposals, proposal)), height)


def proposed(state: State, id: bytes, node: bytes, body: bytes, height: int) -> Proposal:
    """The proposal that a body makes, with its proposer's yes. Raises CodecError, SignatureInvalid for a bad card."""
    said = terms.read("gov.propose", body)
    encoded, member, power = said.get("c"), said.get("m"), said.get("w")
    about = state.members.get(member) if isinstance(member, bytes) else None
    card = open_card(encoded) if isinstance(encoded, bytes) else None
    return Proposal(
        id=id,
        node=node,
        do=str(said["do"]),
        name=card.name if card is not None else about.name if about is not None else "",
        member=member if isinstance(member, bytes) else None,
        card=card,
        power=power if isinstance(power, int) else None,
        votes=((node, True),),
        made=height,
    )


def vote(state: State, proposal: bytes, node: bytes, yes: bool, height: int) -> State:
    """The state after a `gov.vote` entry of an active member; a proposer's no withdraws its proposal."""
    found = next((row for row in state.proposals if row.id == proposal and row.outcome is None), None)
    if found is None:
        return state
    if node == found.node and not yes:
        return _settled(_with(state, _closed(found, "withdrawn", height)), height)
    votes = {**dict(found.votes), node: yes}
    return _settled(_with(state, replace(found, votes=tuple(sorted(votes.items())))), height)


def effect(state: State, proposal: Proposal, height: int) -> State | None:
    """The state in which the proposal took effect; None when it cannot (any more)."""
    member = None if proposal.member is None else state.members.get(proposal.member)
    if proposal.do != terms.ENROLL and (member is None or not member.active):
        return None
    match proposal.do, member, proposal.card:
        case terms.ENROLL, None, Card() as card if _is_free(state, card, None):
            if card.node in state.members:
                return None
            return state.with_members(Member(card.node, card, (MemberKey(card.key, 0),), card.power, joined=height))
        case terms.ROTATE, Member() as of, Card() as card if card.name == of.name and _is_free(state, card, of):
            return state.with_members(_rotated(of, card))
        case terms.RETIRE, Member() as of, None:
            return _votable(state.with_members(replace(of, power=0, retired=height)))
        case terms.POWER, Member() as of, None if proposal.power is not None:
            return _votable(state.with_members(replace(of, power=proposal.power)))
    return None


def _rotated(member: Member, card: Card) -> Member:
    """The member with a new card: another key waits until it signs an entry, and the one in use stays until then."""
    used = tuple(row for row in member.keys if row.first is not None)
    if card.key == used[-1].key:
        return replace(member, card=card, keys=used)
    return replace(member, card=card, keys=(*used, MemberKey(card.key, None)))


def _is_free(state: State, card: Card, of: Member | None) -> bool:
    """Whether no other member has, or had, this name or one of these keys; the member itself not for another time."""
    for member in state.members.values():
        known = {row.key for row in member.keys}
        if of is not None and member.node == of.node:
            # A key once given up is not taken into use again.
            if card.key in known - set(member.usable()):
                return False
            continue
        taken = member.active and (
            card.name == member.name
            or card.consensus == member.card.consensus
            or card.cosigner == member.card.cosigner
            or card.certificate == member.card.certificate
        )
        if taken or card.key in known:
            return False
    return True


def _votable(state: State) -> State | None:
    """The state, unless CometBFT would be left without a validator, or the consortium without a member."""
    return state if validators(state) and state.active else None


def _settled(state: State, height: int) -> State:
    """The state with every proposal decided that can be; one decision may change what others need."""
    while True:
        due = [(row, outcome) for row in state.proposals if row.outcome is None and (outcome := _outcome(state, row))]
        if not due:
            return _trimmed(state)
        proposal, outcome = due[0]
        changed = None
        if outcome == "accepted":
            try:
                changed = effect(state, proposal, height)
            except LedgerError:
                changed = None
            outcome = "void" if changed is None else "accepted"
        state = _with(changed or state, _closed(proposal, outcome, height))


def _outcome(state: State, proposal: Proposal) -> Outcome | None:
    """What the votes of those who are active now amount to; None while it is open."""
    votes = [yes for node, yes in proposal.votes if (voter := state.members.get(node)) and voter.active]
    if votes.count(True) >= state.quorum:
        return "accepted"
    return "rejected" if votes.count(False) > len(state.active) - state.quorum else None


def _closed(proposal: Proposal, outcome: Outcome, height: int) -> Proposal:
    """A decided proposal, without the card: what it changed is in the state, and the log has it."""
    return replace(proposal, card=None, outcome=outcome, decided=height)


def _with(state: State, proposal: Proposal) -> State:
    return replace(state, proposals=tuple(proposal if row.id == proposal.id else row for row in state.proposals))


def _trimmed(state: State) -> State:
    decided = [row for row in state.proposals if row.outcome is not None]
    former = {row.id for row in decided[: max(0, len(decided) - DECIDED_KEPT)]}
    if not former:
        return state
    return replace(state, proposals=tuple(row for row in state.proposals if row.id not in former))
