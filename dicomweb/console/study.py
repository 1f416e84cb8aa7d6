"""A study's story: from the first byte to the last view, drawn and told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from bridge.errors import NotFound
from dicomweb.console import charts, content, lookup, page, sharing, words
from dicomweb.console.events import table
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.console.selection import Selection
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from ledger.event import Event, EventQuery, Patient

_MOST: Final = 500


def show(exchange: Exchange) -> Response:
    """`GET /console/studies/{study}`: the newest 500 events of the study, oldest first. Raises NotFound without any."""
    node, uid = exchange.node, exchange.path["study"]
    newest = node.audit.search(EventQuery(studies=(uid,), limit=_MOST + 1))
    note = lookup.notes(node, [uid], counts=True).get(uid)
    if not newest and note is None:
        if erasures := node.audit.search(EventQuery(studies=(uid,), types=("study.erase",), limit=_MOST)):
            return _erased(exchange, erasures)
        raise NotFound("neither the ledger nor the index knows this study, or its keys were destroyed")
    told = list(reversed(newest[:_MOST]))
    of = next((event.patient for event in newest if event.patient), note.patient if note else None)
    title = (note.description if note else "") or "Study"
    everything = link(Selection(study=uid).address, "Show them in the timeline")
    older = page.note(f"The newest {_MOST} entries are told here. ", everything) if len(newest) > _MOST else None
    body = [
        tag("nav", tag("p", link("/console/", "Timeline"), " / Study"), aria_label="Place"),
        tag("h1", title),
        tag("p", tag("code", uid), class_="meta"),
        tag(
            "div",
            page.facts(_facts(note, of, told, complete=older is None) | _content(node, uid)),
            class_="panel halves",
        ),
        sharing.panel(exchange, uid, held=note is not None),
        _drawn(told) if told else None,
        older,
        table(told, {uid: note} if note else {}, newest_first=False) if told else _untold(),
    ]
    if of is not None and of.id:
        report = path("console", "patients", of.id, "report")
        body.append(tag("p", link(report, "Access report of this patient", class_="button"), class_="actions after"))
    return page.answer(
        exchange, page.page(f"Story of a study: {title}", body, section="/console/", who=exchange.actor.name)
    )


def _erased(exchange: Exchange, erasures: Sequence[Event]) -> Response:
    """The study of this UID was erased: by whom, when and why is told, and nothing else is known of it any more."""
    body = [
        tag("nav", tag("p", link("/console/", "Timeline"), " / Study"), aria_label="Place"),
        tag("h1", "A study that was erased"),
        tag("p", "Its keys were destroyed: nothing of it can be opened here again, and what it was is not known."),
        table(list(reversed(erasures)), {}, newest_first=False),
    ]
    who = exchange.actor.name
    return page.answer(exchange, page.page("A study that was erased", body, section="/console/", who=who))


def _facts(
    note: words.StudyNote | None, of: Patient | None, told: Sequence[Event], *, complete: bool
) -> dict[str, Content]:
    viewers = sorted({event.actor.name for event in told if event.type == "study.access"})
    stored = [event for event in told if event.type in ("study.store", "study.import")]
    viewed = [event for event in told if event.type == "study.access"]
    rows: dict[str, Content] = {}
    if of is not None:
        rows["Patient"] = words.patient(of)
    if note is not None:
        kind = f"{note.modalities}, " if note.modalities else ""
        series = words.count(note.series, "series", "series")
        rows["Holds"] = f"{kind}{words.count(note.instances, 'instance')} in {series}"
        rows["Study date"] = words.date(note.date) or None
    rows["First byte"] = words.stamp(stored[0].time_us) if stored and complete else None
    rows["Last view"] = words.stamp(viewed[-1].time_us) if viewed else "not viewed so far"
    rows["Viewed by"] = ", ".join(viewers[:10]) + (f" and {len(viewers) - 10} others" if len(viewers) > 10 else "")
    return {name: value for name, value in rows.items() if value}


def _content(node: Node, uid: str) -> dict[str, Content]:
    """Where it lies, when it does: nothing but its root and pages is looked at for it."""
    try:
        return {"Content": content.brief(node.study_content(uid, 0))}
    except NotFound:
        return {}


def _drawn(told: Sequence[Event]) -> Html:
    lanes: defaultdict[str, list[int]] = defaultdict(list)
    for event in told:
        lanes[words.group(event.type)].append(event.time_us)
    ordered = {kind: lanes[kind] for kind in words.GROUPS if kind in lanes}
    return tag("div", charts.lanes(ordered, told[0].time_us, told[-1].time_us), class_="card drawn")


def _untold() -> Html:
    return tag("p", "The ledger has no entry about this study yet; it follows within seconds.", class_="nothing card")
