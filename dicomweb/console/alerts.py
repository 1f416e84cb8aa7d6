"""Alerts: what the rules of the settings found, the newest first."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import Response

from dicomweb.console import lookup, page
from dicomweb.console.html import tag
from dicomweb.console.timeline import table
from dicomweb.exchange import Exchange
from ledger.event import Event, EventQuery

_MOST = 100


def show(exchange: Exchange) -> Response:
    """`GET /console/alerts`: the newest 100 alerts."""
    node = exchange.node
    raised: Sequence[Event] = node.audit.search(EventQuery(types=("security.alert",), limit=_MOST))
    notes = lookup.notes(node, (event.study for event in raised))
    body = [
        tag("h1", "Alerts"),
        tag("p", "What the rules found; ", tag("code", "[alerts]"), " in the settings has their thresholds."),
        table(raised, notes) if raised else tag("p", "No rule has raised an alert.", class_="nothing card"),
    ]
    return page.answer(exchange, page.page("Alerts", body, section="/console/alerts", who=exchange.actor.name))
