"""Searches: QIDO-RS (PS3.18 8.3.4 and 10.6). What cannot be honoured is refused, never left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.responses import Response

from bridge.dicom.attributes import LEVELS, TABLE, Level, find, key
from bridge.dicom.matching import ALL, Every, Match, Query, arrange, keywords, match_for
from bridge.errors import QueryInvalid
from dicomweb import media_types
from dicomweb.exchange import Exchange
from dicomweb.media_types import DICOM_JSON, JSON, Offer
from dicomweb.resource import Parameter
from dicomweb.responses import whole

RETRIEVE_URL = "00081190"
_MAX_NUMBER = 10**9
_COUNT, _TRUTH = {"type": "integer", "minimum": 0}, {"type": "boolean"}
_HOW = (
    Parameter("limit", "At most so many matches.", _COUNT),
    Parameter("offset", "Leave out so many.", _COUNT),
    Parameter("includefield", "Attributes to return besides, or `all`.", {"type": "string"}, repeated=True),
    Parameter("fuzzymatching", "Match names word by word.", _TRUTH),
    Parameter("multiplevaluematching", "Take commas for `or`.", _TRUTH),
)


@dataclass(slots=True)
class Parameters:
    """A search as its query string spells it (PS3.18 Table 8.3.4-1)."""

    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    multiple: bool = False
    include: set[str] = field(default_factory=set)
    everything: bool = False
    keys: list[tuple[str, str]] = field(default_factory=list)


def parse(parameters: Sequence[tuple[str, str]]) -> Parameters:
    """Sort the query parameters. Raises QueryInvalid, naming the parameter, for a bad value or one given twice."""
    found = Parameters()
    seen: set[str] = set()
    for name, value in parameters:
        if name == "accept":
            continue
        if name == "includefield":
            _include(found, value)
            continue
        if name in seen:
            raise QueryInvalid(f"{_shown(name)} is given more than once (PS3.18 8.3.4.1)")
        seen.add(name)
        if name == "limit":
            found.limit = _number(name, value)
        elif name == "offset":
            found.offset = _number(name, value)
        elif name == "fuzzymatching":
            found.fuzzy = _truth(name, value)
        elif name == "multiplevaluematching":
            found.multiple = _truth(name, value)
        elif name == "emptyvaluematching":
            _truth(name, value)
        else:
            found.keys.append((name, value))
    return found


def _include(found: Parameters, value: str) -> None:
    """`includefield`: repeated or a comma list, tags, keywords or dotted paths, or `all` (PS3.18 8.3.4.3).

    An attribute that is not indexed is left out of the answer, as 8.3.4.3 allows; matching on one is refused.
    """
    for name in filter(None, (piece.strip() for piece in value.split(","))):
        if name == "all":
            found.everything = True
            continue
        attribute = find(name)
        if attribute is not None:
            found.include.add(attribute.tag)


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise QueryInvalid(f"{name} is not a whole number from 0 to {_MAX_NUMBER - 1}")
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise QueryInvalid(f"{name} is neither true nor false")
    return value == "true"


def _shown(name: str) -> str:
    """A parameter's name as a message may repeat it: an attribute's own spelling or a short printable word."""
    return name if len(name) <= 64 and name.isascii() and name.replace(".", "").isalnum() else "A parameter"


def query_of(level: Level, path: Mapping[str, str], parameters: Sequence[tuple[str, str]], most: int) -> Query:
    """The query that a URL asks; `most` bounds its page. Raises QueryInvalid naming the offending parameter."""
    asked = parse(parameters)
    matches: list[Match] = []
    seen: set[str] = set()
    for name, value in asked.keys:
        try:
            attribute = key(name)
        except QueryInvalid as error:
            raise QueryInvalid(f"{_shown(name)}: {error.detail}") from None
        if attribute.tag in seen:
            raise QueryInvalid(f"{attribute.keyword} is given more than once (PS3.18 8.3.4.1)")
        seen.add(attribute.tag)
        matches.append(match_for(attribute, value, fuzzy=asked.fuzzy, multiple=asked.multiple))
    limit = most if asked.limit is None else min(asked.limit, most)
    include: frozenset[str] | Every = ALL if asked.everything else frozenset(asked.include)
    return Query(level, path.get("study"), path.get("series"), arrange(matches), include, limit, asked.offset)


def key_names(query: Query) -> Sequence[str]:
    """What a query matches on, by keyword and in order: for the record, which holds no values."""
    path = [name for name, uid in (("StudyInstanceUID", query.study), ("SeriesInstanceUID", query.series)) if uid]
    return sorted({*path, *(name for match in query.keys for name in keywords(match))})


def parameters(level: Level) -> tuple[Parameter, ...]:
    """What a search at a level can be asked by: the keys of the level and of those above it, and how to answer."""
    keys = [row for row in TABLE if row.matching is not None and LEVELS.index(row.level) <= LEVELS.index(level)]
    return (
        *(Parameter(row.keyword, f"Matching key {row.tag} ({row.vr}).", {"type": "string"}) for row in keys),
        *_HOW,
    )


def search(level: Level) -> Callable[[Exchange], Response]:
    """The handler of the search resources of one level."""

    def handler(exchange: Exchange) -> Response:
        """Search by matching keys (PS3.18 10.6)."""
        offers = [Offer(DICOM_JSON, wildcard=True), Offer(JSON)]
        offer = media_types.choose(exchange.accept, exchange.accept_parameters, offers)
        query = query_of(level, exchange.path, exchange.parameters, exchange.node.settings.web.query_limit)
        page = exchange.node.search(query)
        exchange.node.access.query(exchange.actor, level.value, key_names(query), len(page.matches))
        headers = {"cache-control": "private, no-store"}
        if page.remaining > 0:
            # The wording is that of PS3.18 8.3.4.4.1; clients page by it.
            remaining = f"There are {page.remaining} additional results that can be requested"
            headers["warning"] = f"299 {exchange.root}: {remaining}"
        if not page.matches:
            return Response(status_code=204, headers=headers)
        matches = [_with_url(match, exchange.root, level, query) for match in page.matches]
        body = json.dumps(matches, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return whole(exchange, body, headers, offer.media_type)

    return handler


def _with_url(match: Mapping[str, object], root: str, level: Level, query: Query) -> dict[str, object]:
    """A match with Retrieve URL (0008,1190), absolute, in its place: ascending tags (PS3.18 F.2.2)."""
    study = _uid(match, "0020000D") or query.study
    url = f"{root}/studies/{study}"
    if level is not Level.STUDY:
        url += f"/series/{_uid(match, '0020000E') or query.series}"
    if level is Level.INSTANCE:
        url += f"/instances/{_uid(match, '00080018')}"
    return dict(sorted({**match, RETRIEVE_URL: {"vr": "UR", "Value": [url]}}.items()))


def _uid(match: Mapping[str, object], tag: str) -> str | None:
    attribute = match.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    return str(values[0]) if isinstance(values, list | tuple) and values else None
