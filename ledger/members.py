"""The consortium's state as values: members, their keys and chains, proposals, evidence. Pure.

Every value is immutable and has one canonical encoding, so that all nodes that applied the same entries hold the same
bytes. There is no clock, no randomness, no float and no order of a set in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, cast

from ledger import codec, keys
from ledger.entry import GENESIS
from ledger.errors import CodecError
from ledger.genesis import Card, Genesis, Parameters, open_card

VERSION: Final = 2
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

    def with_chain(self, node: bytes, chain: Chain) -> State:
        """The state in which a node's chain stands there."""
        chains = {**self.chains, node: chain}
        # In the order of nodes, which a chain that goes on does not change.
        return replace(
            self, chains=chains if node in self.chains else {known: chains[known] for known in sorted(chains)}
        )


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
    if before.members is after.members:
        return []
    was, now = validators(before), validators(after)
    return [(key, now.get(key, 0)) for key in sorted({*was, *now}) if was.get(key) != now.get(key)]


def encode(state: State) -> bytes:
    """The canonical encoding of all of it: a map of `v`, and of lists in the order of node ids or of events."""
    # Written out in canonical order, for cards are most of it and seldom change.
    return b"".join(
        (
            codec.head(5, 7),
            *(b"\x61v", codec.head(0, VERSION)),
            *(b"\x62ch", _chains(state.chains)),
            *(b"\x62ev", _evidence(state.evidence)),
            *(b"\x62lg", codec.encode(state.ledger)),
            *(b"\x62mb", _members(state.members)),
            *(b"\x62pp", _proposals(state.proposals)),
            *(b"\x62pr", codec.encode(_listed(state.parameters))),
        )
    )


def decode(encoded: bytes) -> State:
    """The state of exactly these bytes; raises CodecError for anything but the one encoding of one."""
    value: Any = codec.decode(encoded, MAX_SIZE)
    try:
        members = [_member_of(row) for row in value["mb"]]
        state = State(
            ledger=value["lg"],
            parameters=Parameters(*value["pr"]),
            members={member.node: member for member in members},
            chains={node: Chain(sequence, previous) for node, sequence, previous in value["ch"]},
            proposals=tuple(_proposal_of(row) for row in value["pp"]),
            evidence=tuple(Evidence(*row) for row in value["ev"]),
        )
        again = encode(state)
    except _NO_STATE:
        raise CodecError("not a state", "state") from None
    if again != encoded:
        raise CodecError("not the encoding of a state", "state")
    return state


def state_hash(state: State) -> bytes:
    """What block records hold as `st`: SHA-256 of the encoding, each list in it replaced by the SHA-256 of its own.

    So a block costs what it changed: the lists are hashed again that are others than before.
    """
    value = {
        "v": VERSION,
        "ch": hashlib.sha256(_chains(state.chains)).digest(),
        "ev": _hashed("ev", state.evidence, _evidence),
        "lg": state.ledger,
        "mb": _hashed("mb", state.members, _members),
        "pp": _hashed("pp", state.proposals, _proposals),
        "pr": _listed(state.parameters),
    }
    return hashlib.sha256(codec.encode(value)).digest()


Rows: TypeAlias = Mapping[tuple[str, bytes], bytes]
"""A state in pieces, each in its canonical encoding: `mb` and `ch` by node id, the lists `pp` and `ev`, and `pr`."""


def rows(state: State) -> Rows:
    """The state in pieces, to be kept."""
    return changed_rows(None, state)


def changed_rows(before: State | None, after: State) -> Rows:
    """Those pieces of a state that are others than in the one before it; nothing is ever taken out of a state."""
    changed: dict[tuple[str, bytes], bytes] = {}
    was = before.members if before is not None else {}
    if after.members is not was:
        for node, member in after.members.items():
            if was.get(node) is not member:
                changed["mb", node] = _member(member)
    had = before.chains if before is not None else {}
    for node, chain in after.chains.items():
        if had.get(node) is not chain:
            changed["ch", node] = _chain(node, chain)
    if before is None or after.proposals is not before.proposals:
        changed["pp", b""] = _proposals(after.proposals)
    if before is None or after.evidence is not before.evidence:
        changed["ev", b""] = _evidence(after.evidence)
    if before is None:
        changed["pr", b""] = codec.encode([after.ledger, _listed(after.parameters)])
    return changed


