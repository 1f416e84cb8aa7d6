"""The state machine of a consortium: which transactions are taken, and what they change. Pure and deterministic.

`check` says whether a transaction may be taken in a state, `apply` gives the state after it. Both are functions of the
bytes, the state and a lookup of what earlier entries said; expiry is never judged here, but where data is served. A
transaction is refused for what its node could have known: form, signature, chain, or what only another may state. What
others decided in the meantime makes an entry without effect, never a refused one (`ledger.governance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import Final, NamedTuple

from ledger import entry, governance, keys, transaction
from ledger.entry import Entry
from ledger.errors import CodecError, LedgerError, SignatureInvalid
from ledger.genesis import open_card
from ledger.members import (
    Chain,
    Evidence,
    Member,
    MemberKey,
    Outcome,
    Proposal,
    State,
    decode,
    encode,
    initial,
    state_hash,
    validator_updates,
    validators,
)

__all__ = [
    "Chain",
    "Code",
    "Evidence",
    "Grant",
    "Lookup",
    "Member",
    "MemberKey",
    "Opened",
    "OpenedEntry",
    "Outcome",
    "Proposal",
    "Refused",
    "State",
    "apply",
    "check",
    "decode",
    "encode",
    "grants_of",
    "initial",
    "note_evidence",
    "state_hash",
    "validator_updates",
    "validators",
    "verify",
]

EVIDENCE_KEPT: Final = 64


class Code(IntEnum):
    """Why a transaction is refused, as ABCI's code; OK is 0. Numbers are for ever."""

    OK = 0
    MALFORMED = 1  # not the encoding of a transaction of entries
    UNKNOWN = 2  # of a node, or signed with a key, that is no member's
    RETIRED = 3  # of a member that is retired
    SIGNATURE = 4  # the signature does not verify
    LEDGER = 5  # of another ledger
    TAKEN = 6  # its sequence was taken before: a replay, or another history
    AHEAD = 7  # entries before it are not there yet: to be sent again
    CHAIN = 8  # it does not name the node's last entry
    JOIN = 9  # the first entry of a node, and no other, is its ledger.join
    FORBIDDEN = 10  # only another member may state that
    FULL = 11  # the block holds no more: to be sent again


