"""Where a record lies among the closed batches, by its leaf hash: what a proof of one record is made from."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import bindparam, select

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.records import OF_BATCH, leaves_of
from bridge.model import SealedRecord

_b, _r = s.batch.c, s.record.c
_FOUND: Final = (
    select(_b.id, _b.study, _b.records_root, _r.position, _r.sealed)
    .select_from(OF_BATCH)
    .where(_r.leaf == bindparam("of_leaf"))
)
_FIND_ANYWHERE: Final = sql(_FOUND)
# By batch and not by record: few are behind a number.
_FIND_CLOSED: Final = sql(_FOUND.where(_r.batch.in_(select(_b.id).where(_b.closed_seq > bindparam("after")))))
_FIND_OPEN: Final = sql(_FOUND.where(_b.closed_seq.is_(None)))
_FIND_UNDER: Final = sql(_FOUND.where(_b.closed_seq == bindparam("number"), _b.records_root == bindparam("root")))
_FIND_UNDER_ROOT: Final = sql(_FOUND.where(_b.records_root == bindparam("root")))
_OF_ENTRY: Final = sql(
    select(_r.leaf)
    .select_from(OF_BATCH)
    .where(_b.closed_seq == bindparam("number"), _b.records_root == bindparam("root"))
    .order_by(_r.position)
)
_OF_ROOT: Final = sql(
    select(_r.leaf).select_from(OF_BATCH).where(_b.records_root == bindparam("root")).order_by(_r.position)
)


class RecordPlace(NamedTuple):
    """A record in its batch.

    `batch` is the batch's row; `study` its Study Instance UID, None when about none; `records_root` the RFC 6962 root
    over the batch's leaves, None while it is open; `position` counts from 0.
    """

    batch: int
    study: str | None
    records_root: bytes | None
    position: int
    record: SealedRecord


class RecordLeaves:
    """Reads of an index database. Thread-safe, as the database is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def epoch(self) -> bytes:
        """The database's epoch, which the numbers of its batches belong to."""
        return self._database.epoch

    def find(self, leaf: bytes, after: int = 0) -> RecordPlace | None:
        """The record with this 32-byte leaf hash, in an open batch or one closed after number `after`; None when none.

        Looks at every record there: give `after` where most records are known by other means. Raises StorageFault.
        """
        if not after:
            return self._first(_FIND_ANYWHERE, leaf, {})
        return self._first(_FIND_CLOSED, leaf, {"after": after}) or self._first(_FIND_OPEN, leaf, {})

    def find_under(self, number: int, records_root: bytes, leaf: bytes) -> RecordPlace | None:
        """The record with this leaf hash under an entry, given as for `of_entry`. Raises StorageFault."""
        found = self._first(_FIND_UNDER, leaf, {"root": records_root, "number": number})
        return found or self._first(_FIND_UNDER_ROOT, leaf, {"root": records_root})

    def _first(self, statement: str, leaf: bytes, values: dict[str, object]) -> RecordPlace | None:
        for batch, study, root, position, sealed in self._database.rows(statement, values | {"of_leaf": leaf}):
            return RecordPlace(batch, study, root, position, SealedRecord(leaf, sealed))
        return None

    def of_batch(self, batch: int) -> list[bytes]:
        """The leaf hashes of a batch (by its row) in order. Raises StorageFault."""
        return leaves_of(self._database, batch)

    def of_entry(self, number: int, records_root: bytes) -> list[bytes]:
        """The leaf hashes of the records under an entry, in order; none when the index no longer has them.

        `number` is the closed batch that the entry was made of, which another epoch may have given another number.
        Raises StorageFault.
        """
        rows = self._database.rows(_OF_ENTRY, {"number": number, "root": records_root})
        return [leaf for (leaf,) in rows or self._database.rows(_OF_ROOT, {"root": records_root})]