def of_rows(held: Rows) -> State:
    """The state whose `rows` these are; raises CodecError when they are none of a state."""
    try:
        ledger, parameters = cast(Any, codec.decode(held["pr", b""]))
        members = [_member_read(row) for (kind, _), row in sorted(held.items()) if kind == "mb"]
        chains = [_chain_read(row) for (kind, _), row in sorted(held.items()) if kind == "ch"]
        proposals: Any = codec.decode(held["pp", b""], MAX_SIZE)
        evidence: Any = codec.decode(held["ev", b""], MAX_SIZE)
        return State(
            ledger=ledger,
            parameters=Parameters(*parameters),
            members={member.node: member for member in members},
            chains=dict(chains),
            proposals=tuple(_proposal_of(row) for row in proposals),
            evidence=tuple(Evidence(*row) for row in evidence),
        )
    except _NO_STATE:
        raise CodecError("not the rows of a state", "state") from None


def kid(key: bytes) -> bytes:
    """The 8 bytes by which an envelope names a key."""
    return keys.key_id(key)


_NO_STATE: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError)
# Cards are most of a state, and seldom change: a member is opened and encoded once.
_opened = lru_cache(4096)(open_card)
_T = TypeVar("_T")
_known: dict[str, tuple[object, bytes]] = {}


def _hashed(kind: str, value: _T, encoded: Callable[[_T], bytes]) -> bytes:
    """SHA-256 of a list's encoding, kept for the very value that was asked about last: values never change."""
    known = _known.get(kind)
    if known is None or known[0] is not value:
        known = _known[kind] = value, hashlib.sha256(encoded(value)).digest()
    return known[1]


def _listed(parameters: Parameters) -> list[int]:
    return [parameters.transaction_bytes, parameters.block_entries, parameters.block_bytes]


def _members(members: Mapping[bytes, Member]) -> bytes:
    return codec.head(4, len(members)) + b"".join([_member(members[node]) for node in sorted(members)])


def _chains(chains: Mapping[bytes, Chain]) -> bytes:
    return codec.head(4, len(chains)) + b"".join([_chain(node, chains[node]) for node in sorted(chains)])


def _evidence(evidence: Sequence[Evidence]) -> bytes:
    return codec.encode(evidence, MAX_SIZE)


def _proposals(proposals: Sequence[Proposal]) -> bytes:
    return codec.head(4, len(proposals)) + b"".join(map(_proposal, proposals))


@lru_cache(4096)
def _member(member: Member) -> bytes:
    known = [[row.key, row.first] for row in member.keys]
    return codec.encode([member.node, member.card.signed, known, member.power, member.joined, member.retired], MAX_SIZE)


def _member_of(row: Any) -> Member:
    node, card, known, power, joined, retired = row
    return Member(node, _opened(card), tuple(MemberKey(*key) for key in known), power, joined, retired)


@lru_cache(4096)
def _member_read(encoded: bytes) -> Member:
    return _member_of(codec.decode(encoded, MAX_SIZE))


@lru_cache(8192)
def _chain(node: bytes, chain: Chain) -> bytes:
    return codec.encode([node, *chain])


@lru_cache(8192)
def _chain_read(encoded: bytes) -> tuple[bytes, Chain]:
    node, sequence, previous = cast(Any, codec.decode(encoded))
    return node, Chain(sequence, previous)


def _proposal(proposal: Proposal) -> bytes:
    card = None if proposal.card is None else proposal.card.signed
    return codec.encode(
        [
            *(proposal.id, proposal.node, proposal.do, proposal.name, proposal.member, card, proposal.power),
            *(proposal.votes, proposal.made, proposal.outcome, proposal.decided),
        ],
        MAX_SIZE,
    )


def _proposal_of(row: Any) -> Proposal:
    id, node, do, name, member, card, power, votes, made, outcome, decided = row
    return Proposal(
        *(id, node, do, name, member, None if card is None else _opened(card), power),
        *(tuple((voter, yes) for voter, yes in votes), made, outcome, decided),
    )
