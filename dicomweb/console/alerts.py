"""Alerts: what the rules of the settings found, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from dicomweb.console import page, words
from dicomweb.console.html import Html, link, path, tag
from dicomweb.exchange import Exchange
from ledger.alerts import RULES, Alert

_SHOWN: Final = 200
_ENTRIES: Final = 3
_SEVERITIES: Final = {0: "to be known", 4: "warning", 8: "serious", 12: "critical"}
"""EventOutcomeIndicator of a Security Alert (PS3.15 A.5.3.11), in words of urgency."""


def show(exchange: Exchange) -> Response:
    """`GET /console/alerts`: the newest 200 alerts."""
    raised = exchange.node.alerts()
    body = [
        tag("h1", "Alerts"),
        table(raised[:_SHOWN]) if raised else tag("p", "No rule has raised an alert.", class_="nothing card"),
        tag(
            "p",
            link("/console/?type=security.alert", "Alerts in the timeline", class_="button"),
            class_="actions after",
        )
        if raised
        else None,
        page.panel("Rules", _rules(), id_="rules"),
    ]
    return page.answer(exchange, page.page("Alerts", body, section="/console/alerts", who=exchange.actor.name))


def table(raised: Sequence[Alert]) -> Html:
    """Alerts as a table."""
    head = tag(
        "tr",
        tag("th", "Time", scope="col", aria_sort="descending"),
        [tag("th", name, scope="col") for name in ("Severity", "What was found", "Entries")],
    )
    caption = tag("caption", "Alerts, newest first")
    return tag("table", caption, tag("thead", head), tag("tbody", [_row(one) for one in raised]), class_="events card")


def _row(alert: Alert) -> Html:
    severity = _SEVERITIES.get(alert.severity, str(alert.severity))
    kind = "bad" if alert.severity > 4 else "warn" if alert.severity else "good"
    entries = [
        link(path("console", "entries", id_.hex()), words.short(id_), aria_label=f"Entry {id_.hex()[:8]}")
        for id_ in alert.entries[-_ENTRIES:][::-1]
    ]
    hidden = len(alert.entries) - len(entries)
    more = tag("small", f"and {hidden} more", class_="muted") if hidden else None
    return tag(
        "tr",
        tag("td", words.stamp(alert.time_us), class_="when"),
        tag("td", tag("span", severity, class_=f"outcome {kind}"), class_="how"),
        tag("td", tag("b", alert.rule), ": ", alert.what, ".", class_="told"),
        tag("td", [(one, " ") for one in entries], more, class_="which"),
    )


def _rules() -> Html:
    rules = [tag("div", tag("dt", tag("code", rule.name)), tag("dd", rule.meaning)) for rule in RULES.values()]
    where = tag("p", "Their thresholds are in the settings, under ", tag("code", "[alerts]"), ".", class_="remark")
    return tag("div", tag("dl", rules, class_="facts"), where)
