"""The consortium's state as values: members, their keys and chains, proposals, evidence. Pure.

Every value is immutable and has one canonical encoding, so that all nodes that applied the same entries hold the same
bytes. There is no clock, no randomness, no float and no order of a set in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from ledger import codec, keys
from ledger.entry import GENESIS
from ledger.errors import CodecError
from ledger.genesis import Card, Genesis, Parameters, open_card

VERSION: Final = 1
MAX_SIZE: Final = 256 * 1024 * 1024  # bytes of an encoded state
Outcome = Literal["accepted", "rejected", "withdrawn", "void"]


class MemberKey(NamedTuple):
    """A ledger key (32 bytes) and the sequence of the first entry that it signed; None while it has signed none."""

    key: bytes
    first: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """A hospital of the consortium.

    `node` is its id (16 bytes: of its first ledger key, for ever); `card` the newest that the members accepted; `keys`
    its ledger keys in the order of their use, the last one perhaps not used yet; `power` its validator's voting power,
    0 for none; `joined` and `retired` the heights at which (0: a first member; None: it is active).
    """

    node: bytes
    card: Card
    keys: tuple[MemberKey, ...]
    power: int
    joined: int = 0
    retired: int | None = None

    @property
    def name(self) -> str:
        """Its name in the consortium."""
        return self.card.name

    @property
    def active(self) -> bool:
        """Whether its entries are taken and its votes count."""
        return self.retired is None

    def key_at(self, sequence: int) -> bytes:
        """The ledger key that its entry of this sequence is signed with."""
        used = [row.key for row in self.keys if row.first is not None and row.first <= sequence]
        return used[-1] if used else self.keys[0].key

    def usable(self) -> tuple[bytes, ...]:
        """The keys that its next entry may be signed with: the one in use, and one that is to follow it."""
        waiting = tuple(row.key for row in self.keys if row.first is None)
        return (self.keys[-1 - len(waiting)].key, *waiting)


class Chain(NamedTuple):
    """Where a node's chain stands: its next sequence, the hash of its last envelope (zeros before the first)."""

    sequence: int = 0
    previous: bytes = GENESIS


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that a member proposed.

    `id` is its entry's; `node` who proposed it; `do` "enroll", "rotate", "retire" or "power"; `member` whom it is about
    (None: enroll); `card` the card to take in, None when there is none, or no more, because it is decided; `power` the
    voting power to give; `votes` who said what, by node id; `made` at which height, `outcome` what became of it (None:
    open), at the height `decided`. `name` is that of the member it is about.
    """

    id: bytes
    node: bytes
    do: str
    name: str
    member: bytes | None
    card: Card | None
    power: int | None
    votes: tuple[tuple[bytes, bool], ...]
    made: int
    outcome: Outcome | None = None
    decided: int | None = None


class Evidence(NamedTuple):
    """That a validator lied: kind as ABCI has it (1 duplicate vote, 2 light client attack), its address (20 bytes).

    `node` is the member whose validator it is, empty when nobody's now; `height` and `time_us` are those of the lie.
    """

    kind: int
    address: bytes
    node: bytes
    height: int
    time_us: int


@dataclass(frozen=True, slots=True)
class State:
    """All that the consortium decides by, after some block.

    `members` and `chains` are by node id, in the order of these; `proposals` those that are open and the latest that
    are decided, in the order they were made; `evidence` the latest, oldest first.
    """

    ledger: bytes
    parameters: Parameters
    members: Mapping[bytes, Member]
    chains: Mapping[bytes, Chain]
    proposals: tuple[Proposal, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def active(self) -> tuple[Member, ...]:
        """The members that are not retired."""
        return tuple(member for member in self.members.values() if member.active)

    @property
    def quorum(self) -> int:
        """How many active members are more than two thirds of them."""
        return 2 * len(self.active) // 3 + 1

    def chain(self, node: bytes) -> Chain:
        """Where a node's chain stands."""
        return self.chains.get(node, Chain())

    def of_key(self, key: bytes) -> Member | None:
        """The member that has, or had, this ledger key."""
        return next((member for member in self.members.values() if any(row.key == key for row in member.keys)), None)

    def named(self, name: str) -> Member | None:
        """The member of this name; an active one before a retired one."""
        found = [member for member in self.members.values() if member.name == name]
        return min(found, key=lambda member: not member.active, default=None)

    def with_members(self, *changed: Member) -> State:
        """The state with these members taken in or replaced."""
        members = {**self.members, **{member.node: member for member in changed}}
        return replace(self, members={node: members[node] for node in sorted(members)})


