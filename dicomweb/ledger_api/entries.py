"""`/ledger/entries`: the ledger's events, searched and one by one, for who may audit. Reading them is recorded."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlencode

from starlette.responses import Response

from bridge.dicom.uids import identifies
from bridge.errors import NotFound, RequestError
from bridge.model import Role
from dicomweb.exchange import Exchange
from dicomweb.ledger_api.event_json import described, detailed, microseconds
from dicomweb.media_types import JSON
from dicomweb.resource import Parameter, arguments, number
from dicomweb.responses import whole
from ledger.event import OUTCOMES, EventQuery
from ledger.types import ENTRY_TYPES

LIMIT, MOST = 100, 1000
ID_DIGITS = 64  # of a leaf hash in hexadecimal
LARGEST = 2**63 - 1  # the largest index, and the latest time, that a database takes
NOT_KEPT = "no-store"
_TEXT = {"type": "string", "maxLength": 256}
_TIME = {"type": "string", "format": "date-time"}

BEFORE = Parameter("before", "Entries below this index alone: the cursor of `next`.", {"type": "integer", "minimum": 0})
PAGE = Parameter("limit", f"At most so many ({LIMIT}).", {"type": "integer", "minimum": 1, "maximum": MOST})
PARAMETERS = (
    Parameter("type", "The entry's type.", {"enum": sorted(ENTRY_TYPES)}, repeated=True),
    Parameter("actor", "The actor's name.", _TEXT, repeated=True),
    Parameter("role", "The actor's role.", {"enum": [role.value for role in Role]}, repeated=True),
    Parameter("study", "Study Instance UID (0020,000D).", {"type": "string", "maxLength": 64}, repeated=True),
    Parameter("patient", "Patient ID (0010,0020).", _TEXT),
    Parameter("purpose", "Purpose of use, an HL7 v3 ActReason code.", _TEXT, repeated=True),
    Parameter("outcome", "EventOutcomeIndicator (PS3.15 A.5.2.1).", {"enum": list(OUTCOMES)}, repeated=True),
    Parameter("node", "The node that wrote it: 32 hexadecimal digits.", {"type": "string"}, repeated=True),
    Parameter("hospital", "The member whose node wrote it, by its name in the consortium.", _TEXT, repeated=True),
    Parameter("since", "Not before this date or time.", _TIME),
    Parameter("until", "Before this date or time.", _TIME),
    BEFORE,
    PAGE,
)


def query_of(given: Sequence[tuple[str, str]]) -> EventQuery:
    """The search that query parameters ask. Raises RequestError naming the parameter that cannot be honoured."""
    found = arguments(given, PARAMETERS)
    for name, allowed in (("type", ENTRY_TYPES), ("role", set(Role)), ("outcome", set(map(str, OUTCOMES)))):
        if any(value not in allowed for value in found.get(name, ())):
            raise RequestError(f"{name} is one of: {', '.join(sorted(allowed))}")
    if not all(map(identifies, found.get("study", ()))):
        raise RequestError("study is not a UID")
    before, limit = page_of(found)
    patient = found.get("patient")
    return EventQuery(
        types=tuple(found.get("type", ())),
        actors=_texts(found, "actor"),
        roles=tuple(found.get("role", ())),
        studies=tuple(found.get("study", ())),
        patient=patient[0] if patient else None,
        purposes=_texts(found, "purpose"),
        outcomes=tuple(map(int, found.get("outcome", ()))),
        nodes=tuple(_hexadecimal("node", text, 32) for text in found.get("node", ())),
        hospitals=_texts(found, "hospital"),
        since_us=_time(found, "since"),
        until_us=_time(found, "until"),
        before=before,
        limit=limit,
    )


def page_of(found: dict[str, list[str]]) -> tuple[int | None, int]:
    """Cursor and size of the page asked. Raises RequestError."""
    before = [number("before", text, 0, LARGEST) for text in found.get("before", ())]
    limit = [number("limit", text, 1, MOST) for text in found.get("limit", ())]
    return before[0] if before else None, limit[0] if limit else LIMIT


def _texts(found: dict[str, list[str]], name: str) -> tuple[str, ...]:
    if any(not text for text in found.get(name, ())):
        raise RequestError(f"{name} is empty")
    return tuple(found.get(name, ()))


def _time(found: dict[str, list[str]], name: str) -> int | None:
    if name not in found:
        return None
    moment = microseconds(found[name][0])
    if moment is None:
        raise RequestError(f"{name} is neither a date nor a date and time with its offset (RFC 3339)")
    return moment


def _hexadecimal(name: str, text: str, digits: int) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(text) != digits or value.hex() != text:
        raise RequestError(f"{name} is not {digits} hexadecimal digits in lower case")
    return value


def search(exchange: Exchange) -> Response:
    """Search the ledger's entries, newest first.

    `{"entries": [...], "next": URL or null}`; the next page is in the header `Link` too (RFC 8288).
    """
    query = query_of(exchange.parameters)
    exchange.node.access.audited(exchange.actor, "entries")
    found = list(exchange.node.audit.search(replace(query, limit=query.limit + 1)))
    events = found[: query.limit]
    origin = exchange.origin.url
    url = following(exchange, f"{origin}/ledger/entries", events[-1].index) if len(found) > len(events) else None
    return json_answer(exchange, {"entries": [described(event, origin) for event in events], "next": url}, url)


def retrieve(exchange: Exchange) -> Response:
    """One entry with its records and its signed envelope, by its id or that of one of its records."""
    id = entry_id(exchange)
    arguments(exchange.parameters, ())
    exchange.node.access.audited(exchange.actor, f"entry {id.hex()}")
    event = exchange.node.audit.event(id)
    origin = exchange.origin.url
    document = {
        **described(event, origin),
        "details": [detailed(detail, origin) for detail in exchange.node.audit.details(event.id)],
        "envelope": base64.b64encode(exchange.node.log.envelope(event.id)).decode(),
    }
    return json_answer(exchange, document)


def entry_id(exchange: Exchange) -> bytes:
    """The id in the path. Raises NotFound when it is not one."""
    try:
        return _hexadecimal("id", exchange.path["id"], ID_DIGITS)
    except RequestError:
        raise NotFound("An entry's or record's id is 64 hexadecimal digits in lower case") from None


def following(exchange: Exchange, url: str, before: int) -> str:
    """The URL of the page after one of `url` whose last index is `before`, with the same parameters."""
    kept = [(name, value) for name, value in exchange.parameters if name != "before"]
    return f"{url}?{urlencode([*kept, ('before', str(before))])}"


def json_answer(exchange: Exchange, document: object, next_page: str | None = None) -> Response:
    """A JSON document that nobody keeps; `next_page` goes to the header Link."""
    headers = {"cache-control": NOT_KEPT, "x-content-type-options": "nosniff"}
    if next_page is not None:
        headers["link"] = f'<{next_page}>; rel="next"'
    body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return whole(exchange, body, headers, JSON)
