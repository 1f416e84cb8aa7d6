"""What the ledger reads of the index: `ledger.source.RecordSource`, over closed batches.

A batch gets its number in the transaction that closes it, and writers commit one after another, so what is visible is
visible for good and no lower number appears later. In entries there is no name: an actor is a keyed tag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import ColumnElement, bindparam, case, func, literal_column, or_, select

from bridge.index import schema as s
from bridge.index.batches import split_refs
from bridge.index.database import Place, open_database, sql
from bridge.index.records import records_of
from bridge.model import STORES, ActorKind, SealedRecord
from ledger.source import ClosedBatch, RecordLeaf

_KINDS: Final = {ActorKind.SYSTEM: 0, ActorKind.USER: 1, ActorKind.DEVICE: 2, ActorKind.PEER: 3}
_b = s.batch.c
_CLOSED: Final = sql(
    select(
        *(_b.closed_seq, _b.type, _b.closed, _b.purpose, _b.outcome, _b.actor_kind, _b.actor_name, _b.actor_role),
        *(_b.actor_address, _b.study_tag, _b.commitment, _b.records_root, _b.records, _b.body, _b.refs),
    )
    .where(_b.closed_seq > bindparam("after"), _b.closed_seq <= bindparam("last"))
    .order_by(_b.closed_seq)
)
# How long a batch may stay open: one of stores 30 s, a session 10 minutes and the 60 s it slides by (DESIGN section 6).
_STORES: Final[list[ColumnElement[str]]] = [literal_column(f"'{name}'") for name in sorted(STORES)]
_MAY_STAY_OPEN: Final[ColumnElement[int]] = case(
    (_b.type.in_(_STORES), literal_column("30000000")), else_=literal_column("660000000")
)
_PENDING: Final = sql(
    select(func.min(case((_b.closed_seq.is_(None), _b.opened + _MAY_STAY_OPEN), else_=_b.closed))).where(
        or_(_b.closed_seq.is_(None), _b.closed_seq > bindparam("after"))
    )
)


class SqlRecordSource:
    """`ledger.source.RecordSource` over an index database, with connections of its own.

    Parameters
    ----------
    place
        Where the index's database is; it is made when there is none.
    tag
        (what, text) -> 16 bytes, an HMAC under a key of the node: "actor" over "<kind>:<name>", "address" over that.
    open_record
        (Study Instance UID or None, record) -> the record's bytes, None when the key to open it is gone. Left out, as
        by the sealing process, which needs leaves alone, records stay sealed: each is None.
    """

    def __init__(
        self,
        place: Place,
        tag: Callable[[str, str], bytes],
        open_record: Callable[[str | None, SealedRecord], bytes | None] = lambda study, record: None,
    ) -> None:
        self._database = open_database(place)
        self._tag = tag
        self._open_record = open_record

    def epoch(self) -> bytes:
        """As the port."""
        return self._database.epoch

    def closed_batches(self, after: int, limit: int) -> Sequence[ClosedBatch]:
        """As the port. Numbers have no gaps, so a limit is a last number. Raises StorageFault."""
        rows = self._database.rows(_CLOSED, {"after": after, "last": after + limit})
        found = []
        for number, kind, closed, purpose, outcome, actor, name, role, address, *rest in rows:
            study_tag, commitment, records_root, records, body, refs = rest
            found.append(
                ClosedBatch(
                    id=number,
                    type=kind,
                    time_us=closed,
                    purpose=purpose,
                    outcome=outcome,
                    actor_kind=_KINDS[ActorKind(actor)],
                    actor_tag=self._tag("actor", f"{actor}:{name}"),
                    role=role or "",
                    address_tag=self._tag("address", address) if address else None,
                    study_tag=study_tag,
                    commitment=commitment,
                    records_root=records_root,
                    records=records,
                    body=body,
                    refs=split_refs(refs),
                )
            )
        return found

    def oldest_pending_us(self, after: int) -> int | None:
        """As the port: since when a batch is closed, or ought to be, that has no entry yet."""
        oldest = self._database.rows(_PENDING, {"after": after})[0][0]
        return None if oldest is None else int(oldest)

    def records(self, batch: int) -> Sequence[RecordLeaf]:
        """As the port. Raises StorageFault, and what `open_record` raises."""
        found = records_of(self._database, batch)
        return [RecordLeaf(record.leaf, self._open_record(study, record)) for study, record in found]

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
