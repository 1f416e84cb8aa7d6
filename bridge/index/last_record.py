"""The newest records of a type that is about no study: what the node said of itself."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, literal_column, select

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.model import SealedRecord

_b, _r = s.batch.c, s.record.c
_LAST: Final = sql(
    select(_r.leaf, _r.sealed)
    .select_from(s.batch.join(s.record, _r.batch == _b.id))
    .where(_b.type == bindparam("of_type"), _b.study.is_(None))
    .order_by(_b.id.desc(), _r.position.desc())
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)


def last_records(database: Database, kind: str, most: int) -> list[SealedRecord]:
    """The newest records of a type of `ledger.types`, newest first. Raises StorageFault."""
    return [SealedRecord(*row) for row in database.rows(_LAST, {"of_type": kind, "most": most})]


def last_record(database: Database, kind: str) -> SealedRecord | None:
    """The newest record of a type of `ledger.types`; None when there is none. Raises StorageFault."""
    return next(iter(last_records(database, kind, 1)), None)
