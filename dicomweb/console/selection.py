"""Which events a timeline shows, as its address says it: every state of the page is a link that can be kept. Pure.

Its parameters are those of `/ledger/entries`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from bridge.dicom.uids import PATTERN
from bridge.errors import RequestError
from dicomweb.console.words import iso
from ledger.event import EventQuery

CHOICES: Final[tuple[tuple[str, str], ...]] = (
    ("type", "Event"),
    ("hospital", "Hospital"),
    ("actor", "Actor"),
    ("role", "Role"),
    ("purpose", "Purpose"),
    ("outcome", "Outcome"),
)
"""Facets with counts: the parameter's name, which is the facet's, and what people call it."""
_REPEATED: Final = ("type", "hospital", "actor", "role", "purpose", "outcome", "node")
_SINGLE: Final = ("study", "patient", "since", "until", "before")
_MOST_VALUES: Final = 50
_LONGEST: Final = 200
_UID: Final = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class Selection:
    """The parameters of a timeline's address.

    `values` has the repeated ones in order as (name, value); `study` is a Study Instance UID, `patient` a Patient ID,
    `since` and `until` microseconds since the epoch, `before` the index below which the page begins.
    """

    values: tuple[tuple[str, str], ...] = ()
    study: str | None = None
    patient: str | None = None
    since: int | None = None
    until: int | None = None
    before: int | None = None

    def of(self, name: str) -> tuple[str, ...]:
        """The chosen values of a repeated parameter."""
        return tuple(value for key, value in self.values if key == name)

    def query(self, limit: int) -> EventQuery:
        """What to ask the trail."""
        return EventQuery(
            types=self.of("type"),
            actors=self.of("actor"),
            roles=self.of("role"),
            studies=() if self.study is None else (self.study,),
            patient=self.patient,
            purposes=self.of("purpose"),
            outcomes=tuple(int(value) for value in self.of("outcome")),
            hospitals=self.of("hospital"),
            nodes=tuple(bytes.fromhex(value) for value in self.of("node")),
            since_us=self.since,
            until_us=self.until,
            before=self.before,
            limit=limit,
        )

    def toggled(self, name: str, value: str) -> Selection:
        """With the value chosen, or not any more; from the newest page on."""
        chosen = (name, value)
        kept = tuple(pair for pair in self.values if pair != chosen)
        return replace(self, values=kept if len(kept) < len(self.values) else (*kept, chosen), before=None)

    def within(self, since: int | None, until: int | None) -> Selection:
        """The same of another stretch of time; from its newest page on."""
        return replace(self, since=since, until=until, before=None)

    def without(self, name: str) -> Selection:
        """Without the restriction of this parameter."""
        match name:
            case "study":
                return replace(self, study=None, before=None)
            case "patient":
                return replace(self, patient=None, before=None)
            case _:
                return replace(self, values=tuple(pair for pair in self.values if pair[0] != name), before=None)

    @property
    def restricted(self) -> bool:
        """Whether anything but the page is chosen."""
        return replace(self, before=None) != Selection()

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of the address, in their order."""
        single = (
            ("study", self.study),
            ("patient", self.patient),
            ("since", None if self.since is None else written(self.since)),
            ("until", None if self.until is None else written(self.until)),
            ("before", None if self.before is None else str(self.before)),
        )
        return [*self.values, *((name, value) for name, value in single if value is not None)]

    @property
    def address(self) -> str:
        """The page of this selection."""
        return "/console/" + (f"?{urlencode(self.parameters)}" if self.parameters else "")


def parse(parameters: Sequence[tuple[str, str]]) -> Selection:
    """The selection of an address; empty values, which a form sends for empty fields, count as not given.

    Raises RequestError, naming the parameter, for one that is unknown, given too often or without meaning.
    """
    values: list[tuple[str, str]] = []
    single: dict[str, str] = {}
    for name, given in parameters:
        value = given.strip() if name in _SINGLE else given
        if name not in (*_REPEATED, *_SINGLE):
            raise RequestError("the timeline has no such parameter; it has " + ", ".join((*_REPEATED, *_SINGLE)))
        if len(value) > _LONGEST:
            raise RequestError(f"{name} is too long")
        if name in _REPEATED:
            # An empty role is a value: actors without one have it.
            if (value or name == "role") and (name, value) not in values:
                values.append((name, _checked(name, value)))
        elif value:
            if name in single:
                raise RequestError(f"{name} is given more than once")
            single[name] = value
    if len(values) > _MOST_VALUES:
        raise RequestError(f"more than {_MOST_VALUES} values are chosen")
    study = single.get("study")
    if study is not None and (not _UID.fullmatch(study) or len(study) > 64):
        raise RequestError("study is not a Study Instance UID")
    before = single.get("before")
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
        raise RequestError("before is not the index of an entry")
    return Selection(
        tuple(values),
        study,
        single.get("patient"),
        _time("since", single.get("since")),
        _time("until", single.get("until")),
        None if before is None else int(before),
    )


def written(time_us: int) -> str:
    """A time as the address has it: RFC 3339 in UTC, as short as it can be."""
    text = iso(time_us)
    return text.replace(".000Z", "Z")


def for_input(time_us: int | None) -> str:
    """A time as the value of `<input type="datetime-local">`."""
    return "" if time_us is None else iso(time_us)[:19]


def _checked(name: str, value: str) -> str:
    """The value when it can be one of its parameter's. Raises RequestError."""
    if name == "outcome" and value not in ("0", "4", "8", "12"):
        raise RequestError("outcome is 0, 4, 8 or 12")
    if name == "node" and (len(value) != 32 or not re.fullmatch("[0-9a-f]*", value)):
        raise RequestError("node is the id of a node, 32 hexadecimal digits")
    return value


def _time(name: str, value: str | None) -> int | None:
    """A date or a time of RFC 3339, in UTC unless it says another offset. Raises RequestError."""
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(value)
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
        since_epoch = when - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise RequestError(f"{name} is not a time like 2026-10-01T08:00") from None
    time_us = since_epoch.days * 86_400_000_000 + since_epoch.seconds * 1_000_000 + since_epoch.microseconds
    if time_us < 0:
        raise RequestError(f"{name} is before 1970")
    return time_us
