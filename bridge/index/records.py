"""Records as several readers of the index need them: those of a closed batch by its number, leaves by its row."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.model import SealedRecord

_b, _r = s.batch.c, s.record.c
OF_BATCH: Final = s.batch.join(s.record, _r.batch == _b.id)
"""Batches with their records."""
_RECORDS: Final = sql(
    select(_b.study, _r.leaf, _r.sealed)
    .select_from(OF_BATCH)
    .where(_b.closed_seq == bindparam("number"))
    .order_by(_r.position)
)
_LEAVES: Final = sql(select(_r.leaf).where(_r.batch == bindparam("of_batch")).order_by(_r.position))


def records_of(database: Database, number: int) -> list[tuple[str | None, SealedRecord]]:
    """The records of the batch that was closed under a number, in order, each with its Study Instance UID.

    None for the UID when the batch is about no study; [] when it is not held. Raises StorageFault.
    """
    found = database.rows(_RECORDS, {"number": number})
    return [(study, SealedRecord(leaf, sealed)) for study, leaf, sealed in found]


def leaves_of(database: Database, batch: int) -> list[bytes]:
    """The leaf hashes of a batch, open or closed, by its row, in order. Raises StorageFault."""
    return [leaf for (leaf,) in database.rows(_LEAVES, {"of_batch": batch})]
