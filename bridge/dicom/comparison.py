"""The plain reading of a match: PS3.4 C.2.2.2 in a few lines of Python, which the tests hold the index's SQL against.

Where the standard leaves it to us: person names match without regard to case, with "^" and spaces alike; an attribute
that ought to hold one value is matched on its first; stored times of low precision count as their earliest moment.
Pure; thread-safe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from bridge.dicom.attributes import BY_TAG, Attribute
from bridge.dicom.matching import AnyOf, DateTimeSpan, Empty, InItem, Match, Name, Numbers, Span, Universal, Wildcard
from bridge.dicom.normal import NameForms, date_text, integer, name_forms, time_text


def texts(attribute: Attribute, value: Mapping[str, object] | None) -> tuple[str, ...]:
    """The normal texts of a DICOM JSON attribute that matching looks at; () when there is none.

    Person names give (alphabetic, ideographic, phonetic, folded); attributes within sequences one per item;
    Modalities and SOP Classes in Study all their values; others their first value.
    """
    values = value.get("Value") if value is not None else None
    if not isinstance(values, (list, tuple)) or not values:
        return ()
    if attribute.vr == "PN":
        return tuple(forms(values[0]))
    several = values if attribute.computed else values[:1]
    return tuple(text for one in several if (text := normal(attribute, one)))


def forms(value: object) -> NameForms:
    """The forms of one DICOM JSON person name: an object of groups (PS3.18 F.2.2), or plain text."""
    if not isinstance(value, Mapping):
        value = {"Alphabetic": value}
    groups = (value.get("Alphabetic"), value.get("Ideographic"), value.get("Phonetic"))
    return name_forms(*(group if isinstance(group, str) else "" for group in groups))


def normal(attribute: Attribute, value: object) -> str:
    """One DICOM JSON value as the text that is compared; "" for none, or a date, time or number that is none."""
    if value is None or isinstance(value, (Mapping, list, tuple)):
        return ""
    text = str(value)
    if attribute.vr == "DA":
        return date_text(text) or ""
    if attribute.vr == "TM":
        return (time_text(text) or ("", ""))[0]
    if attribute.vr == "IS":
        number = integer(text)
        return "" if number is None else str(number)
    return text.replace("\0", "").strip(" ")


def matches(match: Match, attributes: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether an object's attributes (tag -> DICOM JSON attribute, all levels merged) satisfy the match."""
    if isinstance(match, Universal):
        return True
    if isinstance(match, InItem):
        items = attributes.get(match.sequence, {}).get("Value")
        candidates = [item for item in items if isinstance(item, Mapping)] if isinstance(items, (list, tuple)) else []
        return any(all(matches(inner, _item(item)) for inner in match.matches) for item in candidates or [{}])
    if isinstance(match, DateTimeSpan):
        date = "".join(texts(match.date, attributes.get(match.date.tag))[:1])
        time = "".join(texts(match.time, attributes.get(match.time.tag))[:1])
        return bool(date) and (match.start or ("", "")) <= (date, time) <= (match.end or ("99999999", ""))
    found = texts(match.attribute, attributes.get(match.attribute.tag))
    if isinstance(match, Empty):
        return not any(found)
    if isinstance(match, Name):
        return bool(found) and _name_matches(match, NameForms(*found))
    return any(_value_matches(match, text) for text in found)


def _item(item: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, object]]:
    return {tag: item[tag.partition(".")[2]] for tag in BY_TAG if "." in tag and tag.partition(".")[2] in item}


def _value_matches(match: AnyOf | Wildcard | Numbers | Span, text: str) -> bool:
    if isinstance(match, AnyOf):
        return text in match.values
    if isinstance(match, Wildcard):
        return any(_pattern(pattern).fullmatch(text) is not None for pattern in match.patterns)
    if isinstance(match, Numbers):
        return int(text) in match.values
    return (match.start or "") <= text and (match.end is None or text <= match.end)


def _name_matches(match: Name, name: NameForms) -> bool:
    if match.words:
        return all(_pattern(f"* {word}*").fullmatch(f" {name.folded}") is not None for word in match.words)
    groups = name[:3]
    if len(match.patterns) == 1:
        return any(_pattern(match.patterns[0] or "").fullmatch(group) is not None for group in groups if group)
    given = [(p, group) for p, group in zip(match.patterns, groups, strict=False) if p is not None]
    return all(_pattern(pattern).fullmatch(group) is not None for pattern, group in given)


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.compile("".join(parts), re.DOTALL)
