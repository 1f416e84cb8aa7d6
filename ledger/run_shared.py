"""A run of a shared log read by itself: whose entries these are, and with which of its keys each is signed.

What a member may state, and which of its keys it had then, the log before the run decides: that is left for who replays
it (`ledger.replay`). So the costly part, the signatures, is done apart, and little is left to be done in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ledger import entry, keys
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.keys import PublicKey
from ledger.members import State
from ledger.policy import Policy
from ledger.run import Run
from ledger.shared_policy import log_policy
from ledger.state import STATING
from ledger.verify import LogCheck, Stated, Step, Stretch, read_head


class Known(NamedTuple):
    """What runs are read by: the ledger, whose copy it is, members' keys by node and key id, who signs the log."""

    ledger: bytes
    own: bytes | None
    keys: Mapping[tuple[bytes, bytes], PublicKey]
    policy: Policy

    @classmethod
    def of(cls, state: State, origin: str, own: bytes | None, key: bytes | None = None) -> Known:
        """By the newest state: members keep the keys that they had. `key` as of `log_policy`."""
        rows = ((member.node, row.key) for member in state.members.values() for row in member.keys)
        known = {(node, keys.key_id(key)): keys.raw(key) for node, key in rows}
        return cls(state.ledger, own, known, log_policy(state, origin, own, key))


class SharedRunCheck(LogCheck):
    """Steps 1 to 3 of `ledger.verify_shared` over a run, as far as it can be judged by itself."""

    def __init__(self, known: Known, run: Run, signatures: bool) -> None:
        super().__init__(signatures=signatures)
        self._known = known
        self._ends = {size for size, _ in run.checkpoints}  # of blocks
        self.steps: list[Step] = []

    def opened(self, index: int, envelope: bytes) -> Entry | None:
        """The next entry; None when it does not verify with any key of its member's."""
        try:
            parts = entry.unwrap(envelope)
            said = entry.decode(parts[1])
            kid = parts[0][-keys.KID_SIZE :]
            key = self._known.keys[said.node, kid]
            entry.check_signature(parts, key, kid)
        except (LedgerError, KeyError):
            self.report.findings.append(Finding(f"entry {index}", "it is to be looked at in its place"))
            return None
        if said.ledger != self._known.ledger:
            self.report.findings.append(Finding(f"entry {index}", "it names another ledger"))
        if said.node == self._known.own and said.type == "study.erase" and said.study is not None:
            self.report.erased.add(said.study)
        self._take(index, envelope, said, keys.raw(key))
        return said

    def root(self, said: Entry) -> bytes:
        """As of `ledger.verify_shared`."""
        return own_root(said, self._known.own)

    def head(self, size: int, note: str) -> Checkpoint | None:
        """As of `ledger.verify_shared`."""
        found, head = read_head(note, size, lambda signed: self._known.policy.accept(signed).head)
        self.report.findings += found
        return head

    def _take(self, index: int, envelope: bytes, said: Entry, key: bytes) -> None:
        if said.type in STATING or not said.sequence:
            self.steps.append(Stated(envelope, key))
            return
        hashed = entry.envelope_hash(envelope)
        last = self.steps[-1] if self.steps and index not in self._ends else None
        here = said.node, key, said.sequence, said.previous
        if isinstance(last, Stretch) and here == (last.node, last.key, last.sequence + last.size, last.last):
            self.steps[-1] = last._replace(size=last.size + 1, last=hashed)
        else:
            self.steps.append(Stretch(*here, 1, hashed))


def own_root(said: Entry, own: bytes | None) -> bytes:
    """The records root that no two entries of this node have: its `ledger.join` is over none."""
    return said.records_root if said.node == own and said.type != "ledger.join" else b""
