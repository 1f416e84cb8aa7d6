"""`/ledger/events.csv`: the events of a search as CSV (RFC 4180), all of them unless `limit` is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from starlette.responses import Response

from dicomweb.exchange import Exchange
from dicomweb.ledger_api.entries import NOT_KEPT, query_of
from dicomweb.node import Node
from dicomweb.responses import respond
from ledger.event import Event, EventQuery
from ledger.export import csv

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"
_PAGE = 1000


def events_csv(exchange: Exchange) -> Response:
    """The ledger's events as CSV, newest first; cells that a spreadsheet would compute begin with an apostrophe."""
    query = query_of(exchange.parameters)
    limited = any(name == "limit" for name, _ in exchange.parameters)
    exchange.node.access.audited(exchange.actor, "events.csv")
    events = iter(exchange.node.audit.search(query)) if limited else _all(exchange.node, query)
    headers = {
        "cache-control": NOT_KEPT,
        "content-disposition": 'attachment; filename="events.csv"',
        "x-content-type-options": "nosniff",
    }
    return respond(exchange, (line.encode() for line in csv.lines(events)), headers, MEDIA_TYPE, None)


def _all(node: Node, query: EventQuery) -> Iterator[Event]:
    """Every matching event, a page at a time; what is sealed meanwhile is not among them."""
    before = query.before
    while page := node.audit.search(replace(query, before=before, limit=_PAGE)):
        yield from page
        before = page[-1].index
