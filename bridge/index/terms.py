"""Matches as SQL conditions with bound values: PS3.4 C.2.2.2 over the columns that `bridge.index.rows` filled.

Every condition means what `bridge.dicom.comparison.matches` means; property tests hold them together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, and_, exists, literal, not_, or_, select

from bridge.dicom.attributes import Attribute, Level
from bridge.dicom.matching import (
    AnyOf,
    DateTimeSpan,
    Empty,
    InItem,
    Match,
    Name,
    Numbers,
    Span,
    Universal,
    Wildcard,
)
from bridge.index import schema as s
from bridge.index.dialect import matches_wildcards

TABLES: Final = {
    Level.PATIENT: s.patient,
    Level.STUDY: s.study,
    Level.SERIES: s.series,
    Level.INSTANCE: s.instance,
}
Condition = ColumnElement[bool]


def conditions(matches: Iterable[Match]) -> list[Condition]:
    """One condition for each match that excludes anything."""
    return [condition(match) for match in matches if not isinstance(match, Universal)]


def condition(match: Match) -> Condition:
    """The condition of one match on the tables of its level and those above."""
    if isinstance(match, InItem):
        return _in_item(match)
    if isinstance(match, DateTimeSpan):
        return _date_time(match)
    if isinstance(match, Universal):
        return literal(True)
    if match.attribute.computed:
        return _in_study(match)
    if isinstance(match, Name):
        return _name(match)
    table = s.series_request if "." in match.attribute.tag else TABLES[match.attribute.level]
    return _on_column(match, table.c[s.column_name(match.attribute)])


def _on_column(match: Empty | AnyOf | Wildcard | Numbers | Span | Name, column: ColumnElement[Any]) -> Condition:
    match match:
        case Empty(attribute):
            if attribute.vr == "IS":
                return column.is_(None)
            return (
                and_(*(TABLES[attribute.level].c[name] == "" for name in s.column_names(attribute)))
                if (attribute.vr == "PN")
                else column == ""
            )
        case AnyOf(_, values) | Numbers(_, values):
            return column == values[0] if len(values) == 1 else column.in_(values)
        case Wildcard(_, patterns):
            return or_(*(_like(column, pattern) for pattern in patterns))
        case Span(_, start, end):
            bounds = [column != "" if start is None else column >= start]
            return and_(*bounds, *([] if end is None else [column <= end]))
        case Name():
            return _name(match)


def _like(column: ColumnElement[Any], pattern: str) -> Condition:
    if "*" not in pattern and "?" not in pattern:
        return column == pattern
    return matches_wildcards(column, pattern)


def _name(match: Name) -> Condition:
    table = TABLES[match.attribute.level]
    *groups, folded = (table.c[name] for name in s.column_names(match.attribute))
    if match.words:
        return and_(*(_like(literal(" ") + folded, f"* {word}*") for word in match.words))
    if len(match.patterns) == 1:
        pattern = match.patterns[0] or ""
        return or_(*(and_(group != "", _like(group, pattern)) for group in groups))
    given = [(group, pattern) for group, pattern in zip(groups, match.patterns, strict=False) if pattern is not None]
    return and_(literal(True), *(_like(group, pattern) for group, pattern in given))


def _date_time(match: DateTimeSpan) -> Condition:
    date = _column(match.date)
    time = _column(match.time)
    bounds: list[Condition] = [date != ""]
    if match.start is not None:
        day, moment = match.start
        bounds += [date >= day, or_(date > day, time >= moment)]
    if match.end is not None:
        day, moment = match.end
        bounds += [date <= day, or_(date < day, time <= moment)]
    return and_(*bounds)


def _column(attribute: Attribute) -> ColumnElement[Any]:
    return TABLES[attribute.level].c[s.column_name(attribute)]


def _in_study(match: Empty | AnyOf | Wildcard | Numbers | Span | Name) -> Condition:
    """Modalities in Study and SOP Classes in Study, which any series of the study may satisfy."""
    series = s.series.alias()
    of_study: Table | Any
    if match.attribute.keyword == "ModalitiesInStudy":
        of_study, column = series, series.c.modality
    else:
        of_study = series.join(s.series_class, s.series_class.c.series == series.c.id)
        column = s.series_class.c.sop_class
    found = select(literal(1)).select_from(of_study).where(series.c.study == s.study.c.id).correlate(s.study)
    if isinstance(match, Empty):
        return not_(exists(found.where(column != "")))
    return exists(found.where(_on_column(match, column)))


def _in_item(match: InItem) -> Condition:
    items = select(literal(1)).select_from(s.series_request).where(s.series_request.c.series == s.series.c.id)
    items = items.correlate(s.series)
    found = exists(items.where(*conditions(match.matches)))
    if all(isinstance(inner, (Empty, Universal)) for inner in match.matches):
        return or_(found, not_(exists(items)))
    return found
