"""Which attributes a search gives back: PS3.18 10.6.3.3 and Tables 10.6.3-3 to -5. Pure."""

from __future__ import annotations

from typing import Final

from bridge.dicom.attributes import LEVELS, TABLE, TIMEZONE, Attribute, Level, Returned
from bridge.dicom.matching import ALL, Query, attributes_of

CHARACTER_SET: Final = "00080005"
AVAILABILITY: Final = "00080056"
_AT_EVERY_LEVEL: Final = {CHARACTER_SET, AVAILABILITY, TIMEZONE}
_UNIQUE_KEYS: Final = {Level.STUDY: "0020000D", Level.SERIES: "0020000E"}


class Returning:
    """What one query returns.

    The attributes of its own level and, where the URL (or hierarchy) does not name the study or series, those of the
    levels above; what was matched; what was asked for at these levels or above, never of a level below.

    Attributes
    ----------
    levels
        The levels whose stored values are needed.
    tags
        The tags returned.
    empty
        Those returned without a value when none is known: tag -> {"vr": ...} (PS3.18 F.2.5).
    """

    def __init__(self, query: Query) -> None:
        depth = LEVELS.index(query.level)
        matched = {a.tag.partition(".")[0] for match in query.keys for a in attributes_of(match)}
        asked = set() if query.include is ALL else {tag.partition(".")[0] for tag in query.include}
        default = _levels_by_default(query)
        tags: set[str] = set(_AT_EVERY_LEVEL)
        levels: set[Level] = {query.level}
        empty: list[tuple[str, dict[str, str]]] = []
        for row in TABLE:
            if LEVELS.index(row.level) > depth or "." in row.tag:
                continue
            unasked = row.level in default and row.returned is not Returned.ON_REQUEST
            above = _UNIQUE_KEYS.get(row.level) == row.tag
            if unasked or above or query.include is ALL or row.tag in asked or row.tag in matched:
                tags.add(row.tag)
                levels.add(row.level)
                if unasked and row.returned is Returned.ALWAYS and not row.computed:
                    empty.append((row.tag, {"vr": row.vr}))
        self.tags = frozenset(tags)
        self.levels = tuple(level for level in LEVELS if level in levels)
        self.empty = tuple(empty)

    def wants(self, attribute: Attribute) -> bool:
        """Whether the attribute is among those returned."""
        return attribute.tag in self.tags


def _levels_by_default(query: Query) -> set[Level]:
    levels = {query.level}
    if query.study is None:
        levels |= set(LEVELS[: LEVELS.index(query.level)])
    if query.level is Level.STUDY:
        levels.add(Level.PATIENT)
    if query.level is Level.INSTANCE and query.series is None:
        levels.add(Level.SERIES)
    return levels
