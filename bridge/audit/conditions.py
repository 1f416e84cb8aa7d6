"""A query as SQL over audit.db: which combinations of values it allows, which indices and times. Pure; thread-safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ledger.event import EventQuery

_COLUMNS: Final = {
    "types": "combination.type",
    "actors": "actor.name",
    "roles": "combination.role",
    "purposes": "combination.purpose",
    "outcomes": "combination.outcome",
    "nodes": "combination.node",
}
JOINED: Final = "combination JOIN actor ON actor.id = combination.actor"


class Condition(NamedTuple):
    """A condition in SQL ("" for none) and the values of its question marks."""

    text: str = ""
    values: tuple[Any, ...] = ()

    def where(self, word: str = "WHERE") -> str:
        """The condition after a keyword; nothing when there is none."""
        return f" {word} {self.text}" if self.text else ""


def every(*conditions: Condition) -> Condition:
    """All of them."""
    real = [condition for condition in conditions if condition.text]
    return Condition(
        " AND ".join(condition.text for condition in real), tuple(value for one in real for value in one.values)
    )


def any_of(column: str, values: Sequence[Any]) -> Condition:
    """That a column holds one of the values."""
    return Condition(f"{column} IN ({', '.join('?' * len(values))})", tuple(values))


def combinations(query: EventQuery) -> Condition:
    """What the query asks of a row of `JOINED`."""
    wanted = {column: getattr(query, name) for name, column in _COLUMNS.items()}
    return every(*(any_of(column, values) for column, values in wanted.items() if values))


def among(query: EventQuery) -> Condition:
    """That the column `combination` of an event or tally names one that the query allows."""
    allowed = combinations(query)
    if not allowed.text:
        return allowed
    return Condition(
        f"combination IN (SELECT combination.id FROM {JOINED} WHERE {allowed.text})",
        allowed.values,
    )


def within(query: EventQuery) -> Condition:
    """What the query asks of an event's time."""
    return every(
        Condition("time >= ?", (query.since_us,)) if query.since_us is not None else Condition(),
        Condition("time < ?", (query.until_us,)) if query.until_us is not None else Condition(),
    )