def initial(genesis: Genesis) -> State:
    """The state before the first block."""
    members = {
        card.node: Member(card.node, card, (MemberKey(card.key, 0),), card.power)
        for card in sorted(genesis.cards, key=lambda card: card.node)
    }
    return State(genesis.ledger, genesis.parameters, members, {})


def validators(state: State) -> Mapping[bytes, int]:
    """CometBFT's validators: consensus key (32 bytes) and voting power, in the order of the keys."""
    power = {member.card.consensus: member.power for member in state.active if member.power}
    return {key: power[key] for key in sorted(power)}


def validator_updates(before: State, after: State) -> list[tuple[bytes, int]]:
    """What CometBFT must be told of its validators between two states: consensus key, new power (0: no more)."""
    was, now = validators(before), validators(after)
    return [(key, now.get(key, 0)) for key in sorted({*was, *now}) if was.get(key) != now.get(key)]


def encode(state: State) -> bytes:
    """The canonical encoding: a map of `v`, and of lists in the order of node ids or of events."""
    parameters = state.parameters
    chains = [[node, *state.chains[node]] for node in sorted(state.chains)]
    members = [_member(state.members[node]) for node in sorted(state.members)]
    proposals = [_proposal(proposal) for proposal in state.proposals]
    # Written out in canonical order, for cards are most of it and seldom change.
    return b"".join(
        (
            codec.head(5, 7),
            *(b"\x61v", codec.head(0, VERSION)),
            *(b"\x62ch", codec.encode(chains, MAX_SIZE)),
            *(b"\x62ev", codec.encode(state.evidence, MAX_SIZE)),
            *(b"\x62lg", codec.encode(state.ledger)),
            *(b"\x62mb", codec.head(4, len(members)), *members),
            *(b"\x62pp", codec.head(4, len(proposals)), *proposals),
            b"\x62pr",
            codec.encode([parameters.transaction_bytes, parameters.block_entries, parameters.block_bytes]),
        )
    )


def decode(encoded: bytes) -> State:
    """The state of exactly these bytes; raises CodecError for anything but the one encoding of one."""
    value: Any = codec.decode(encoded, MAX_SIZE)
    try:
        members = [
            Member(node, _opened(card), tuple(MemberKey(*key) for key in known), power, joined, retired)
            for node, card, known, power, joined, retired in value["mb"]
        ]
        proposals = tuple(
            Proposal(
                *(id, node, do, name, member, None if card is None else _opened(card), power),
                *(tuple((voter, yes) for voter, yes in votes), made, outcome, decided),
            )
            for id, node, do, name, member, card, power, votes, made, outcome, decided in value["pp"]
        )
        state = State(
            ledger=value["lg"],
            parameters=Parameters(*value["pr"]),
            members={member.node: member for member in members},
            chains={node: Chain(sequence, previous) for node, sequence, previous in value["ch"]},
            proposals=proposals,
            evidence=tuple(Evidence(*row) for row in value["ev"]),
        )
        again = encode(state)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise CodecError("not a state", "state") from None
    if again != encoded:
        raise CodecError("not the encoding of a state", "state")
    return state


def state_hash(state: State) -> bytes:
    """SHA-256 of the canonical encoding: what block records hold as `st`."""
    return hashlib.sha256(encode(state)).digest()


def kid(key: bytes) -> bytes:
    """The 8 bytes by which an envelope names a key."""
    return keys.key_id(key)


# A state is decoded after each block by every process that reads it; cards are most of it and seldom change.
_opened = lru_cache(4096)(open_card)


@lru_cache(4096)
def _member(member: Member) -> bytes:
    known = [[row.key, row.first] for row in member.keys]
    return codec.encode([member.node, member.card.signed, known, member.power, member.joined, member.retired], MAX_SIZE)


def _proposal(proposal: Proposal) -> bytes:
    card = None if proposal.card is None else proposal.card.signed
    return codec.encode(
        [
            *(proposal.id, proposal.node, proposal.do, proposal.name, proposal.member, card, proposal.power),
            *(proposal.votes, proposal.made, proposal.outcome, proposal.decided),
        ],
        MAX_SIZE,
    )
