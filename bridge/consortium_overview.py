"""How a consortium stands, read from the shared log's database and genesis: cheap enough for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from bridge.consortium_model import ConsortiumOverview, EvidenceOverview, MemberOverview, ProposalOverview
from ledger import entry, terms
from ledger.block_store import BlockStore, Proved
from ledger.genesis import Genesis
from ledger.members import Member, Proposal, State, initial

__all__ = ["overview"]

_LINES_LOOKED_AT: Final = 1000
_PROPOSALS_SHOWN: Final = 20
_WRONGS: Final[Mapping[str, str]] = {
    "double-sign": "signed two blocks of one height",
    "light-client": "signed a chain that is not this one",
    "equivocation": "signed two different logs of one size",
}
"""Kinds of evidence in words."""


def overview(store: BlockStore, genesis: Genesis, own: bytes) -> ConsortiumOverview:
    """As the node `own` (16 bytes) sees it now. Raises LedgerError for a database that cannot be read."""
    consensus, size = store.consensus(), store.size()
    state = consensus.state() or initial(genesis)
    block = store.block_at(consensus.height)
    waiting = store.outbox(1)
    signed = _signed(store, state)
    return ConsortiumOverview(
        name=genesis.name,
        ledger=state.ledger,
        height=consensus.height,
        block_us=block.time_ns // 1000 if block is not None else None,
        size=size,
        members=tuple(_member(store, state, member, own, signed) for member in _ordered(state)),
        quorum=state.quorum,
        cosigned=_by_quorum(signed, state.quorum),
        outbox=store.waiting(),
        waiting_since=entry.read(waiting[0].envelope).time_us if waiting else None,
        proposals=tuple(_proposal(store, state, row, own) for row in _shown(state.proposals)),
        evidence=tuple(_evidence(state, proved) for proved in store.evidence()),
    )


def _ordered(state: State) -> Sequence[Member]:
    """By name, those who are retired last."""
    return sorted(state.members.values(), key=lambda member: (not member.active, member.name))


def _signed(store: BlockStore, state: State) -> Mapping[str, int]:
    """The size of the newest checkpoint that each active member is known to have signed."""
    names = {member.name for member in state.active}
    signed: dict[str, int] = {}
    for size, name in store.newest_cosigners(_LINES_LOOKED_AT):
        if name in names:
            signed.setdefault(name, size)
    return signed


def _by_quorum(signed: Mapping[str, int], quorum: int) -> int | None:
    """A size that so many have signed, or a larger one, whose log holds it."""
    sizes = sorted(signed.values(), reverse=True)
    return sizes[quorum - 1] if len(sizes) >= quorum else None


def _member(store: BlockStore, state: State, member: Member, own: bytes, signed: Mapping[str, int]) -> MemberOverview:
    tip = store.tip_of(member.node)
    return MemberOverview(
        name=member.name,
        node=member.node,
        own=member.node == own,
        active=member.active,
        power=member.power,
        url=member.card.url,
        entries=state.chain(member.node).sequence,
        last_us=entry.read(tip[1]).time_us if tip is not None else None,
        cosigned=signed.get(member.name) if member.active else None,
    )


def _shown(proposals: Sequence[Proposal]) -> Sequence[Proposal]:
    """Open ones first, then the latest that were decided."""
    open_ = [row for row in proposals if row.outcome is None]
    decided = [row for row in reversed(proposals) if row.outcome is not None]
    return [*open_, *decided[:_PROPOSALS_SHOWN]]


def _proposal(store: BlockStore, state: State, row: Proposal, own: bytes) -> ProposalOverview:
    block, votes = store.block_at(row.made), dict(row.votes)
    return ProposalOverview(
        id=row.id,
        what=_motion(row),
        by=_name(state, row.node),
        time_us=block.time_ns // 1000 if block is not None else None,
        yes=tuple(_name(state, node) for node, yes in row.votes if yes),
        no=tuple(_name(state, node) for node, yes in row.votes if not yes),
        needed=state.quorum,
        own=votes.get(own),
        state=row.outcome or "open",
    )


def _motion(row: Proposal) -> str:
    """What it would change, in words."""
    return {
        terms.ENROLL: f"take in the hospital {row.name}",
        terms.ROTATE: f"new keys or addresses of {row.name}",
        terms.RETIRE: f"retire {row.name}",
        terms.POWER: f"give {row.name}’s validator the power {row.power}",
    }.get(row.do, f"{row.do} {row.name}")


def _evidence(state: State, proved: Proved) -> EvidenceOverview:
    what = f"{_WRONGS.get(proved.kind, proved.kind)} (at {proved.height:,})"
    return EvidenceOverview(_name(state, proved.node), what, proved.time_ns // 1000)


def _name(state: State, node: bytes) -> str:
    member = state.members.get(node)
    return member.name if member is not None else f"node {node.hex()[:8]}"
