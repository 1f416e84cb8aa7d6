"""Which events a query finds: indices, newest first, from one state of audit.db.

How they are found follows what the query restricts, so that each page costs about the same:

* studies: the index over study tags
* none of the combined fields: downwards from the end of the range of indices
* few combinations: the lists of each combination's events, merged from the top
* many combinations: if enough of all events are of them, downwards through a bounded number of events first; then as
  for few
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.audit.conditions import JOINED, Condition, among, any_of, combinations, every, within
from bridge.audit.schema import STRETCH
from ledger.event import EventQuery

FEW: Final = 64
"""Combinations or studies that are looked up one by one."""

WINDOW: Final = 20_000
"""Events that are looked through before many combinations are looked up one by one."""


class Range(NamedTuple):
    """Indices from `low` to `high`, both included."""

    low: int
    high: int


def search(connection: sqlite3.Connection, query: EventQuery, tags: Sequence[bytes] | None) -> list[int]:
    """The indices of at most `query.limit` matching events, descending; `tags` restricts to these studies' events."""
    span = _range(connection, query)
    if span is None or query.limit < 1 or tags == []:
        return []
    if tags is not None:
        return _of_studies(connection, query, tags, span)
    allowed = combinations(query)
    if not allowed.text:
        return _downwards(connection, query, span, query.limit)
    sources = connection.execute(
        f"SELECT combination.id, last, events FROM {JOINED} WHERE {allowed.text} AND last >= ? AND first <= ?",
        (*allowed.values, span.low, span.high),
    ).fetchall()
    if len(sources) > FEW and _are_dense(connection, sum(events for _, _, events in sources), query.limit):
        window = Range(max(span.low, span.high - WINDOW + 1), span.high)
        found = _downwards(connection, query, window, query.limit)
        if len(found) == query.limit or window == span:
            return found
    return _merged(connection, query, [(combination, last) for combination, last, _ in sources], span)


def _are_dense(connection: sqlite3.Connection, events: int, wanted: int) -> bool:
    """Whether twice as many as are wanted lie in a window, were these events spread evenly over all."""
    (last,) = connection.execute("SELECT max(idx) FROM event").fetchone()
    return events * WINDOW >= 2 * wanted * int(last)


def _range(connection: sqlite3.Connection, query: EventQuery) -> Range | None:
    """Where matching events can be: None when nowhere."""
    times = every(
        Condition("latest >= ?", (query.since_us,)) if query.since_us is not None else Condition(),
        Condition("earliest < ?", (query.until_us,)) if query.until_us is not None else Condition(),
    )
    first, last = connection.execute(
        f"SELECT min(number), max(number) FROM stretch{times.where()}", times.values
    ).fetchone()
    if first is None:
        return None
    low, high = first * STRETCH, last * STRETCH + STRETCH - 1
    if query.before is not None:
        high = min(high, query.before - 1)
    return Range(low, high) if low <= high else None


def _between(span: Range) -> Condition:
    return Condition("idx BETWEEN ? AND ?", span)


def _downwards(connection: sqlite3.Connection, query: EventQuery, span: Range, limit: int) -> list[int]:
    """The newest matching events of a range, by looking at one after another."""
    # By index alone: offered the combinations' lists, SQLite would read them all to sort them.
    return _indices(connection, "event NOT INDEXED", every(_between(span), within(query), among(query)), limit)


def _of_studies(connection: sqlite3.Connection, query: EventQuery, tags: Sequence[bytes], span: Range) -> list[int]:
    asked = every(_between(span), within(query), among(query))
    if len(tags) > FEW:
        return _indices(connection, "event INDEXED BY event_study", every(any_of("study", tags), asked), query.limit)
    found: list[int] = []
    for tag in tags:
        one = every(Condition("study = ?", (tag,)), asked)
        found += _indices(connection, "event INDEXED BY event_study", one, query.limit)
    return heapq.nlargest(query.limit, found)


def _merged(
    connection: sqlite3.Connection, query: EventQuery, sources: Sequence[tuple[int, int]], span: Range
) -> list[int]:
    """The newest of all sources, (combination, highest index): each is read on only while it has the newest."""
    times = within(query)
    batch = max(4, 2 * query.limit // max(len(sources), 1))
    # (index, combination, whether the event is known to match): highest first. What is not known is as high at most.
    heap = [(-min(last, span.high), combination, False) for combination, last in sources]
    heapq.heapify(heap)
    found: list[int] = []
    while heap and len(found) < query.limit:
        below, combination, known = heapq.heappop(heap)
        if known:
            found.append(-below)
            continue
        asked = every(Condition("combination = ?", (combination,)), _between(Range(span.low, -below)), times)
        rows = _indices(connection, "event INDEXED BY event_combination", asked, batch)
        for index in rows:
            heapq.heappush(heap, (-index, combination, True))
        if len(rows) == batch:
            heapq.heappush(heap, (1 - rows[-1], combination, False))
    return found


def _indices(connection: sqlite3.Connection, table: str, asked: Condition, limit: int) -> list[int]:
    rows = connection.execute(
        f"SELECT idx FROM {table}{asked.where()} ORDER BY idx DESC LIMIT ?", (*asked.values, limit)
    )
    return [index for (index,) in rows]
