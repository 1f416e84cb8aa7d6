"""What a search of AuditEvents asks (FHIR R4 3.1.1): parameters into an `EventQuery`. Pure.

What cannot be honoured is refused: an auditor who mistypes a parameter must not take everything for an answer.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from bridge.dicom.uids import identifies
from bridge.errors import NotAcceptable, RequestError
from dicomweb.resource import number, shown
from ledger.event import OUTCOMES, EventQuery
from ledger.export.fhir import DCM, REST, action_of
from ledger.types import ENTRY_TYPES

COUNT, MOST = 50, 100
CURSOR: Final = "_cursor"
LARGEST: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATE: Final = re.compile(
    r"(eq|ge|gt|le|lt|sa|eb)?(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(Z|[+-]\d\d:\d\d)?)?)?)?\Z"
)
_JSON: Final = frozenset({"json", "application/json", "application/fhir+json"})


@dataclass(slots=True)
class Asked:
    """A search: the query, how many matches a page holds, and whether it can match anything at all.

    `issuer` restricts to patients whose identifier has this system; the trail knows nothing of it, so that the page is
    thinned out after it was found.
    """

    types: set[str] | None = None
    actors: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    patient: str | None = None
    issuer: str | None = None
    outcomes: tuple[int, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    before: int | None = None
    count: int = COUNT
    given: set[str] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether nothing can match: types that exclude each other, or a span of time that ends before it begins."""
        ended = self.since_us is not None and self.until_us is not None and self.since_us >= self.until_us
        return ended or self.types == set()

    def query(self) -> EventQuery:
        """The search as the trail takes it; one event more than the page holds, to see whether there is a next."""
        return EventQuery(
            types=tuple(sorted(self.types or ())),
            actors=self.actors,
            roles=self.roles,
            studies=self.studies,
            patient=self.patient,
            outcomes=self.outcomes,
            since_us=self.since_us,
            until_us=self.until_us,
            before=self.before,
            limit=self.count + 1,
        )


def parse(parameters: Sequence[tuple[str, str]]) -> Asked:
    """The search that query parameters ask. Raises RequestError naming the parameter that cannot be honoured."""
    asked = Asked()
    for name, value in parameters:
        read = _READERS.get(name)
        if read is None:
            raise RequestError(f"{shown(name)} is not a search parameter here; there are: {', '.join(_READERS)}")
        same = _SAME.get(name, name)
        if same in asked.given and same not in _REPEATED:
            raise RequestError(f"{shown(name)} is given more than once")
        asked.given.add(same)
        if not value:
            raise RequestError(f"{shown(name)} is empty")
        read(asked, value)
    return asked


def span(text: str) -> tuple[str, int, int]:
    """Prefix and half-open span, in microseconds, of a date parameter (R4 3.1.1.4.4): as wide as it is precise.

    A time without zone is UTC. Raises RequestError for what is no date, and for prefixes other than eq ge gt le lt.
    """
    found = _DATE.match(text)
    if not found:
        raise RequestError("date is not [eq|ge|gt|le|lt|sa|eb] and a date or date and time (FHIR R4 3.1.1.4.4)")
    prefix, year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        start = datetime(
            int(year),
            int(month or 1),
            int(day or 1),
            int(hour or 0),
            int(minute or 0),
            int(second or 0),
            int((fraction or "").ljust(6, "0")) if fraction else 0,
            UTC,
        )
        if zone and zone != "Z":
            sign = -1 if zone[0] == "+" else 1
            start += sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        end = start + _width(start, month, day, hour, second, fraction)
    except (ValueError, OverflowError):
        raise RequestError("date names no moment of the calendar") from None
    return prefix or "eq", _microseconds(start), _microseconds(end)


def _width(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None, fraction: str | None
) -> timedelta:
    if month is None:
        return datetime(start.year + 1, 1, 1, tzinfo=UTC) - start
    if day is None:
        return timedelta(days=monthrange(start.year, start.month)[1])
    if hour is None:
        return timedelta(days=1)
    if second is None:
        return timedelta(minutes=1)
    return timedelta(microseconds=10 ** (6 - len(fraction))) if fraction else timedelta(seconds=1)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _date(asked: Asked, value: str) -> None:
    prefix, start, end = span(value)
    since = {"eq": start, "ge": start, "gt": end, "sa": end}.get(prefix)
    until = {"eq": end, "le": end, "lt": start, "eb": start}.get(prefix)
    if since is not None:
        asked.since_us = max(since, asked.since_us if asked.since_us is not None else 0)
    if until is not None:
        asked.until_us = max(min(until, asked.until_us if asked.until_us is not None else LARGEST), 0)


def _patient(asked: Asked, value: str) -> None:
    """A reference `Patient/ID` or `ID`: this node keeps no Patient resources, so that an id is a Patient ID."""
    asked.patient = value.removeprefix("Patient/")


