"""A selection of the timeline in other formats: CSV, and the same search of FHIR AuditEvents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from dicomweb.console.page import HEADERS
from dicomweb.console.selection import Selection, parse, written
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from dicomweb.responses import respond
from ledger.event import Event
from ledger.export import csv

CSV: Final = "/console/entries.csv"
_PAGE: Final = 1000
_SEPARATORS: Final = frozenset(",|\\$")
"""What a FHIR search takes for a separator within a value (R4 3.1.1.4.4)."""


def show(exchange: Exchange) -> Response:
    """`GET /console/entries.csv`: every event of the selection as CSV, newest first, written as it is read."""
    selection = parse(exchange.parameters)
    chunks = (line.encode() for line in csv.lines(_every(exchange.node, selection)))
    headers = {**HEADERS, "content-disposition": 'attachment; filename="cairn-entries.csv"'}
    return respond(exchange, chunks, headers, "text/csv; charset=utf-8; header=present", None)


def csv_address(selection: Selection) -> str:
    """Where the selection, from its newest entry on, is CSV."""
    parameters = replace(selection, before=None).parameters
    return CSV + (f"?{urlencode(parameters)}" if parameters else "")


def fhir_address(selection: Selection) -> str | None:
    """The search of AuditEvents for the selection; None when FHIR has no parameter that says the same."""
    if any(map(selection.of, ("type", "hospital", "purpose", "node"))) or "" in selection.of("role"):
        return None
    repeated = (("agent", selection.of("actor")), ("agent-role", selection.of("role")))
    single = (("patient", selection.patient), ("entity", selection.study))
    given = [value for _, values in repeated for value in values] + [value for _, value in single if value]
    if any(_SEPARATORS & set(value) for value in given):
        return None
    parameters = [(name, ",".join(values)) for name, values in repeated if values]
    parameters += [(name, value) for name, value in single if value is not None]
    if selection.of("outcome"):
        parameters.append(("outcome", ",".join(selection.of("outcome"))))
    if selection.since is not None:
        parameters.append(("date", f"ge{written(selection.since)}"))
    if selection.until is not None:
        parameters.append(("date", f"lt{written(selection.until)}"))
    return "/fhir/AuditEvent" + (f"?{urlencode(parameters)}" if parameters else "")


def _every(node: Node, selection: Selection) -> Iterator[Event]:
    """The events of all pages of a selection."""
    query = replace(selection.query(_PAGE), before=None)
    while True:
        page = node.audit.search(query)
        yield from page
        if len(page) < _PAGE:
            return
        query = replace(query, before=page[-1].index)
