"""Figures of an index for who looks after a node: what waits for the ledger, and how much came in on which day."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, literal_column, select

from bridge.index import schema as s
from bridge.index.database import Database, sql

_b, _i = s.batch.c, s.instance.c
_WAITING: Final = sql(
    select(func.count(), func.coalesce(func.sum(_b.records), literal_column("0")), func.min(_b.closed)).where(
        _b.closed_seq > bindparam("sealed")
    )
)
_OPEN: Final = sql(select(func.count(), func.min(_b.opened)).where(_b.closed_seq.is_(None)))
_LAST: Final = sql(select(func.max(_i.id)))
_FROM: Final = sql(
    select(_i.id, _i.received)
    .where(_i.id >= bindparam("least"))
    .order_by(_i.id)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)


def holds_instances(database: Database) -> bool:
    """Whether any instance is in the index. Raises StorageFault."""
    return bool(database.rows(_FROM, {"least": 0}))


class Waiting(NamedTuple):
    """Closed batches without an entry, their records, when the oldest closed; open ones, when the oldest began."""

    batches: int
    records: int
    since: int | None
    open: int
    open_since: int | None


def waiting(database: Database, sealed: int) -> Waiting:
    """What the ledger, which has sealed every batch up to number `sealed`, has still before it. Raises StorageFault."""
    batches, records, since = database.rows(_WAITING, {"sealed": sealed})[0]
    open_, open_since = database.rows(_OPEN, {})[0]
    return Waiting(batches, records, since, open_, open_since)


def stored_between(database: Database, moments: Sequence[int]) -> list[int]:
    """How many instances were stored between each of these ascending moments (microseconds) and the next.

    Rows are numbered in the order in which they are stored, so that each moment's row is found by bisection: some
    twenty lookups, however many there are. Raises StorageFault.
    """
    last = database.rows(_LAST, {})[0][0] or 0
    first = 1
    rows = []
    for moment in moments:
        first = _first_at(database, moment, first, last + 1)
        rows.append(first)
    return [later - earlier for earlier, later in pairwise(rows)]


def _first_at(database: Database, moment: int, low: int, high: int) -> int:
    """The first row number from `low` whose row, or the next there is, came at `moment` or later; else `high`."""
    while low < high:
        middle = (low + high) // 2
        found = database.rows(_FROM, {"least": middle})
        if found and found[0][1] < moment:
            low = found[0][0] + 1
        else:
            high = middle
    return low
