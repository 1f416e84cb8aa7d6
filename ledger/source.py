"""The port through which the ledger reads records: closed batches by cursor, never written to.

The bridge's index implements it. Only what is visible for good is handed out: a batch that was returned by
`closed_batches` never changes, and no batch with a lower id appears later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Cursor(NamedTuple):
    """How far the ledger has read: the source database's 16-byte epoch, the id of the last batch sealed (0: none)."""

    epoch: bytes
    id: int


@dataclass(frozen=True, slots=True)
class ClosedBatch:
    """A closed run of records, as it becomes one entry.

    `id` is its position in the order of closing, from 1; `type` a name of `ledger.types`; `time_us` when it closed, in
    microseconds since the epoch; `purpose` an HL7 v3 ActReason code; `outcome` 0, 4, 8 or 12 (PS3.15 A.5.2.1);
    `actor_kind` 0 system, 1 user, 2 device, 3 peer; `actor_tag`, `address_tag` and `study_tag` 16 bytes each (keyed or
    random, never a plain hash); `commitment` SHA-256(salt || StudyRoot CID); `records_root` the RFC 6962 root over the
    `records` leaves in order; `body` the canonical encoding of what the entry states besides (`ledger.terms`), None for
    nothing; `refs` the ids of the entries that it refers to, 32 bytes each.
    """

    id: int
    type: str
    time_us: int
    purpose: str
    outcome: int
    actor_kind: int
    actor_tag: bytes
    role: str
    address_tag: bytes | None
    study_tag: bytes | None
    commitment: bytes | None
    records_root: bytes
    records: int
    body: bytes | None = None
    refs: tuple[bytes, ...] = ()


class RecordLeaf(NamedTuple):
    """One record of a batch: its 32-byte leaf hash, and its bytes, None when the key to open them is gone."""

    leaf: bytes
    record: bytes | None


class RecordSource(Protocol):
    """Closed batches in closing order. Raises what its database raises; the ledger takes that for 'not now'."""

    def epoch(self) -> bytes:
        """16 random bytes made with the database: another epoch means that ids count anew."""

    def closed_batches(self, after: int, limit: int) -> Sequence[ClosedBatch]:
        """At most `limit` closed batches with an id above `after`, ascending."""

    def oldest_pending_us(self, after: int) -> int | None:
        """When the oldest record was written that waits for its entry, in microseconds; None when none does.

        It lies in a closed batch above `after`, or in an open one that ought to have been closed by now: the source
        knows how long its kinds of batches may stay open.
        """

    def records(self, batch: int) -> Sequence[RecordLeaf]:
        """The records of a closed batch in the order of its root.

        Raises `ledger.errors.RecordUnreadable` when one is damaged, which verification reports and goes on.
        """
