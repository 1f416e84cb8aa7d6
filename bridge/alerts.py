"""The rules of `ledger.alerts` at work on a node: each finding is recorded once, as an entry `security.alert`.

    (1) the audit trail's events since the last look, in the order of the log, and evidence against members
    (2) what the rules find in them, and what time has made overdue         ledger.alerts [pure]
    (3) findings that no record names yet are recorded, durably; exports and the console take them from the ledger

At a start the rules are given the last two hours again, and of what is older what still matters: break-glass accesses,
reviews, consents, credentials. A finding has the same id whenever it is found, so that it is recorded once.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, cast

from bridge import config
from bridge.errors import ContentCorrupt, NotFound, RequestError, StorageFault
from bridge.index.database import Database
from bridge.index.last_record import last_records
from bridge.model import Actor, SealedRecord
from bridge.ports import AuditTrail
from bridge.services.access import SYSTEM, Access
from bridge.services.provenance import Clock, now_us
from ledger import record
from ledger.alerts import HOUR_US, RULES, Alert, Misconduct, RuleName, Thresholds, Watch, offered_wrong
from ledger.event import Detail, Event, EventQuery
from ledger.types import EMERGENCY

LOOK_BACK_US: Final = 2 * HOUR_US
PAGE: Final = 1000
MOST_ALERTS: Final = 1000
AT_ONCE: Final = 50
"""Alerts recorded in one step: each is a commit of its own."""
LONGEST_NOTE: Final = 2000
TOLD: Final = frozenset({"wrong-block", "emergency"})
"""Rules whose alerts no event of the log raises: what was recorded of them is all there is."""
BROKEN: Final = ("study.access", "emergency.start", "consent.grant")
_REMEMBERED: Final = ("admin.token", "audit.review", "consent.grant", "consent.revoke")
Open = Callable[[str | None, SealedRecord], bytes | None]


def thresholds(settings: config.Alerts) -> Thresholds:
    """The rules' numbers as `[alerts]` gives them."""
    return Thresholds(
        settings.studies_per_hour,
        settings.failed_logins,
        settings.review_hours,
        after_revocation=settings.after_revocation == "on",
        sequence_gap=settings.sequence_gap == "on",
        clock_skew_s=settings.clock_skew_s,
        late_minutes=settings.late_minutes,
    )


