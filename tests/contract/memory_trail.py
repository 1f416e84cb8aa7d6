"""An AuditTrail in memory: the plain reading of the port, for the tests of whoever asks one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from bridge.audit.spans import span_for
from bridge.errors import NotFound
from ledger.event import Detail, Event, EventQuery


class MemoryTrail:
    """The port over a list of events. `seal` hands in what the next `follow` takes; `add` what is there at once.

    Parameters
    ----------
    events
        In any order; each index at most once.
    details
        The records of an event by its id; an event without is one whose records are gone.
    """

    def __init__(self, events: Iterable[Event] = (), details: Mapping[bytes, Sequence[Detail]] | None = None) -> None:
        self._events = sorted(events, key=lambda event: event.index)
        self._details = {id: tuple(records) for id, records in (details or {}).items()}
        self._sealed: list[tuple[Event, Sequence[Detail]]] = []

    def add(self, event: Event, details: Sequence[Detail] = ()) -> None:
        """One more event, found from now on."""
        self._events = sorted([*self._events, event], key=lambda one: one.index)
        self._details[event.id] = tuple(details)

    def seal(self, event: Event, details: Sequence[Detail] = ()) -> None:
        """One more event, found after the next `follow`."""
        self._sealed.append((event, details))

    def search(self, query: EventQuery) -> Sequence[Event]:
        """As the port."""
        below = [event for event in self._matching(query) if query.before is None or event.index < query.before]
        return below[::-1][: query.limit]

    def event(self, id: bytes) -> Event:
        """As the port."""
        for event in self._events:
            if id == event.id or any(record.leaf == id for record in self._details.get(event.id, ())):
                return event
        raise NotFound("no entry or record has this id")

    def details(self, id: bytes) -> Sequence[Detail]:
        """As the port."""
        for event in self._events:
            if event.id == id:
                return self._details.get(id, ())
        raise NotFound("no entry has this id")

    def facets(self, query: EventQuery) -> Mapping[str, Sequence[tuple[str, int]]]:
        """As the port."""
        found = self._matching(query)
        values = {
            "type": [event.type for event in found],
            "actor": [event.actor.name for event in found],
            "role": [event.actor.role for event in found],
            "purpose": [event.purpose for event in found],
            "outcome": [str(event.outcome) for event in found],
        }
        if any(event.hospital for event in found):
            values["hospital"] = [event.hospital for event in found]
        return {
            name: sorted(Counter(given).items(), key=lambda row: (-row[1], row[0])) for name, given in values.items()
        }

    def histogram(self, query: EventQuery, bins: int) -> Sequence[tuple[int, int]]:
        """As the port."""
        times = [event.time_us for event in self._matching(query)]
        if not times:
            return []
        first = min(times) if query.since_us is None else query.since_us
        last = max(times) if query.until_us is None else query.until_us - 1
        span = span_for(first, last, bins)
        counts = Counter(time // span for time in times)
        return [(number * span, counts[number]) for number in range(first // span, last // span + 1)]

    def follow(self) -> int:
        """As the port."""
        sealed, self._sealed = self._sealed, []
        for event, details in sealed:
            self.add(event, details)
        return len(sealed)

    def _matching(self, query: EventQuery) -> list[Event]:
        return [event for event in self._events if matches(event, query)]


def matches(event: Event, query: EventQuery) -> bool:
    """Whether an event is one that the query asks for, paging aside."""
    chosen = (
        (query.types, event.type),
        (query.actors, event.actor.name),
        (query.roles, event.actor.role),
        (query.studies, event.study),
        (query.purposes, event.purpose),
        (query.outcomes, event.outcome),
        (query.nodes, event.node),
        (query.hospitals, event.hospital),
    )
    return (
        all(not wanted or value in wanted for wanted, value in chosen)
        and (query.patient is None or (event.patient is not None and event.patient.id == query.patient))
        and (query.since_us is None or event.time_us >= query.since_us)
        and (query.until_us is None or event.time_us < query.until_us)
    )
