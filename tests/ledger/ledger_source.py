"""A record source in memory, with real records, for the ledger's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import merkle, record
from ledger.record import Record
from ledger.source import ClosedBatch, RecordLeaf

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "node.example/ledger"
EPOCH = bytes(range(16))
START = 1_700_000_000_000_000  # microseconds


def octets(label: str, size: int = 16) -> bytes:
    """Bytes that stand for random ones, the same in every run."""
    return hashlib.sha256(label.encode()).digest()[:size]


class Source:
    """Closed batches made by `close`; tests damage `batches` and `leaves` in place."""

    def __init__(self, epoch: bytes = EPOCH) -> None:
        self.known_epoch = epoch
        self.batches: list[ClosedBatch] = []
        self.leaves: dict[int, list[RecordLeaf]] = {}
        self.pending: int | None = None

    def close(self, type: str = "study.store", study: str | None = "study", records: int = 2) -> ClosedBatch:
        """Close a batch of so many records."""
        number = len(self.batches) + 1
        time = START + number * 1_000_000
        encoded = [
            record.encode(Record(type, time, octets(f"salt {self.known_epoch.hex()} {number} {at}"), {"n": at}))
            for at in range(records)
        ]
        self.leaves[number] = [RecordLeaf(record.leaf_hash(item), item) for item in encoded]
        self.batches.append(
            ClosedBatch(
                id=number,
                type=type,
                time_us=time,
                purpose="TREAT",
                outcome=0,
                actor_kind=2,
                actor_tag=octets(f"actor {number % 3}"),
                role="device",
                address_tag=octets("address"),
                study_tag=octets(study) if study else None,
                commitment=octets(f"commitment {number}", 32) if study else None,
                records_root=merkle.root(item.leaf for item in self.leaves[number]),
                records=records,
            )
        )
        return self.batches[-1]

    def change(self, number: int, **fields: object) -> None:
        """Alter a batch behind the ledger's back."""
        self.batches[number - 1] = replace(self.batches[number - 1], **fields)  # type: ignore[arg-type]

    def epoch(self) -> bytes:
        return self.known_epoch

    def closed_batches(self, after: int, limit: int) -> Sequence[ClosedBatch]:
        return [batch for batch in self.batches if batch.id > after][:limit]

    def oldest_pending_us(self, after: int) -> int | None:
        waiting = [batch.time_us for batch in self.batches if batch.id > after]
        return min([*waiting, *([] if self.pending is None else [self.pending])], default=None)

    def records(self, batch: int) -> Sequence[RecordLeaf]:
        return self.leaves[batch]
