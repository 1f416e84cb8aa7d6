"""An older checkpoint that somebody kept, held against the log as it is now.

Whoever holds a log's key can sign another history, cut the log short or restore an old copy of it; each contradicts any
checkpoint that was signed later or otherwise, and is named here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ledger import merkle, proof
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, ProofInvalid
from ledger.finding import Finding
from ledger.policy import Accepted, Policy


def read(text: str, policy: Policy) -> Accepted:
    """The signed tree head in a checkpoint, or in a proof, which is verified whole. Raises LedgerError, as both do."""
    if text.startswith(proof.FIRST_LINE):
        proved = proof.verify_under(text, policy)
        return Accepted(proved.head, proved.log, proved.cosigned)
    return policy.accept(text)


def contradictions(kept: Checkpoint, size: int, root_at: Callable[[int], bytes]) -> list[Finding]:
    """What of a log of `size` entries contradicts a checkpoint that its key has signed before; empty when nothing does.

    `root_at` gives the root over the log's first so many entries.
    """
    place = f"checkpoint {kept.size}"
    if kept.size > size:
        what = f"the log was truncated or an older copy of it restored: it holds {size} entries of {kept.size}"
        return [Finding(place, what)]
    if root_at(kept.size) != kept.root:
        return [Finding(place, second_history(kept.size))]
    return []


def unproved(kept: Checkpoint, now: Checkpoint, path: Sequence[bytes]) -> list[Finding]:
    """What keeps a consistency proof (RFC 9162 section 2.1.4) from leading from one tree head to another of the log."""
    older, newer = (kept, now) if kept.size <= now.size else (now, kept)
    try:
        merkle.verify_consistency(older.size, newer.size, older.root, newer.root, path)
    except ProofInvalid as error:
        return [Finding("consistency", f"from {older.size} to {newer.size} entries: {error.detail}")]
    return []


def second_history(size: int) -> str:
    """What it means when two roots over the same number of entries were signed."""
    return f"a second history was signed with the same key: the first {size} entries are not those of this checkpoint"


def unreadable(error: LedgerError) -> Finding:
    """A kept checkpoint that this log's key has not signed, or that is none."""
    return Finding("kept checkpoint", f"{error} (another log, or one made anew under another key)")
