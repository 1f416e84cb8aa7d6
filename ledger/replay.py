"""A shared log read from its genesis: the state machine over its entries, and its block records. Pure.

Whoever replays it needs to trust nobody: members and their keys follow from the genesis and from what more than two
thirds of the members decided in the log itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger import block, entry, keys, state
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry
from ledger.errors import CodecError, LedgerError
from ledger.genesis import Genesis
from ledger.members import Chain, Evidence, Member
from ledger.policy import Policy
from ledger.shared_policy import log_policy
from ledger.state import Grant, Opened, OpenedEntry, Refused, State
from ledger.verify import Stretch

UNKNOWN: Final = "it is of a node that was no member then"
OTHER_KEY: Final = "it is signed with a key that was not its member's then"


class BlockRow(NamedTuple):
    """A block as it is stored: entries of indices [first, size), its time in nanoseconds, its record and its hash."""

    height: int
    first: int
    size: int
    time_ns: int
    hash: bytes
    record: bytes


class SharedTrust(NamedTuple):
    """What a verifier of a shared log knows beforehand: how it began, and which member it is (None: an outsider).

    A member's own copy has checkpoints of its own keys; an outsider takes those of any member. `evidence` are the lies
    of validators that blocks may have noted, in their order: they are in no entry, yet in the state. `key` is the
    ledger key (32 bytes) that this member signs with now, which the log may not have accepted yet.
    """

    genesis: Genesis
    own: bytes | None = None
    evidence: tuple[Evidence, ...] = ()
    key: bytes | None = None

    def policy(self, at: State) -> Policy:
        """Whose checkpoints hold, by a state."""
        return log_policy(at, self.genesis.origin, self.own, self.key)


class Replay:
    """The state as it grows with `open` of each entry, in order, and `block` after the entries of each block."""

    def __init__(self, trust: SharedTrust) -> None:
        self.state: State = state.initial(trust.genesis)
        self._trust = trust
        self._grants: dict[bytes, Grant] = {}
        self._began: Member | None = None  # whose run of entries this is, as it was before the first of them
        self._evidence = list(trust.evidence)
        self._differs = False
        self._last: block.BlockRecord | None = None
        self._hash = block.FIRST

    def copy(self) -> Replay:
        """One that goes on from here by itself."""
        other = copy.copy(self)
        other._grants, other._evidence = dict(self._grants), list(self._evidence)
        return other

    def open(self, envelope: bytes, height: int = 0, verified: bytes | None = None) -> tuple[Entry | None, list[str]]:
        """The next entry, None when its signature does not verify; what does not hold.

        `height` is that of its block; where blocks are not known nothing that is decided depends on it. `verified` is a
        key with which the envelope was verified already.
        """
        try:
            parts = entry.unwrap(envelope)
            said = entry.decode(parts[1])
        except CodecError as error:
            return None, [error.detail]
        member = self.state.members.get(said.node)
        if member is None:
            return None, [UNKNOWN]
        if self._began is None or self._began.node != member.node:
            self._began = member
        key, fault = self._key(parts, member, verified)
        if key is None:
            self._passed(said, envelope)
            return None, [fault]
        opened = Opened(said.node, (OpenedEntry(envelope, entry.leaf_hash(envelope), said, key),))
        # A transaction is judged by what its member was before it: its own vote may retire it or give it another key.
        before = self.state if member is self._began else self.state.with_members(self._began)
        try:
            state.check(before, b"", self._grants.get, opened)
        except Refused as refused:
            self._passed(said, envelope)
            return said, [refused.detail]
        self.state = state.apply(self.state, opened, height)
        self._grants.update(state.grants_of(opened.entries))
        return said, []

    def go_on(self, of: Stretch) -> bool:
        """Take in a stretch of a member's entries, verified before; False when it cannot be taken as it is."""
        member = self.state.members.get(of.node)
        if member is None:
            return False
        if self._began is None or self._began.node != member.node:
            self._began = member
        # With the key in use; the first entry under the one that follows it is for `open`.
        if not self._began.active or {self._began.usable()[0], member.usable()[0]} != {of.key}:
            return False
        if of.sequence == 0 or self.state.chain(of.node) != (of.sequence, of.previous):
            return False
        self.state = self.state.with_chain(of.node, Chain(of.sequence + of.size, of.last))
        return True

    def block(self, row: BlockRow, root: bytes) -> Iterator[str]:
        """What of a block does not hold, when the log has grown to its size; `root` is that of the tree then."""
        self._began = None
        if block.app_hash(row.record) != row.hash:
            yield "its hash is not that of its record"
        try:
            record = block.decode(row.record)
        except CodecError as error:
            yield error.detail
            self._hash = block.app_hash(row.record)
            return
        last, self._last = self._last, record
        if record.ledger != self.state.ledger:
            yield "it names another ledger"
        if (record.height, record.first, record.size, record.time_us) != (*row[:3], row.time_ns // 1000):
            yield "it is stored under another height, time or entries than its record says"
        if record.previous != self._hash:
            yield "it does not continue the block before it"
        if record.first != (0 if last is None else last.size) or (last is not None and record.height <= last.height):
            yield "its height or first entry does not follow the block before it"
        if record.root != root:
            yield "its root is not that of the entries"
        if not self._differs and not self._stands(record.state):
            self._differs = True  # and all that follow
            yield "the state after it is another than its entries give"
        self._hash = block.app_hash(row.record)

    @property
    def tip(self) -> tuple[int, bytes]:
        """Height and app hash of the last block; 0 and nothing before the first."""
        return (0, b"") if self._last is None else (self._last.height, self._hash)

    @property
    def size(self) -> int:
        """How many entries the blocks so far have."""
        return 0 if self._last is None else self._last.size

    def head(self, note: str) -> Checkpoint:
        """The tree head of a checkpoint that a member signed, this one when it is its own copy. Raises LedgerError."""
        return self._trust.policy(self.state).accept(note).head

    def _key(
        self, parts: tuple[bytes, bytes, bytes], member: Member, verified: bytes | None
    ) -> tuple[bytes | None, str]:
        """The member's key that verifies an unwrapped envelope; else what does not hold."""
        kid = parts[0][-keys.KID_SIZE :]
        began = self._began or member
        key = next((one for one in (*began.usable(), *member.usable()) if keys.key_id(one) == kid), None)
        if key is None:
            return None, OTHER_KEY
        try:
            if key != verified:
                entry.check_signature(parts, key)
        except LedgerError as error:
            return None, error.detail
        return key, ""

    def _passed(self, said: Entry, envelope: bytes) -> None:
        """Go on behind an entry that does not hold, so that those after it are judged by themselves."""
        self.state = self.state.with_chain(said.node, Chain(said.sequence + 1, entry.envelope_hash(envelope)))

    def _stands(self, expected: bytes) -> bool:
        """Whether the state is the one with this hash, with the next lies of validators where it takes them."""
        after = self.state
        for count in range(len(self._evidence) + 1):
            if state.state_hash(after) == expected:
                self.state = after
                del self._evidence[:count]
                return True
            if count < len(self._evidence):
                lie = self._evidence[count]
                after = state.note_evidence(after, lie.kind, lie.address, lie.height, lie.time_us)
        return False
