"""What a query asks, as values, and the plain reading of it: PS3.4 C.2.2.2 attribute matching, PS3.18 8.3.4.

Both front doors parse with `match_for`, then `arrange` what they parsed; the index translates the result into SQL
(`bridge.dicom.comparison` says the same in plain Python). Values are written alike at both doors but for lists of UIDs
(comma in PS3.18 8.3.4.1, backslash in PS3.4 C.2.2.2.2); OHIF writes backslashes over HTTP too, so either is taken.
Pure; thread-safe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from bridge.dicom.attributes import LEVELS, Attribute, Matching
from bridge.dicom.attributes import Level as Level
from bridge.dicom.normal import date_text, fuzzy_words, integer, name_pattern, time_text
from bridge.dicom.uids import identifies
from bridge.errors import QueryInvalid

_SEPARATOR: Final = re.compile(r"[,\\]")
_LONGEST_VALUE: Final = 1024
_MOST_VALUES: Final = 1000
_MOST_WILDCARDS: Final = 16
_AFTER_ANY_TIME: Final = "9"

DATES_AND_TIMES: Final = {
    "00080020": "00080030",
    "00080021": "00080031",
    "00080023": "00080033",
    "00400244": "00400245",
}
"""Dates and the times that go with them: study, series, content, performed procedure step start."""


@dataclass(frozen=True, slots=True)
class Universal:
    """Matches everything, also what has no value (PS3.4 C.2.2.2.3); the attribute is returned."""

    attribute: Attribute


@dataclass(frozen=True, slots=True)
class Empty:
    """Matches an attribute that is absent or has no value (PS3.4 C.2.2.2.7, the value "" in quotes)."""

    attribute: Attribute


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Matches one of the texts exactly: single value, list of UID, or multiple value matching."""

    attribute: Attribute
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Matches one of the patterns: "*" for any characters, "?" for one, all others themselves (PS3.4 C.2.2.2.4)."""

    attribute: Attribute
    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Matches one of the numbers, however it was written (IS)."""

    attribute: Attribute
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Name:
    """Matches a person name by normal patterns (see `bridge.dicom.normal`).

    `patterns` has one pattern, tried on each of the alphabetic, ideographic and phonetic groups, or three (None for a
    group left open) when the query itself used "=". With `words` (fuzzy matching, PS3.18 8.3.4.2) each word, in any
    order and without its accents, must begin a word of the name.
    """

    attribute: Attribute
    patterns: tuple[str | None, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Matches dates or times from `start` to `end`, both included, in normal text; None is open (PS3.4 C.2.2.2.5)."""

    attribute: Attribute
    start: str | None
    end: str | None
    ranged: bool = True
    """Whether the query wrote a range, rather than one value whose precision makes it a span."""


@dataclass(frozen=True, slots=True)
class DateTimeSpan:
    """One interval from a date and a time range together (PS3.18 8.3.4.1.1): both ends in normal text or open."""

    date: Attribute
    time: Attribute
    start: tuple[str, str] | None
    end: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class InItem:
    """Matches when one and the same item of the sequence satisfies all (PS3.4 C.2.2.2.6)."""

    sequence: str
    matches: tuple[Match, ...]


Match: TypeAlias = Universal | Empty | AnyOf | Wildcard | Numbers | Name | Span | DateTimeSpan | InItem


def keywords(match: Match) -> frozenset[str]:
    """The keywords of the attributes that a match looks at; for an item, those within it."""
    if isinstance(match, DateTimeSpan):
        return frozenset({match.date.keyword, match.time.keyword})
    if isinstance(match, InItem):
        return frozenset().union(*(keywords(within) for within in match.matches))
    return frozenset({match.attribute.keyword})


class Every(Enum):
    """The value of `includefield=all`."""

    ALL = "all"


ALL: Final = Every.ALL


@dataclass(frozen=True, slots=True)
class Query:
    """A search at one level.

    `study` and `series` restrict it to the resource of the URL (or the hierarchy's unique keys); `keys` come from
    `arrange`; `include` holds tags to return besides, or ALL; `limit` and `offset` count matches.
    """

    level: Level
    study: str | None = None
    series: str | None = None
    keys: tuple[Match, ...] = ()
    include: frozenset[str] | Every = frozenset()
    limit: int = 100
    offset: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant: QueryInvalid for a negative page or a key below the level asked."""
        if self.limit < 0 or self.offset < 0:
            raise QueryInvalid("limit and offset must not be negative")
        for match in self.keys:
            for attribute in attributes_of(match):
                if LEVELS.index(attribute.level) > LEVELS.index(self.level):
                    raise QueryInvalid(f"{attribute.keyword} cannot be matched at {self.level} level")


def attributes_of(match: Match) -> tuple[Attribute, ...]:
    """The attributes that a match looks at."""
    if isinstance(match, DateTimeSpan):
        return match.date, match.time
    if isinstance(match, InItem):
        return tuple(attribute for inner in match.matches for attribute in attributes_of(inner))
    return (match.attribute,)


def arrange(matches: Sequence[Match], *, combine: bool = True) -> tuple[Match, ...]:
    """Join what belongs together: keys within one sequence item, and (if `combine`) a date range with its time range.

    `combine` is what PS3.18 8.3.4.1.1 demands of QIDO-RS, and PS3.4 C.5.2.1.1 of C-FIND only when negotiated. A range
    of times beside a date that is open at the same end has nothing to combine with and stays a time of day.
    """
    plain: list[Match] = []
    items: dict[str, list[Match]] = {}
    for match in matches:
        tag = attributes_of(match)[0].tag
        if "." in tag:
            items.setdefault(tag.partition(".")[0], []).append(match)
        else:
            plain.append(match)
    if combine:
        for date_tag, time_tag in DATES_AND_TIMES.items():
            _combine(plain, date_tag, time_tag)
    return (*plain, *(InItem(tag, tuple(inner)) for tag, inner in items.items()))


def _combine(plain: list[Match], date_tag: str, time_tag: str) -> None:
    spans = {match.attribute.tag: match for match in plain if isinstance(match, Span)}
    date, time = spans.get(date_tag), spans.get(time_tag)
    if date is None or time is None or not time.ranged:
        return
    if (date.start is None and time.start is not None) or (date.end is None and time.end is not None):
        return
    plain.remove(time)
    start = None if date.start is None else (date.start, time.start or "")
    end = None if date.end is None else (date.end, time.end or _AFTER_ANY_TIME)
    plain[plain.index(date)] = DateTimeSpan(date.attribute, time.attribute, start, end)


def match_for(attribute: Attribute, text: str, *, fuzzy: bool = False, multiple: bool = False) -> Match:
    """What one key asks.

    Parameters
    ----------
    attribute
        A matching key (`bridge.dicom.attributes.key`).
    text
        The value, decoded. "" and "*" match everything, '""' (two quotes) an empty or absent value.
    fuzzy
        Fuzzy matching of person names (`fuzzymatching=true`).
    multiple
        Multiple value matching (`multiplevaluematching=true`) of text; UIDs and codes (VR CS, whose values can hold no
        comma) are taken as lists in any case.

    Raises
    ------
    QueryInvalid
        When the attribute cannot be matched, or the value is not one of its VR.
    """
    if attribute.matching is None:
        raise QueryInvalid(f"{attribute.keyword} cannot be matched")
    if text == '""':
        return Empty(attribute)
    bare = text.strip(" \0")
    if ("\0" in text and (not bare or "\0" in text.rstrip("\0"))) or not _is_encodable(text):
        raise _invalid(attribute)  # padding behind a value is let through; padding alone is not a universal match
    if not bare.strip("*"):
        return Universal(attribute)
    listed = multiple or attribute.matching in (Matching.UID, Matching.CODE)
    values = tuple(dict.fromkeys(part.strip(" ") for part in _SEPARATOR.split(bare))) if listed else (bare,)
    values = tuple(value for value in values if value)
    if not values:
        raise _invalid(attribute)
    most = _LONGEST_VALUE if len(values) == 1 else _LONGEST_VALUE * _MOST_VALUES
    if len(values) > _MOST_VALUES or len(bare) > most:
        raise QueryInvalid(f"the value of {attribute.keyword} is too long")
    return _by_kind(attribute, values, fuzzy)


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _by_kind(attribute: Attribute, values: tuple[str, ...], fuzzy: bool) -> Match:
    match attribute.matching:
        case Matching.UID:
            return _uids(attribute, values)
        case Matching.NUMBER:
            return _numbers(attribute, values)
        case Matching.DATE | Matching.TIME:
            return _span(attribute, values)
        case Matching.NAME:
            return _name(attribute, values, fuzzy)
        case _:
            return _text(attribute, values)


def _uids(attribute: Attribute, values: tuple[str, ...]) -> Match:
    # PS3.4 C.2.2.2.4: wildcards do not apply to UI.
    if any(not identifies(value) for value in values):
        raise _invalid(attribute)
    return AnyOf(attribute, values)


def _numbers(attribute: Attribute, values: tuple[str, ...]) -> Match:
    numbers = tuple(integer(value) for value in values)
    if None in numbers:
        raise _invalid(attribute)
    return Numbers(attribute, tuple(number for number in numbers if number is not None))


def _text(attribute: Attribute, values: tuple[str, ...]) -> Match:
    if any(set(value) == {"*"} for value in values):
        return Universal(attribute)
    if not any("*" in value or "?" in value for value in values):
        return AnyOf(attribute, values)
    patterns = tuple(re.sub(r"\*{2,}", "*", value) for value in values)
    _bounded(attribute, patterns)
    return Wildcard(attribute, patterns)


def _name(attribute: Attribute, values: tuple[str, ...], fuzzy: bool) -> Match:
    if len(values) > 1:
        raise QueryInvalid(f"{attribute.keyword} takes one value")
    text = values[0]
    if not text.strip("*^= "):
        return Universal(attribute)
    _bounded(attribute, (text,))
    if fuzzy:
        words = fuzzy_words(text)
        return Name(attribute, (), words) if words else Universal(attribute)
    if "=" not in text:
        return Name(attribute, (name_pattern(text),))
    groups = text.split("=")
    if len(groups) > 3:
        raise _invalid(attribute)
    return Name(attribute, tuple(name_pattern(group) if group.strip("*^ ") else None for group in groups))


def _bounded(attribute: Attribute, patterns: tuple[str, ...]) -> None:
    """Wildcards cost time that grows with their number: refuse more than anyone would type."""
    if any(pattern.count("*") > _MOST_WILDCARDS for pattern in patterns):
        raise QueryInvalid(f"{attribute.keyword} has too many wildcards")


def _span(attribute: Attribute, values: tuple[str, ...]) -> Match:
    if len(values) > 1:
        raise QueryInvalid(f"{attribute.keyword} takes one value or a range")
    text = values[0]
    if "-" not in text:
        earliest, latest = _ends(attribute, text)
        return Span(attribute, earliest, latest, ranged=False)
    low, _, high = (part.strip(" ") for part in text.partition("-"))
    # OHIF writes "START-20261122" and "19700102-END" where the standard leaves the end out.
    start = None if low in ("", "START") else _ends(attribute, low)[0]
    end = None if high in ("", "END") else _ends(attribute, high)[1]
    if start is None and end is None and not (low or high):
        raise _invalid(attribute)
    if start is not None and end is not None and start > end:
        raise QueryInvalid(f"the range of {attribute.keyword} ends before it starts")
    return Span(attribute, start, end)


def _ends(attribute: Attribute, text: str) -> tuple[str, str]:
    if attribute.matching is Matching.DATE:
        day = date_text(text)
        ends = None if day is None else (day, day)
    else:
        ends = time_text(text)
    if ends is None:
        raise _invalid(attribute)
    return ends


def _invalid(attribute: Attribute) -> QueryInvalid:
    return QueryInvalid(f"the value of {attribute.keyword} is not a valid {attribute.vr}")
