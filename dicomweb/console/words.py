"""Values as people read them: times, names, counts, hashes, and an event as one sentence. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from dicomweb.console.html import Content, Html, link, path, tag, text
from ledger.event import OUTCOMES, Event, Patient
from ledger.sentence import actor as actor_words
from ledger.sentence import sentence
from ledger.types import ENTRY_TYPES, PURPOSES

_STUDY: Final = "\x00study\x00"  # stands for the study in a sentence until its markup is put there
_TAG: Final = re.compile("[0-9a-f]{32}")
_GROUPS: Final[Mapping[str, frozenset[str]]] = {
    "store": frozenset({"study.store", "study.import"}),
    "view": frozenset({"study.access"}),
    "query": frozenset({"study.query"}),
    "export": frozenset({"study.export", "archive.export"}),
    "end": frozenset({"study.delete", "study.erase"}),
    "share": frozenset(
        {"consent.grant", "consent.revoke", "share.receipt", "share.end", "emergency.start", "emergency.end"}
    ),
    "keep": frozenset({"replica.assign", "replica.receipt", "replica.release"}),
    "govern": frozenset({"ledger.join", "gov.propose", "gov.vote"}),
    "refuse": frozenset({"auth.fail", "access.refused"}),
    "alert": frozenset({"security.alert"}),
    "admin": frozenset({"admin.token", "admin.key", "config.change"}),
    "check": frozenset({"content.scrub"}),
    "audit": frozenset({"audit.view", "audit.review"}),
}
GROUPS: Final[Mapping[str, str]] = {
    "store": "Stored",
    "view": "Viewed",
    "query": "Searched",
    "export": "Exported",
    "end": "Deleted",
    "share": "Shared",
    "keep": "Replicated",
    "govern": "Consortium",
    "refuse": "Refused",
    "alert": "Alert",
    "admin": "Administered",
    "check": "Checked",
    "audit": "Audited",
    "node": "Node",
}
"""Kinds of events by the colour that they share, with the word for what happened."""


@dataclass(frozen=True, slots=True)
class StudyNote:
    """What the index says of a study: description, modalities, date (YYYYMMDD), counts; empty or 0 when not known."""

    description: str = ""
    modalities: str = ""
    date: str = ""
    series: int = 0
    instances: int = 0
    patient: Patient | None = None


def group(type_: str) -> str:
    """The key in GROUPS of an entry type."""
    return next((name for name, types in _GROUPS.items() if type_ in types), "node")


def moment(time_us: int) -> datetime:
    """A time in microseconds since the epoch, in UTC; the last that can be written when it is beyond all calendars."""
    try:
        return datetime.fromtimestamp(time_us / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def clock(time_us: int) -> Html:
    """The time of day of an event to the second, machine readable."""
    when = moment(time_us)
    return tag("time", f"{when:%H:%M:%S}", datetime=iso(time_us))


def day(time_us: int) -> str:
    """The day in words."""
    when = moment(time_us)
    return f"{when:%A} {when.day} {when:%B %Y}"


def stamp(time_us: int) -> Html:
    """Day and time of an event in one line, machine readable, in UTC."""
    when = moment(time_us)
    return tag("time", f"{when.day} {when:%b %Y, %H:%M:%S} UTC", datetime=iso(time_us))


def iso(time_us: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return moment(time_us).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """A length of time in its largest fitting unit: "12 seconds", "3 hours", "5 days"."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size * (2 if size > 60 else 1):
            return count(int(seconds // size), unit)
    return count(int(seconds), "second")


def count(number: int, unit: str, plural: str | None = None) -> str:
    """A number and its unit: "1 entry", "1,234 entries"."""
    return f"{number:,} {unit if number == 1 else plural or unit + 's'}"


def size(octets: int) -> str:
    """Bytes in binary units."""
    value = float(octets)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def cid(value: bytes) -> str:
    """A CID as text: multibase base32 in lower case, as Kubo prints CIDv1."""
    return "b" + base64.b32encode(value).decode().rstrip("=").lower()


def short(value: bytes) -> Html:
    """The first eight hex digits of a hash, the whole of it for who asks."""
    return tag("code", value.hex()[:8], "…", title=value.hex())


def date(value: str) -> str:
    """A DICOM date (DA) in words; as it is when it is none."""
    try:
        when = datetime.strptime(value, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return value
    return f"{when.day} {when:%b %Y}"


def person(name: str) -> str:
    """A DICOM person name (PN) as a list has it: family name, given names; the first group that is filled."""
    group_ = next((one for one in name.split("=") if one.strip("^ ")), "")
    family, given, middle, prefix, suffix, *_ = [*group_.split("^"), "", "", "", "", ""]
    first = " ".join(one.strip() for one in (prefix, given, middle) if one.strip())
    return ", ".join(one for one in (family.strip(), first, suffix.strip()) if one)


def patient(of: Patient) -> Html:
    """A patient by name and ID, leading to what happened around them."""
    name = person(of.name)
    words = f"{name} ({of.id})" if name else of.id or "without ID"
    return link(timeline_of("patient", of.id), words) if of.id else tag("span", words)


def study(event: Event, note: StudyNote | None = None) -> Html:
    """The study of an event, leading to its story, and whose it is."""
    if event.study is None:
        unknown = "a study that is not known here" if event.shared else "an erased study"
        return text(unknown if event.erased else "a study")
    known = note or StudyNote()
    words: list[str] = [known.modalities] if known.modalities else []
    words.append(f"“{known.description}”" if known.description else f"…{event.study[-16:]}")
    of_day = f" of {date(known.date)}" if known.date else ""
    named = link(path("console", "studies", event.study), " ".join(words), title=event.study)
    of = event.patient or known.patient
    return text(("study ", named, of_day, (" of patient ", patient(of)) if of else None))


def told(event: Event, note: StudyNote | None = None) -> Html:
    """The event as one sentence, with its actor, study and patient marked and linked."""
    words = sentence(event, _STUDY)
    who = actor_words(event.actor)
    before, found, after = words.removeprefix(who).partition(_STUDY)
    name, bracket, rest = who.partition(" (")
    if is_tag(name):  # of another hospital, which alone knows whose tag it is
        acted: Content = (tag("b", "Somebody", title=f"tag {name}"), tag("span", bracket, rest, class_="muted"))
    else:
        acted = (tag("b", name), tag("span", bracket, rest, class_="muted"))
    if event.hospital:
        acted = (acted, tag("span", f" at {event.hospital}", class_="site"))
    said = text((acted if words.startswith(who) else None, before if words.startswith(who) else words))
    return text((said, study(event, note) if found else None, after))


def badge(type_: str) -> Html:
    """The entry type as a coloured mark; the colour says nothing that the word does not."""
    return tag("span", GROUPS[group(type_)], class_=f"badge {group(type_)}", title=meaning(type_))


def meaning(type_: str) -> str:
    """What an entry type states."""
    row = ENTRY_TYPES.get(type_)
    return f"{type_}: {row.meaning}" if row else type_


def is_tag(name: str) -> bool:
    """Whether an actor is known here by a tag alone: of another hospital, or under a key that was changed."""
    return _TAG.fullmatch(name) is not None


def finality(event: Event) -> Html:
    """Whose word an entry is so far: that of all members, or of this node alone."""
    if event.shared:
        said = "the members agreed on it: nobody can take it back, and every one of them holds it"
        return tag("span", "final", class_="badge check", title=said)
    return tag("span", "signed", class_="badge node", title="signed by this node, in a log of its own")


def outcome(value: int) -> str:
    """An EventOutcomeIndicator in words."""
    return OUTCOMES.get(value, f"outcome {value}")


def purpose(code: str) -> str:
    """A purpose of use in words, its code behind."""
    return f"{PURPOSES[code]} ({code})" if code in PURPOSES else code


def timeline_of(field: str, value: str) -> str:
    """The timeline of one actor, patient, study ..."""
    return "/console/?" + urlencode({field: value})