def _patient_identifier(asked: Asked, value: str) -> None:
    """A token `system|value`, `|value` or `value` (R4 3.1.1.4.10)."""
    system, bar, identifier = value.rpartition("|")
    if not identifier:
        raise RequestError("patient.identifier has no value")
    asked.patient = identifier
    if bar:
        asked.issuer = system


def _agent(asked: Asked, value: str) -> None:
    asked.actors = tuple(_last(one) for one in value.split(","))


def _role(asked: Asked, value: str) -> None:
    asked.roles = tuple(value.split(","))


def _entity(asked: Asked, value: str) -> None:
    """Studies: `ImagingStudy/UID`, a token `urn:dicom:uid|urn:oid:UID`, or the UID alone."""
    studies = tuple(_last(one).removeprefix("ImagingStudy/").removeprefix("urn:oid:") for one in value.split(","))
    if not all(map(identifies, studies)):
        raise RequestError("entity names no study: give its Study Instance UID")
    asked.studies = studies


def _last(token: str) -> str:
    return token.rpartition("|")[2]


def _action(asked: Asked, value: str) -> None:
    wanted = set(value.split(","))
    if not wanted <= set("CRUDE"):
        raise RequestError("action is one or more of C,R,U,D,E")
    _restrict(asked, {kind for kind in ENTRY_TYPES if action_of(kind) in wanted})


def _type(asked: Asked, value: str) -> None:
    """A token of the resource's `type`: `rest`, or a code of DICOM's; with its system or without."""
    kinds: set[str] = set()
    for token in value.split(","):
        system, bar, code = token.rpartition("|")
        for kind, row in ENTRY_TYPES.items():
            own = (REST, "rest") if row.profile not in (None, "PrivacyDisclosure.Source") else (DCM, str(row.event))
            if code == own[1] and (not bar or system == own[0]):
                kinds.add(kind)
    _restrict(asked, kinds)


def _restrict(asked: Asked, kinds: set[str]) -> None:
    asked.types = kinds if asked.types is None else asked.types & kinds


def _outcome(asked: Asked, value: str) -> None:
    wanted = [_last(one) for one in value.split(",")]
    if not set(wanted) <= set(map(str, OUTCOMES)):
        raise RequestError(f"outcome is one or more of {','.join(map(str, OUTCOMES))}")
    asked.outcomes = tuple(map(int, wanted))


def _count(asked: Asked, value: str) -> None:
    asked.count = min(number("_count", value, 1, LARGEST), MOST)


def _cursor(asked: Asked, value: str) -> None:
    asked.before = number(CURSOR, value, 0, LARGEST)


def _format(asked: Asked, value: str) -> None:
    if value not in _JSON:
        raise NotAcceptable("Only JSON is at hand: application/fhir+json")


def _sort(asked: Asked, value: str) -> None:
    if value != "-date":
        raise RequestError("_sort is -date: the newest first, as they always are")


_READERS: Final[dict[str, Callable[[Asked, str], None]]] = {
    "date": _date,
    "patient": _patient,
    "patient.identifier": _patient_identifier,
    "patient:identifier": _patient_identifier,
    "agent": _agent,
    "agent.identifier": _agent,
    "agent:identifier": _agent,
    "agent-name:exact": _agent,
    "agent-role": _role,
    "entity": _entity,
    "entity.identifier": _entity,
    "entity:identifier": _entity,
    "type": _type,
    "action": _action,
    "outcome": _outcome,
    "_count": _count,
    "_format": _format,
    "_sort": _sort,
    CURSOR: _cursor,
}
_SAME: Final = {
    "patient.identifier": "patient",
    "patient:identifier": "patient",
    "agent.identifier": "agent",
    "agent:identifier": "agent",
    "agent-name:exact": "agent",
    "entity.identifier": "entity",
    "entity:identifier": "entity",
}
"""Spellings of one restriction, of which one request may hold one."""
_REPEATED: Final = frozenset({"date"})

PARAMETERS: Final = (
    ("date", "date", "When the entry was made; prefixes eq, ge, gt, le, lt, sa, eb; given twice, both hold."),
    ("patient", "reference", "Patient ID, with or without Patient/ before it; patient.identifier as system|value."),
    ("agent", "reference", "The actor's name, whole; agent.identifier likewise."),
    ("agent-role", "token", "The actor's role."),
    ("entity", "reference", "Study Instance UID, with or without urn:oid: before it."),
    ("type", "token", "rest, or a code of DICOM's."),
    ("action", "token", "C, R, U, D or E."),
    ("outcome", "token", "0, 4, 8 or 12."),
)
"""For the CapabilityStatement: name, type, meaning."""
