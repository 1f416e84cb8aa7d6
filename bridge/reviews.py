"""Emergencies that ask for a review, and what their reviews found: across hospitals, and in this one.

Whatever breaks the glass is reviewed here by name, with a finding, as an entry `audit.review` (`bridge.alerts`). What
was read of the trail is kept: reviews and grants do not change.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, cast

from bridge.consortium_model import Emergency, Review
from bridge.errors import NotFound
from bridge.index.emergencies import EmergencyRow
from bridge.ports import AuditTrail
from bridge.replica_overview import emergencies
from ledger.alerts import HOUR_US
from ledger.event import Event, EventQuery
from ledger.sentence import actor as actor_words
from ledger.types import EMERGENCY

__all__ = ["Reviews"]

PAGE: Final = 500
OWN: Final = ("study.access", "emergency.start")
"""What people of this hospital do in an emergency. One that was broken off before it was known whose study it is about
has no other trace than its entry."""
MOST_LOCAL: Final = 200
"""The newest accesses of this hospital's own that are told; of older ones those that wait for their review."""
LOOKED_AT: Final = 5000
"""So many of the newest are looked at when the first page is asked for."""


class Reviews:
    """What `dicomweb.node.Node.emergencies` and `reviews_due` tell. Thread-safe.

    Parameters
    ----------
    trail
        Where accesses and reviews are found.
    across
        Break-glass accesses across hospitals, newest first.
    own
        The id of this node's own entries; None when all are.
    hospital
        What this hospital is called; "" without a consortium.
    hours
        Within which each is reviewed; None: no such time.
    """

    def __init__(
        self,
        trail: AuditTrail,
        across: Callable[[], Sequence[EmergencyRow]],
        own: bytes | None,
        hospital: Callable[[], str],
        hours: int | None,
    ) -> None:
        self._trail, self._across, self._hospital, self._hours = trail, across, hospital, hours
        self._nodes = () if own is None else (own,)
        self._lock = threading.Lock()
        self._seen = -1
        self._own: dict[bytes, int] = {}  # when, by entry: nothing of what was seen is kept, it may be erased
        self._reviews: defaultdict[bytes, list[Review]] = defaultdict(list)
        self._beside: dict[bytes, bytes] = {}

    def all(self) -> Sequence[Emergency]:
        """All across hospitals, and the newest of this hospital's own, newest first. Raises StorageFault."""
        with self._lock:
            self._follow()
        rows = self._across()
        known = {row.entry for row in rows}
        told = [self._told(one, row) for row, one in zip(rows, emergencies(rows, self._hospital()), strict=True)]
        newest = self._trail.search(EventQuery(types=OWN, purposes=(EMERGENCY,), nodes=self._nodes, limit=MOST_LOCAL))
        older = self._waiting() - {event.id for event in newest}
        events = [*newest, *(self._trail.event(entry) for entry in older)]
        told += [self._local(event) for event in events if event.id not in known]
        return sorted(told, key=lambda one: one.started_us, reverse=True)

    def due(self) -> Sequence[int | None]:
        """When each review that is missing is due (None: at no time). Raises StorageFault."""
        with self._lock:
            self._follow()
        rows = self._across()
        known = {row.entry for row in rows}
        across = [row.started for row in rows if row.reviewed is None and not self._found(row.entry)]
        return [*map(self._due, across), *(self._due(self._own[entry]) for entry in self._waiting() - known)]

    def _waiting(self) -> set[bytes]:
        return {entry for entry in self._own if not self._found(entry)}

    def _told(self, one: Emergency, row: EmergencyRow) -> Emergency:
        who = ""
        if row.own:
            with contextlib.suppress(NotFound):  # while the trail has not come so far
                who = actor_words(self._trail.event(row.entry).actor)
        found = self._found(row.entry)
        return replace(one, who=who, reviews=found, reviewed=one.reviewed or bool(found), due_us=self._due(row.started))

    def _local(self, event: Event) -> Emergency:
        found, hospital = self._found(event.id), self._hospital()
        started = self._bodies(event) if event.type != "study.access" else []
        said = {name: value for body in started for name, value in body.items() if isinstance(value, str)}
        return Emergency(
            entry=event.id,
            study=event.study,
            from_member=said.get("member", hospital),
            to_member=hospital,
            own=not started,
            reason=event.reason or said.get("reason", ""),
            started_us=event.time_us,
            ends_us=event.time_us,
            reviewed=bool(found),
            who=actor_words(event.actor),
            reviews=found,
            due_us=self._due(event.time_us),
        )

    def _due(self, started_us: int) -> int | None:
        return None if self._hours is None else started_us + self._hours * HOUR_US

    def _found(self, entry: bytes) -> tuple[Review, ...]:
        return tuple(self._reviews.get(entry, ()))

    def _follow(self) -> None:
        """Take in what is new since the last look: accesses, grants for emergencies, reviews."""
        newest = self._trail.search(EventQuery(limit=1))
        if not newest or newest[0].index <= self._seen:
            return
        upto = newest[0].index + 1
        broken = EventQuery(types=OWN, purposes=(EMERGENCY,), nodes=self._nodes, before=upto)
        self._own |= {event.id: event.time_us for event in self._new(broken)}
        granted = EventQuery(types=("consent.grant",), purposes=(EMERGENCY,), nodes=self._nodes, before=upto)
        for event in self._new(granted):
            for body in self._bodies(event):
                for about in cast(Sequence[bytes], body.get("refs", ())):
                    self._beside[event.id] = about
        for event in self._new(EventQuery(types=("audit.review",), nodes=self._nodes, before=upto)):
            for body in self._bodies(event):
                entry = cast(bytes, body.get("entry", b""))
                said = Review(event.id, actor_words(event.actor), event.time_us, str(body.get("note", "")))
                self._reviews[self._beside.get(entry, entry)].append(said)
        self._seen = newest[0].index

    def _bodies(self, event: Event) -> list[dict[str, object]]:
        return [dict(detail.body) for detail in self._trail.details(event.id) if detail.body is not None]

    def _new(self, query: EventQuery) -> list[Event]:
        """Matching events above what was seen, oldest first."""
        found: list[Event] = []
        query = replace(query, limit=PAGE)
        while page := self._trail.search(query):
            found += [event for event in page if event.index > self._seen]
            if page[-1].index <= self._seen or len(found) >= LOOKED_AT:
                break
            query = replace(query, before=page[-1].index)
        return found[::-1]
