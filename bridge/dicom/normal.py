"""The normal forms in which values are compared: person names, dates and times. Pure.

Stored values and query values pass through the same functions, so that what is equal for PS3.4 C.2.2.2 is equal as
text. Names become words parted by single spaces ("Doe^John^Q" -> "doe john q"), dates eight digits, times twelve.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from typing import Final, NamedTuple


class NameForms(NamedTuple):
    """The three groups of a person name (PS3.5 6.2.1), each normal or "", and all of them folded without accents."""

    alphabetic: str
    ideographic: str
    phonetic: str
    folded: str


_SEPARATORS: Final = re.compile(r"[\^\s\0]+")
_DATE: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_TIME: Final = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?)?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


def name_text(group: str) -> str:
    """One group of a name as compared: NFC, without case, components parted by one space, empty ones left out."""
    cased = unicodedata.normalize("NFC", unicodedata.normalize("NFC", group).casefold())
    return _SEPARATORS.sub(" ", cased).strip(" ")


def folded(text: str) -> str:
    """`name_text` without combining marks: "Müller" -> "muller" (NFKD, category Mn dropped)."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name_text(text)) if unicodedata.category(c) != "Mn")
    return _SEPARATORS.sub(" ", bare.casefold()).strip(" ")


def name_forms(alphabetic: str, ideographic: str = "", phonetic: str = "") -> NameForms:
    """What is kept of a name for matching; a name given whole ("A=I=P") is parted at its equals signs."""
    if "=" in alphabetic and not ideographic and not phonetic:
        alphabetic, ideographic, phonetic, *_ = [*alphabetic.split("="), "", ""]
    whole = folded(" ".join((alphabetic, ideographic, phonetic)))
    return NameForms(name_text(alphabetic), name_text(ideographic), name_text(phonetic), whole)


def name_pattern(text: str) -> str:
    """A name group with wildcards as compared: runs of "*" become one."""
    return re.sub(r"\*{2,}", "*", name_text(text))


def fuzzy_words(text: str) -> tuple[str, ...]:
    """The folded words of a name query, wildcards within them kept: () when nothing but wildcards was given."""
    words = folded(text.replace("=", " ")).split(" ")
    return tuple(word for word in words if word.strip("*"))


def date_text(text: str) -> str | None:
    """YYYYMMDD of a DA value (or the old YYYY.MM.DD, PS3.5 Table 6.2-1 note), None when it is not a date."""
    found = _DATE.fullmatch(text.strip(" \0").replace(".", "") if text.count(".") in (0, 2) else text)
    if found is None:
        return None
    try:
        date(*(int(part) for part in found.groups()))
    except ValueError:
        return None
    return found.group(0)


def time_text(text: str) -> tuple[str, str] | None:
    """Earliest and latest moment (HHMMSSFFFFFF) that a TM value of any precision means; None when it is no time."""
    bare = text.strip(" \0")
    found = _TIME.fullmatch(bare.replace(":", "") if bare.count(":") in (0, 2) else bare)
    if found is None:
        return None
    hour, minute, second, fraction = found.groups()
    # PS3.5 Table 6.2-1: seconds may be 60 for a leap second.
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    earliest = f"{hour}{minute or '00'}{second or '00'}{(fraction or '').ljust(6, '0')}"
    latest = f"{hour}{minute or '59'}{second or '59'}{(fraction or '').ljust(6, '9')}"
    return earliest, latest


def integer(text: str) -> int | None:
    """The number of an IS value of at most 18 digits, None when it is none."""
    bare = text.strip(" \0")
    return int(bare) if _INTEGER.fullmatch(bare) else None
