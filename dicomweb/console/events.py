"""Events of the ledger as a table, each as a sentence; for every page that tells some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from dicomweb.console import words
from dicomweb.console.html import Html, link, path, tag
from ledger.event import Event


def table(events: Sequence[Event], notes: Mapping[str, words.StudyNote], *, newest_first: bool = True) -> Html:
    """Events as a table, a part for each day; on a narrow screen its rows become cards."""
    head = tag(
        "thead",
        tag(
            "tr",
            tag("th", "Time", scope="col", aria_sort="descending" if newest_first else "ascending"),
            [tag("th", name, scope="col") for name in ("Event", "What happened", "Outcome", "Entry")],
        ),
    )
    parts = []
    for title, of_day in groupby(events, lambda event: words.day(event.time_us)):
        day = tag("tr", tag("th", title, scope="rowgroup", colspan=5), class_="day")
        parts.append(tag("tbody", day, [_row(event, notes) for event in of_day]))
    caption = tag("caption", "Entries of the ledger, " + ("newest first" if newest_first else "oldest first"))
    return tag("table", caption, head, parts, class_="events card")


def _row(event: Event, notes: Mapping[str, words.StudyNote]) -> Html:
    told = words.told(event, notes.get(event.study or ""))
    kind = "good" if not event.outcome else "warn" if event.outcome == 4 else "bad"
    number = link(
        path("console", "entries", event.id.hex()),
        f"#{event.index:,}",
        aria_label=f"Entry {event.index}: details and proof",
    )
    records = tag("small", words.count(event.records, "record"), class_="muted") if event.records > 1 else None
    return tag(
        "tr",
        tag("td", words.clock(event.time_us), class_="when"),
        tag("td", words.badge(event.type), class_="what"),
        tag("td", told, class_="told"),
        tag("td", tag("span", words.outcome(event.outcome), class_=f"outcome {kind}"), class_="how"),
        tag("td", number, records, class_="which"),
    )