class Alerts:
    """The alerts of a node.

    Parameters
    ----------
    trail
        Where events come from.
    access
        Records what was found.
    database, open_record
        Where recorded alerts are read back, and what opens them.
    settings
        `[alerts]`.
    own
        The id of this node's own entries; None when all are.
    proved
        All evidence against members that is held.
    refs
        The ids of the entries that an entry names, by its id.
    lock
        A file on which the node's processes wait for each other, so that one of them alone tells an alert.
    """

    def __init__(
        self,
        trail: AuditTrail,
        access: Access,
        database: Database,
        open_record: Open,
        settings: config.Alerts,
        clock: Clock = now_us,
        own: bytes | None = None,
        proved: Callable[[], Iterable[Misconduct]] = tuple,
        refs: Callable[[bytes], Sequence[bytes]] = lambda id: (),
        lock: Path | None = None,
    ) -> None:
        self._lock = lock
        self._own = own
        self._proved = proved
        self._refs = refs
        self._trail = trail
        self._access = access
        self._database = database
        self._open = open_record
        self._thresholds = thresholds(settings)
        self._clock = clock
        self._one_step = threading.Lock()
        self._watch: Watch | None = None
        self._index = -1
        self._known: set[bytes] = set()
        self._told: set[bytes] = set()
        self._waiting: dict[bytes, Alert] = {}

    def step(self) -> int:
        """(1) to (3); how many alerts were recorded. Raises StorageFull, StorageFault, Busy, and goes on from there."""
        with self._one_step:
            if self._watch is None:
                self._watch = self._begin()
            for event in self._since(self._index):  # (1)
                self._hold(self._watch.take(event))  # (2)
                self._index = event.index
            self._hold(map(self._watch.proved, self._proved()))
            self._hold(self._watch.overdue(self._clock()))
            recorded = list(islice(self._waiting.values(), AT_ONCE))
            for alert in recorded:  # (3)
                self._access.administered("security.alert", SYSTEM, body(alert), outcome=alert.severity)
                self._known.add(alert.id)
                del self._waiting[alert.id]
            return len(recorded)

    def wrong_block(self, member: str, cid: str) -> None:
        """Record that a member offered another block than was asked for, once an hour of each; such a block is refused.

        Errors as `tell`.
        """
        self.tell(offered_wrong(member, cid, self._clock()))

    def tell(self, alert: Alert) -> None:
        """Record an alert that no rule over events finds, at once and once, whichever of the node's processes tells it.

        Raises StorageFull, StorageFault, Busy.
        """
        if alert.id in self._told:
            return
        with self._alone():
            if alert.id not in {held.id for held in self.recorded()}:
                self._access.administered("security.alert", SYSTEM, body(alert), outcome=alert.severity)
        self._told.add(alert.id)

    def recorded(self) -> Sequence[Alert]:
        """The newest alerts that were recorded, at most 1,000, newest first. Raises StorageFault."""
        found = []
        for sealed in last_records(self._database, "security.alert", MOST_ALERTS):
            try:
                encoded = self._open(None, sealed)
            except ContentCorrupt:
                continue  # cairn ledger verify names it
            if encoded is not None:
                found.append(alert_of(record.decode(encoded).body))
        return found

    def find(self, since_us: int) -> tuple[Sequence[Alert], Sequence[Event]]:
        """What the rules find in the log from a time on, recorded or not, and the break-glass accesses to be reviewed.

        Raises StorageFault.
        """
        watch = Watch(self._thresholds, self._details, self._own, lambda event: self._refs(event.id))
        found: dict[bytes, Alert] = {}
        events = self._pages(EventQuery(since_us=since_us, limit=PAGE))
        for event in self._before(since_us):
            watch.remember(event)
        for event in reversed(events):
            found |= {alert.id: alert for alert in watch.take(event) if alert.id not in found}
        proved = (alert for alert in map(watch.proved, self._proved()) if alert.time_us >= since_us)
        told = (alert for alert in self.recorded() if alert.rule in TOLD and alert.time_us >= since_us)
        found |= {alert.id: alert for alert in (*proved, *told, *watch.overdue(self._clock()))}
        return sorted(found.values(), key=lambda alert: (alert.time_us, alert.id)), watch.unreviewed

    def review(self, actor: Actor, entry: bytes, note: str) -> Event:
        """Record that an entry, such as a break-glass access, was reviewed; the event that was.

        Raises NotFound for an unknown entry or record, RequestError for a note that is empty or beyond 2,000
        characters, StorageFull, StorageFault, Busy.
        """
        note = note.strip()
        if not 1 <= len(note) <= LONGEST_NOTE:
            raise RequestError(f"a review needs a note of 1 to {LONGEST_NOTE} characters")
        event = self._trail.event(entry)
        self._access.administered("audit.review", actor, {"entry": event.id, "reviewed": event.type, "note": note})
        return event

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Among this node's processes and threads; given back when a process ends however it ends."""
        if self._lock is None:
            yield
            return
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFault(f"{self._lock.name} cannot be opened ({type(error).__name__})") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _hold(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            if alert.id not in self._known:
                self._waiting.setdefault(alert.id, alert)

    def _begin(self) -> Watch:
        """A watch that knows what came before the last two hours; what follows is taken as new."""
        self._known = {alert.id for alert in self.recorded()}
        watch = Watch(self._thresholds, self._details, self._own, lambda event: self._refs(event.id))
        newest = self._trail.search(EventQuery(limit=1))
        since = newest[0].time_us - LOOK_BACK_US if newest else 0
        first = None
        for event in self._pages(EventQuery(since_us=since, limit=PAGE)):
            first = event
        for event in self._before(since):
            watch.remember(event)
        self._index = first.index - 1 if first is not None else -1
        return watch

    def _before(self, until_us: int) -> Sequence[Event]:
        """What still matters of what is older, in the order of the log."""
        kinds = EventQuery(types=_REMEMBERED, until_us=until_us, limit=PAGE)
        broken = EventQuery(types=BROKEN, purposes=(EMERGENCY,), until_us=until_us, limit=PAGE)
        return sorted([*self._pages(kinds), *self._pages(broken)], key=lambda event: event.index)

    def _since(self, index: int) -> Sequence[Event]:
        """Every event above an index, in the order of the log. Asked every second: nothing new costs one event."""
        found: list[Event] = []
        query = EventQuery(limit=1)
        while page := self._trail.search(query):
            found += [event for event in page if event.index > index]
            left = page[-1].index - index - 1
            if left <= 0:
                break
            query = EventQuery(limit=min(PAGE, left), before=page[-1].index)
        return found[::-1]

    def _pages(self, query: EventQuery) -> Sequence[Event]:
        """Every matching event, newest first."""
        found: list[Event] = []
        while page := self._trail.search(query):
            found += page
            query = replace(query, before=page[-1].index)
        return found

    def _details(self, event: Event) -> Sequence[Detail]:
        try:
            return self._trail.details(event.id)
        except NotFound:
            return ()


def body(alert: Alert) -> dict[str, object]:
    """What the record of an alert says."""
    return {
        "alert": alert.id,
        "rule": alert.rule,
        "severity": alert.severity,
        "raised": alert.time_us,
        "what": alert.what,
        "type_code": RULES[alert.rule].type_code,
        "entries": list(alert.entries),
    }


def alert_of(said: Mapping[str, object]) -> Alert:
    """The alert that a record tells of."""
    return Alert(
        cast(bytes, said["alert"]),
        cast(RuleName, said["rule"]),
        cast(int, said["severity"]),
        cast(int, said["raised"]),
        cast(str, said["what"]),
        tuple(cast(list[bytes], said["entries"])),
    )
