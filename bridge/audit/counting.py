"""Facets and histograms: matching events counted by value and by time, from one state of audit.db.

Most of it is not counted but added up: combinations know how many events they have, in all and in spans of time. Only
the hours at the two ends of a range of time, bins shorter than an hour, and the events of single studies are looked at
one by one.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Final

from bridge.audit.conditions import JOINED, Condition, among, any_of, combinations, every, within
from bridge.audit.spans import LEVELS, Stretch, cover, span_for
from ledger.event import EventQuery

FACETS: Final = ("type", "actor", "role", "purpose", "outcome", "node")
Tags = Sequence[bytes] | None


def facets(connection: sqlite3.Connection, query: EventQuery, tags: Tags) -> dict[str, list[tuple[str, int]]]:
    """For each of FACETS, (value, count) of the matching events, most first, then by value; nodes in hexadecimal."""
    allowed = combinations(query)
    rows = connection.execute(
        f"SELECT combination.id, events, combination.type, actor.name, role, purpose, outcome, lower(hex(node))"
        f" FROM {JOINED}{allowed.where()}",
        allowed.values,
    )
    counted = _by_combination(connection, query, tags)
    totals: list[Counter[str]] = [Counter() for _ in FACETS]
    for combination, events, *values in rows:
        number = events if counted is None else counted[combination]
        if number:
            for total, value in zip(totals, values, strict=True):
                total[str(value)] += number
    return {
        name: sorted(total.items(), key=lambda row: (-row[1], row[0]))
        for name, total in zip(FACETS, totals, strict=True)
    }


def histogram(connection: sqlite3.Connection, query: EventQuery, tags: Tags, bins: int) -> list[tuple[int, int]]:
    """(start, count) of each of at most `bins` spans that hold the range asked for, or the first and last match."""
    bounds = _bounds(connection, query, tags)
    if bounds is None:
        return []
    first, last = bounds
    span = span_for(first, last, bins)
    if tags is not None:
        counts = _of_studies(connection, query, tags, f"time / {span}")
    else:
        counts = Counter()
        for stretch in cover(first, last + 1, [length for length in LEVELS if span % length == 0]):
            counts.update(_counted(connection, stretch, among(query), span))
    if not counts:
        return []
    return [(number * span, counts[number]) for number in range(first // span, last // span + 1)]


def _by_combination(connection: sqlite3.Connection, query: EventQuery, tags: Tags) -> Counter[int] | None:
    """Matching events by combination; None when those are all that each has."""
    if tags is not None:
        return _of_studies(connection, query, tags, "combination")
    if query.since_us is None and query.until_us is None:
        return None
    counts: Counter[int] = Counter()
    earliest, latest = connection.execute("SELECT min(earliest), max(latest) FROM stretch").fetchone()
    if earliest is not None:
        since = earliest if query.since_us is None else max(query.since_us, earliest)
        until = latest + 1 if query.until_us is None else min(query.until_us, latest + 1)
        for stretch in cover(since, until):
            counts.update(_counted(connection, stretch, among(query), None))
    return counts


def _bounds(connection: sqlite3.Connection, query: EventQuery, tags: Tags) -> tuple[int, int] | None:
    """The first and last moment of a histogram; None when nothing can match."""
    if tags is not None:
        asked = _studies_condition(query, tags)
        first, last = connection.execute(
            f"SELECT min(time), max(time) FROM event{asked.where()}", asked.values
        ).fetchone()
    else:
        allowed = combinations(query)
        first, last = connection.execute(
            f"SELECT min(earliest), max(latest) FROM {JOINED}{allowed.where()}", allowed.values
        ).fetchone()
    if first is None:
        return None
    if query.since_us is not None:
        first = query.since_us
    if query.until_us is not None:
        last = query.until_us - 1
    return (first, last) if first <= last else None


def _counted(connection: sqlite3.Connection, stretch: Stretch, allowed: Condition, span: int | None) -> dict[int, int]:
    """Events in a stretch by combination, or by the number of the span that they are in."""
    if stretch.length:
        table, moment, number = "tally", "start", "sum(events)"
        asked = every(Condition("length = ?", (stretch.length,)), allowed)
    else:
        table, moment, number = "event INDEXED BY event_time", "time", "count(*)"
        asked = allowed
    asked = every(Condition(f"{moment} >= ? AND {moment} < ?", (stretch.start, stretch.end)), asked)
    by = "combination" if span is None else f"{moment} / {span}"
    return dict(connection.execute(f"SELECT {by}, {number} FROM {table}{asked.where()} GROUP BY 1", asked.values))


def _of_studies(connection: sqlite3.Connection, query: EventQuery, tags: Sequence[bytes], by: str) -> Counter[int]:
    if not tags:
        return Counter()
    asked = _studies_condition(query, tags)
    return Counter(
        dict(
            connection.execute(
                f"SELECT {by}, count(*) FROM event INDEXED BY event_study{asked.where()} GROUP BY 1", asked.values
            )
        )
    )


def _studies_condition(query: EventQuery, tags: Sequence[bytes]) -> Condition:
    return every(any_of("study", tags), within(query), among(query))
