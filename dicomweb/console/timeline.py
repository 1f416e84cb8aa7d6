"""The timeline: density of events, facets to narrow them, and the events themselves, newest first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from starlette.responses import RedirectResponse, Response

from bridge.errors import RequestError
from dicomweb.console import charts, emergencies, export, lookup, page, words
from dicomweb.console.events import table
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.console.selection import CHOICES, Selection, for_input, parse
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from ledger.event import Event

ROWS: Final = 50
_BINS: Final = 72
_SHOWN_VALUES: Final = 8
_MORE_VALUES: Final = 50
_HOUR: Final = 3_600_000_000
_RECENT: Final = (("Hour", _HOUR), ("Day", 24 * _HOUR), ("Week", 168 * _HOUR), ("Month", 720 * _HOUR))


def show(exchange: Exchange) -> Response:
    """`GET /console/`: the page of the selection in the address; `about` is resolved and led to its own address."""
    given = list(exchange.parameters)
    about = [value for name, value in given if name == "about" and value.strip()]
    rest = [pair for pair in given if pair[0] != "about"]
    selection = parse(rest)
    found: lookup.Found | None = None
    if about:
        if len(about) > 1 or len(about[0]) > 200:
            raise RequestError("about is one text of at most 200 characters")
        found = lookup.resolve(exchange.node, about[0])
        narrowed = replace(selection, study=found.study, patient=found.patient, before=None)
        if found.study or found.patient:
            return RedirectResponse(narrowed.address, 303, {**page.HEADERS})
    body = [
        tag("h1", "Timeline"),
        emergencies.reminder(exchange.node.reviews_due(), time.time_ns() // 1000),
        _unresolved(about[0], found, selection) if found else None,
    ]
    body.append(_timeline(exchange.node, selection, about[0] if about else ""))
    document = page.page(
        "Timeline", body, section="/console/", who=exchange.actor.name, aim="Skip to filters and entries"
    )
    return page.answer(exchange, document)


def _timeline(node: Node, selection: Selection, typed: str) -> Html:
    events = node.audit.search(selection.query(ROWS + 1))
    more = len(events) > ROWS
    events = events[:ROWS]
    notes = lookup.notes(node, (event.study for event in events))
    bins = node.audit.histogram(replace(selection.query(1), before=None), _BINS)
    matching = sum(number for _, number in bins)
    results = tag(
        "section",
        tag("h2", "Entries", class_="unseen"),
        _density(selection, bins, matching),
        _chosen(selection, notes),
        table(events, notes) if events else _nothing(selection),
        _pages(selection, events, more),
        class_="results",
        aria_label="Entries",
        id="entries",
    )
    return tag("div", _filters(node, selection, typed), results, class_="timeline")


def _unresolved(typed: str, found: lookup.Found, selection: Selection) -> Html:
    """What to say of a typed text that is no one patient or study."""
    if not found.choices:
        return page.note(
            f"No study and no patient of this node is called “{typed}”. All entries are shown.", kind="warn"
        )
    choices = []
    for one in found.choices:
        words_ = f"{words.person(one.name) or 'Without a name'} ({one.id})"
        choices.append(tag("li", link(replace(selection, patient=one.id, before=None).address, words_)))
    return tag("div", tag("p", f"Several patients match “{typed}”. Which one?"), tag("ul", choices), class_="note info")


def _density(selection: Selection, bins: Sequence[tuple[int, int]], matching: int) -> Html:
    """The histogram, and the ways to move in time."""
    moves: list[Html] = []
    if selection.since is not None and selection.until is not None:
        since, until = selection.since, selection.until
        reach = until - since
        moves.append(link(selection.within(max(0, since - reach), since).address, "‹ Earlier"))
        moves.append(link(selection.within(max(0, since - reach), until + reach).address, "Zoom out"))
        moves.append(link(selection.within(until, until + reach).address, "Later ›"))
    if selection.since is not None or selection.until is not None:
        moves.append(link(selection.within(None, None).address, "All time"))
    elif bins:
        end = bins[-1][0] + (bins[1][0] - bins[0][0] if len(bins) > 1 else _HOUR)
        whole = end - bins[0][0]
        moves += [
            link(selection.within(end - reach, None).address, f"Last {name.lower()}")
            for name, reach in _RECENT
            if reach < whole
        ]
    head = tag(
        "div",
        tag("p", tag("b", f"{matching:,}"), " matching " + ("entry" if matching == 1 else "entries")),
        tag("nav", tag("ul", [tag("li", move) for move in moves]), aria_label="Time") if moves else None,
        class_="density-head",
    )
    if len(bins) < 2:
        return tag("div", head, class_="density card")
    step = bins[1][0] - bins[0][0]
    picture = charts.histogram(bins, step, lambda start, end: selection.within(start, end).address)
    return tag("div", head, picture, class_="density card")


def _filters(node: Node, selection: Selection, typed: str) -> Html:
    """Facets with counts as links, and a form for what is typed."""
    hidden = [tag("input", type="hidden", name=name, value=value) for name, value in selection.values if name != "node"]
    subject = [
        tag("input", type="hidden", name=name, value=value)
        for name, value in (("study", selection.study), ("patient", selection.patient))
        if value
    ]
    site = next(iter(selection.of("node")), "")
    form = tag(
        "form",
        _field("about", "Patient or study", "search", typed, placeholder="ID, name or UID"),
        tag(
            "div",
            _field("since", "From", "datetime-local", for_input(selection.since), step=1),
            _field("until", "To", "datetime-local", for_input(selection.until), step=1),
            class_="pair",
        ),
        tag(
            "details",
            tag("summary", "Actor or site by name"),
            _field("actor", "Actor", "text", "", placeholder="exactly as written"),
            _field("node", "Node id", "text", site, pattern="[0-9a-f]{32}", placeholder="32 hex digits"),
            open=bool(site),
        ),
        hidden,
        subject,
        tag("button", "Show", type="submit"),
        method="get",
        action="/console/",
        role="search",
        aria_label="Entries by subject and time",
    )
    counted = facets(node, selection)
    groups = [_facet(name, title, counted.get(name, ()), selection) for name, title in CHOICES]
    return tag(
        "aside",
        tag("details", tag("summary", "Filters"), form, groups, open=True, class_="filters"),
        aria_label="Filters",
    )


def facets(node: Node, selection: Selection) -> Mapping[str, Sequence[tuple[str, int]]]:
    """Counts by value; of a facet in which something is chosen, as if nothing were, so that others can be added."""
    counted = dict(node.audit.facets(replace(selection.query(1), before=None)))
    for name in {name for name, _ in selection.values} & counted.keys():
        counted[name] = node.audit.facets(replace(selection.without(name).query(1), before=None))[name]
    return counted


def _field(name: str, label: str, kind: str, value: str, **more: str | int | bool) -> Html:
    box = tag("input", type=kind, name=name, id=f"f-{name}", value=value, autocomplete="off", **more)
    return tag("p", tag("label", label, for_=f"f-{name}"), box, class_="field")


def _facet(name: str, title: str, counted: Sequence[tuple[str, int]], selection: Selection) -> Html | None:
    """One facet: its chosen values and the most frequent others."""
    chosen = selection.of(name)
    known = dict(counted)
    rows = [(value, known.get(value, 0)) for value in chosen]
    rows += [(value, number) for value, number in counted if value not in chosen]
    rows = [row for row in rows if row[0] or name == "role"]
    if not rows:
        return None
    shown = [_value(name, *row, row[0] in chosen, selection) for row in rows[: _SHOWN_VALUES + _MORE_VALUES]]
    first, rest = shown[:_SHOWN_VALUES], shown[_SHOWN_VALUES:]
    beyond = len(rows) - len(shown)
    words_ = f"{len(rest):,} more" + (f" of {len(rest) + beyond:,}; type the others" if beyond else "")
    more = tag("details", tag("summary", words_), tag("ul", rest)) if rest else None
    return tag("section", tag("h3", title, id=f"facet-{name}"), tag("ul", first), more, class_="facet")


def _value(name: str, value: str, number: int, chosen: bool, selection: Selection) -> Html:
    label = value_words(name, value)
    mark = (
        tag("span", words.GROUPS[words.group(value)], class_=f"swatch {words.group(value)}") if name == "type" else None
    )
    return tag(
        "li",
        link(
            selection.toggled(name, value).address,
            mark,
            tag("span", label, class_="label"),
            tag("span", f"{number:,}", class_="number"),
            aria_current="true" if chosen else None,
            aria_label=f"{'Remove' if chosen else 'Add'} filter {label}, {words.count(number, 'entry', 'entries')}",
            rel="nofollow",
        ),
    )


def value_words(name: str, value: str) -> str:
    """A facet's value as people read it."""
    if name == "outcome":
        return words.outcome(int(value)) if value.isdigit() else value
    if name == "purpose":
        return words.purpose(value)
    if name == "actor" and words.is_tag(value):
        return f"somebody elsewhere ({value[:8]}…)"
    return value or "none"