class Refused(LedgerError):
    """The transaction is not taken; `code` says why."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail, "transaction")
        self.code = code


class Grant(NamedTuple):
    """Who stated a consent.grant, a replica.assign (or an emergency.start), and to which node, None for none named."""

    node: bytes
    to: bytes | None


Lookup = Callable[[bytes], Grant | None]
"""The grant or assignment of an entry id, from all entries taken before this transaction; None when it is none."""


class OpenedEntry(NamedTuple):
    """An envelope, its leaf, the entry in it, and the public key that verified it."""

    envelope: bytes
    leaf: bytes
    entry: Entry
    key: bytes


class Opened(NamedTuple):
    """A transaction whose signatures verified: its node, and its entries in order."""

    node: bytes
    entries: tuple[OpenedEntry, ...]


def verify(state: State, tx: bytes) -> Opened:
    """Form and signatures of a transaction: the costly part, whose outcome may be kept for `check`.

    Raises Refused with MALFORMED, UNKNOWN, RETIRED, SIGNATURE.
    """
    if len(tx) > state.parameters.transaction_bytes:
        raise Refused(Code.MALFORMED, f"a transaction has at most {state.parameters.transaction_bytes} bytes")
    try:
        envelopes = transaction.decode(tx)
        parts = [entry.unwrap(envelope) for envelope in envelopes]
        entries = [entry.decode(payload) for _, payload, _ in parts]
        for said in entries:
            _open_cards(said)
    except SignatureInvalid as error:
        raise Refused(Code.SIGNATURE, error.detail) from error
    except CodecError as error:
        raise Refused(Code.MALFORMED, error.detail) from error
    node = entries[0].node
    if any(said.node != node for said in entries):
        raise Refused(Code.MALFORMED, "entries of more than one node")
    usable = {keys.key_id(key): key for key in _member(state, node).usable()}
    opened = []
    for envelope, part, said in zip(envelopes, parts, entries, strict=True):
        kid = part[0][5:]
        if kid not in usable:
            raise Refused(Code.UNKNOWN, "signed with a key that is not the member's now")
        key = usable[kid]
        try:
            entry.check_signature(part, key, kid)
        except SignatureInvalid as error:
            raise Refused(Code.SIGNATURE, error.detail) from error
        opened.append(OpenedEntry(envelope, entry.leaf_hash(envelope), said, key))
    return Opened(node, tuple(opened))


def check(state: State, tx: bytes, lookup: Lookup, opened: Opened | None = None) -> Opened:
    """The transaction, opened, when it may be taken in this state; raises Refused.

    `opened` is what `verify` gave for these very bytes, at any time before: its keys are looked at again.
    """
    if opened is None:
        opened = verify(state, tx)
    member = _member(state, opened.node)
    sequence, previous = state.chain(opened.node)
    usable = list(member.usable())
    stated: dict[bytes, Grant] = {}
    for item in opened.entries:
        said = item.entry
        if item.key not in usable:
            raise Refused(Code.UNKNOWN, "signed with a key that is not the member's now")
        del usable[: usable.index(item.key)]  # the new key in use, the former is no more
        if said.ledger != state.ledger:
            raise Refused(Code.LEDGER, "an entry of another ledger")
        if said.sequence != sequence:
            code = Code.TAKEN if said.sequence < sequence else Code.AHEAD
            raise Refused(code, f"sequence {said.sequence}, where {sequence} comes next")
        if said.previous != previous:
            raise Refused(Code.CHAIN, "it does not continue the node's last entry")
        if (said.type == "ledger.join") != (sequence == 0):
            raise Refused(Code.JOIN, "a node begins with its ledger.join, and joins once")
        _judge(said, lambda id: stated.get(id) or lookup(id))
        stated.update(grants_of([item]))
        sequence, previous = sequence + 1, entry.envelope_hash(item.envelope)
    return opened


def apply(state: State, opened: Opened, height: int) -> State:
    """The state after a transaction that `check` let pass in this very state, in the block of this height."""
    node = opened.node
    for item in opened.entries:
        state = _use(state, node, item)
        said = item.entry
        if said.type == "gov.propose" and said.body is not None:
            state = governance.propose(state, item.leaf, node, said.body, height)
        elif said.type == "gov.vote":
            state = governance.vote(state, said.refs[0], node, bool(said.terms["y"]), height)
    last = opened.entries[-1]
    return state.with_chain(node, Chain(last.entry.sequence + 1, entry.envelope_hash(last.envelope)))


def grants_of(entries: Sequence[OpenedEntry]) -> Mapping[bytes, Grant]:
    """What a `Lookup` must find from now on: grants and assignments among entries that were taken, by id."""
    found = {}
    for item in entries:
        if item.entry.type in _GRANTING:
            to = item.entry.terms.get("to")
            found[item.leaf] = Grant(item.entry.node, to if isinstance(to, bytes) else None)
    return found


def note_evidence(state: State, kind: int, address: bytes, height: int, time_us: int) -> State:
    """The state with evidence of a validator's lie, as CometBFT hands it over; the latest 64 are kept."""
    node = next((row.node for row in state.members.values() if row.card.validator == address), b"")
    evidence = (*state.evidence, Evidence(kind, address, node, height, time_us))
    return replace(state, evidence=evidence[-EVIDENCE_KEPT:])


_GRANTING: Final = frozenset({"consent.grant", "replica.assign"})
_BY_GRANTER: Final = frozenset({"consent.revoke", "replica.release"})
_BY_RECEIVER: Final = frozenset({"share.receipt", "share.end", "replica.receipt"})
STATING: Final = _GRANTING | _BY_GRANTER | _BY_RECEIVER | {"ledger.join", "gov.propose", "gov.vote"}
"""Types whose entries change, or are judged by, more than their node's chain."""


def _judge(said: Entry, lookup: Lookup) -> None:
    """Only who granted may revoke, and only to whom it was granted may confirm.

    What is referred to and is no grant on this ledger (as one of a solo log before) has no effect and is let be.
    """
    for ref in said.refs if said.type in _BY_GRANTER | _BY_RECEIVER else ():
        grant = lookup(ref)
        if grant is None:
            continue
        if said.type in _BY_GRANTER and grant.node != said.node:
            raise Refused(Code.FORBIDDEN, f"{said.type} of what another member granted")
        if said.type in _BY_RECEIVER and grant.to != said.node:
            raise Refused(Code.FORBIDDEN, f"{said.type} of what was granted to another member")


def _member(state: State, node: bytes) -> Member:
    member = state.members.get(node)
    if member is None:
        raise Refused(Code.UNKNOWN, "of a node that is no member")
    if not member.active:
        raise Refused(Code.RETIRED, "of a member that is retired")
    return member


def _open_cards(said: Entry) -> None:
    """A proposal's card must be one: whoever proposes could have known."""
    if said.type == "gov.propose":
        card = said.terms.get("c")
        if isinstance(card, bytes):
            open_card(card)


def _use(state: State, node: bytes, item: OpenedEntry) -> State:
    """The state in which the key of an entry is in use: a new one is so from its first entry on."""
    member = state.members[node]
    last = member.keys[-1]
    if last.first is not None or last.key != item.key:
        return state
    return state.with_members(replace(member, keys=(*member.keys[:-1], MemberKey(item.key, item.entry.sequence))))
