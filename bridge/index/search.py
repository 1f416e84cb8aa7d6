"""Searches: one page of matches, in an order that stays, and how many more there are.

Order: studies by newest study date, then the newest row; within a study series by number and UID, instances by number
and UID; instances over all studies by the newest row. Rows that arrive while a client walks the pages would push older
ones onto the next page a second time, so a walk sees only rows that were there when it took its first page (offset 0).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, FromClause, Select, case, func, literal_column, select

from bridge.dicom.attributes import LEVELS, Level
from bridge.dicom.matching import Query
from bridge.index import schema as s
from bridge.index.database import Database
from bridge.index.related import Related
from bridge.index.returned import Returning
from bridge.index.terms import TABLES, conditions
from bridge.model import SearchPage

MOST_COUNTED: Final = 100_000
"""How far matches beyond a page are counted: `remaining` is exact up to this, and this when there are more."""

_MOST_WALKS: Final = 256

_FROM: Final[Mapping[Level, FromClause]] = {
    Level.PATIENT: s.patient,
    Level.STUDY: s.study.join(s.patient, s.study.c.patient == s.patient.c.id),
    Level.SERIES: s.series.join(s.study, s.series.c.study == s.study.c.id).join(
        s.patient, s.study.c.patient == s.patient.c.id
    ),
    Level.INSTANCE: s.instance.join(s.series, s.instance.c.series == s.series.c.id)
    .join(s.study, s.series.c.study == s.study.c.id)
    .join(s.patient, s.study.c.patient == s.patient.c.id),
}


class Search:
    """Searches of one database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._walks: OrderedDict[Query, int] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, query: Query) -> SearchPage:
        """As `bridge.ports.Index.search`. Raises StorageFault."""
        returning = Returning(query)
        with self._database.reading() as connection:
            last = self._last(connection, query)
            statement = _matching(query, last)
            columns = [TABLES[level].c.attributes.label(level.value) for level in returning.levels]
            ids = [
                TABLES[level].c.id.label(f"{level.value}_id") for level in LEVELS if level in _tables_of(query.level)
            ]
            extra = [s.instance.c.damaged] if query.level is Level.INSTANCE else []
            page = statement.add_columns(*ids, *columns, *extra).order_by(*_order(query))
            rows = connection.execute(page.limit(query.limit).offset(query.offset)).mappings().all()
            remaining = _remaining(connection, query, statement, len(rows))
            related = Related.of(connection, returning, rows)
        found = [_match(returning, related, row) for row in rows]
        return SearchPage(tuple(found), remaining)

    def _last(self, connection: Connection, query: Query) -> int | None:
        """The newest row that this walk may see."""
        walk = replace(query, offset=0)
        newest = connection.execute(select(func.max(TABLES[query.level].c.id))).scalar()
        with self._lock:
            if query.offset == 0:
                self._walks[walk] = newest or 0
                self._walks.move_to_end(walk)
                if len(self._walks) > _MOST_WALKS:
                    self._walks.popitem(last=False)
                return None
            return self._walks.get(walk)


def _tables_of(level: Level) -> tuple[Level, ...]:
    return LEVELS[: LEVELS.index(level) + 1]


def _matching(query: Query, last: int | None) -> Select[Any]:
    """What matches, with no columns yet."""
    terms = conditions(query.keys)
    if query.study is not None:
        terms.append(s.study.c.uid == query.study)
    if query.series is not None:
        terms.append(s.series.c.uid == query.series)
    if query.level is Level.INSTANCE:
        terms.append(s.instance.c.served)
    if last is not None:
        terms.append(TABLES[query.level].c.id <= last)
    statement = select().select_from(_FROM[query.level]).where(*terms)
    if query.level is Level.PATIENT:
        # One match for each Patient ID and issuer; those without an ID are never taken for one another.
        alone = case((s.patient.c.patient_id == "", s.patient.c.id), else_=literal_column("0"))
        first = statement.add_columns(func.min(s.patient.c.id))
        first = first.group_by(s.patient.c.patient_id, s.patient.c.issuer_of_patient_id, alone)
        statement = select().select_from(s.patient).where(s.patient.c.id.in_(first))
    return statement


def _order(query: Query) -> Sequence[ColumnElement[Any]]:
    newest_study = [s.study.c.study_date.desc(), s.study.c.id.desc()]
    number = s.series.c.series_number
    in_study = [number.is_(None), number, s.series.c.uid, s.series.c.id]
    match query.level:
        case Level.PATIENT:
            return [s.patient.c.id.desc()]
        case Level.STUDY:
            return newest_study
        case Level.SERIES:
            return in_study if query.study is not None else newest_study + in_study
        case Level.INSTANCE:
            if query.study is None:
                return [s.instance.c.id.desc()]
            number = s.instance.c.instance_number
            return [*in_study, number.is_(None), number, s.instance.c.sop]


def _remaining(connection: Connection, query: Query, statement: Select[Any], found: int) -> int:
    if found < query.limit:
        return 0
    seen = query.offset + found
    rows = statement.add_columns(literal_column("1")).limit(seen + MOST_COUNTED).subquery()
    return max(0, int(connection.execute(select(func.count()).select_from(rows)).scalar_one()) - seen)


def _match(returning: Returning, related: Related, row: Mapping[Any, Any]) -> dict[str, object]:
    held: dict[str, object] = {}
    for level in returning.levels:
        values: Mapping[str, object] = json.loads(row[level.value])
        held.update((tag, value) for tag, value in values.items() if tag in returning.tags)
    held.update(related.values(row))
    for tag, empty in returning.empty:
        held.setdefault(tag, empty)
    return dict(sorted(held.items()))