def _chosen(selection: Selection, notes: Mapping[str, words.StudyNote]) -> Html | None:
    """What narrows the list, each with a way to drop it."""
    chips: list[tuple[str, str]] = []
    for name, title in (*CHOICES, ("node", "Site")):
        for value in selection.of(name):
            chips.append((f"{title}: {value_words(name, value)}", selection.toggled(name, value).address))
    if selection.patient is not None:
        chips.append((f"Patient: {selection.patient}", selection.without("patient").address))
    if selection.study is not None:
        known = notes.get(selection.study, words.StudyNote())
        chips.append((f"Study: {known.description or selection.study}", selection.without("study").address))
    if not chips:
        return None
    items = [
        tag("li", link(address, label, tag("span", "×", aria_hidden="true"), aria_label=f"Remove filter {label}"))
        for label, address in chips
    ]
    links: list[Content] = []
    if selection.study is not None:
        links.append(link(path("console", "studies", selection.study), "This study’s story"))
    if selection.patient is not None:
        links.append(link(path("console", "patients", selection.patient, "report"), "This patient’s access report"))
    items.append(tag("li", link("/console/", "Clear all", class_="clear")))
    return tag("div", tag("ul", items, class_="chips"), [tag("p", one) for one in links], class_="chosen")


def _nothing(selection: Selection) -> Html:
    if selection.restricted or selection.before is not None:
        return tag("p", "No entry matches. ", link("/console/", "Show all entries"), class_="nothing card")
    return tag("p", "The ledger is empty so far. Store or view a study, and it is told here.", class_="nothing card")


def _pages(selection: Selection, events: Sequence[Event], more: bool) -> Html:
    """Older entries, the newest, and the same selection in other formats."""
    turns: list[Html] = []
    if selection.before is not None:
        turns.append(link(replace(selection, before=None).address, "« Newest", rel="first"))
    if more:
        turns.append(link(replace(selection, before=events[-1].index).address, "Older ›", rel="next", class_="button"))
    return tag(
        "div",
        tag("nav", turns, aria_label="Pages", class_="turns") if turns else None,
        tag("p", "Export this selection: ", exports(selection), class_="exports"),
        class_="below",
    )


def exports(selection: Selection) -> Content:
    """Links to the selection as CSV and, where FHIR can ask for it, as AuditEvents."""
    fhir = export.fhir_address(selection)
    as_fhir = (" · ", link(fhir, "FHIR AuditEvent")) if fhir is not None else None
    return (link(export.csv_address(selection), "CSV", download="cairn-entries.csv"), as_fhir)
