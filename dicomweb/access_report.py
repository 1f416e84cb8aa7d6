"""A patient's access report: who saw what of them, when, why and from where, to be printed or given to the patient.

One document without scripts and without anything fetched, as HTML for A4 and as CSV. It says what it cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Final

from starlette.responses import Response

from dicomweb.console import lookup, page
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.console.words import StudyNote, count, date, is_tag, iso, moment, outcome, person, purpose
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from dicomweb.responses import whole
from ledger.event import Event, EventQuery, Patient
from ledger.export import csv
from ledger.export.content import content
from ledger.sentence import actor as actor_words
from ledger.sentence import is_sealed
from ledger.types import EMERGENCY, ENTRY_TYPES

MOST_EVENTS, MOST_COUNTED = 10_000, 2_000
_PAGE: Final = 500
_VIEWED: Final = frozenset({"study.access", "study.export"})
COLUMNS: Final = (
    "began",
    "ended",
    "what",
    "who",
    "role",
    "address",
    "how",
    "study",
    "study description",
    "images",
    "frames",
    "headers",
    "sealed blocks",
    "purpose",
    "reason",
    "outcome",
    "entry",
)
_STYLE: Final = """
@page{size:A4;margin:16mm 14mm;@bottom-right{content:counter(page) " / " counter(pages);font:8pt sans-serif}}
:root{color-scheme:light}*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;color:#111;background:#fff;max-width:64rem;margin:2rem auto;padding:0 1.5rem}
h1{font-size:1.7rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2rem 0 .5rem;break-after:avoid}
p{margin:.4rem 0}.actions a{margin-right:1.2rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem;margin:1rem 0}dt{color:#555}
dd,td{overflow-wrap:anywhere}dd{margin:0}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.86rem}
caption{text-align:left;color:#555;padding-bottom:.3rem}thead{display:table-header-group}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-bottom:1px solid #ccc}
th{border-bottom:2px solid #111;white-space:nowrap}tr{break-inside:avoid}
td small{display:block;color:#555}
td:first-child,td:nth-child(2),td:nth-child(4){min-width:7rem}td:nth-child(3){min-width:12rem}
.emergency td:first-child{border-left:4px solid #b00020;padding-left:.5rem}
.emergency .why{color:#b00020}.hash{display:block;width:16ch}.uid{overflow-wrap:anywhere}
code,pre{font:.78rem/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
pre{white-space:pre-wrap;border:1px solid #ccc;padding:.6rem}li{margin:.3rem 0}
.warn{border:2px solid #b00020;padding:.5rem .8rem}
@media print{body{font-size:9.5pt;margin:0;padding:0;max-width:none}.actions{display:none}.wide{overflow:visible}
table{font-size:8pt}code,pre{font-size:7pt}}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One event of the patient's: when its first record was made (None when not looked up), and what was served."""

    event: Event
    began_us: int | None = None
    images: int | None = None
    frames: int | None = None
    headers: int | None = None
    sealed: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the ledger links to a Patient ID, the newest first; `whole` unless there was more."""

    patient: str
    known: tuple[Patient, ...]
    rows: tuple[Row, ...]
    whole: bool
    notes: Mapping[str, StudyNote]

    @property
    def viewed(self) -> list[Row]:
        """The rows of viewings and exports."""
        return [row for row in self.rows if row.event.type in _VIEWED]

    @property
    def other(self) -> list[Row]:
        """All other rows."""
        return [row for row in self.rows if row.event.type not in _VIEWED]


def gather(node: Node, patient: str) -> Report:
    """The report of a Patient ID (0010,0020); one of which nothing is known gives an empty one. Raises StorageFault."""
    events: list[Event] = []
    before: int | None = None
    while len(events) < MOST_EVENTS:
        found = node.audit.search(EventQuery(patient=patient, before=before, limit=_PAGE))
        events += found
        if len(found) < _PAGE:
            break
        before = found[-1].index
    more = len(events) >= MOST_EVENTS and bool(
        node.audit.search(EventQuery(patient=patient, before=events[MOST_EVENTS - 1].index, limit=1))
    )
    events = events[:MOST_EVENTS]
    rows = []
    counted = 0
    for event in events:
        counts = event.type in _VIEWED and counted < MOST_COUNTED
        counted += counts
        rows.append(_counted(node, event) if counts else Row(event))
    known = {(of.id, of.issuer): of for of in (event.patient for event in events) if of is not None}
    notes = lookup.notes(node, (event.study for event in events))
    return Report(patient, tuple(known.values()), tuple(rows), not more, notes)


def _counted(node: Node, event: Event) -> Row:
    details = node.audit.details(event.id)
    told = content(event.type, details)
    times = [detail.time_us for detail in details if detail.time_us is not None]
    return Row(
        event,
        began_us=min(times, default=None),
        images=told.instances,
        frames=told.served["frame"],
        headers=told.served["metadata"],
        sealed=told.served["sealed block"],
    )


def show(exchange: Exchange) -> Response:
    """`GET /console/patients/{patient id}/report`: the report as HTML that prints on A4."""
    report = gather(exchange.node, exchange.path["patient"])
    document, policy = page.lone("Access report", _STYLE, _body(report, exchange.actor.name, exchange.node))
    return page.answer(exchange, document, headers={"content-security-policy": policy})


def show_csv(exchange: Exchange) -> Response:
    """`GET /console/patients/{patient id}/report.csv`: the report as CSV (RFC 4180), safe to open in a spreadsheet."""
    report = gather(exchange.node, exchange.path["patient"])
    lines = [csv.line(COLUMNS), *(csv.line(_cells(report, row)) for row in report.rows)]
    if not report.whole:
        lines.append(csv.line(["", "", f"only the newest {MOST_EVENTS} are here", *[""] * (len(COLUMNS) - 3)]))
    headers = {
        **page.HEADERS,
        "content-disposition": 'attachment; filename="access-report.csv"',  # no Patient ID in a file's name
    }
    return whole(exchange, "".join(lines).encode(), headers, "text/csv; charset=utf-8; header=present")


def _cells(report: Report, row: Row) -> Sequence[str]:
    event = row.event
    note = report.notes.get(event.study or "", StudyNote())
    return (
        iso(row.began_us) if row.began_us is not None else "",
        iso(event.time_us),
        ENTRY_TYPES[event.type].name,
        event.actor.name,
        event.actor.role,
        event.actor.address,
        event.actor.how,
        event.study or "",
        note.description,
        *("" if number is None else str(number) for number in (row.images, row.frames, row.headers, row.sealed)),
        event.purpose,
        event.reason,
        outcome(event.outcome),
        event.id.hex(),
    )


def _body(report: Report, reader: str, node: Node) -> Content:
    address = path("console", "patients", report.patient, "report.csv")
    return [
        tag("h1", "Access report"),
        tag("p", "Who saw this patient's images, when, why and from where, as the ledger of this archive has it."),
        tag("p", link("/console/", "Console"), link(address, "The same as CSV"), class_="actions"),
        _head(report, reader, node),
        *([] if report.whole else [_truncated()]),
        *([_several(report)] if len(report.known) > 1 else []),
        tag("h2", "Who saw images"),
        _people(report),
        tag("h2", "Each viewing"),
        _table(report, report.viewed, "Viewings, retrievals and exports, the newest first; times in UTC"),
        tag("h2", "What else happened to the studies"),
        _table(report, report.other, "Everything else that the ledger has of these studies, the newest first"),
        _limits(),
        _checking(node),
    ]


def _head(report: Report, reader: str, node: Node) -> Html:
    named = report.known[0] if report.known else Patient(report.patient)
    rows: dict[str, Content] = {"Patient ID": report.patient}
    if named.issuer:
        rows["Issued by"] = named.issuer
    if named.name:
        rows["Name"] = person(named.name)
    rows["Studies"] = f"{len({row.event.study for row in report.rows if row.event.study}):,}"
    if report.rows:
        first, last = report.rows[-1].event.time_us, report.rows[0].event.time_us
        rows["Recorded"] = (_when(first), " to ", _when(last))
    rows["Made"] = (_when(time_ns() // 1000), f" for {reader}")
    rows["Log"] = node.log.key().partition("+")[0]
    return tag("dl", [(tag("dt", name), tag("dd", value)) for name, value in rows.items()])


def _truncated() -> Html:
    return tag("p", f"Only the newest {MOST_EVENTS:,} events are in this report; there are more.", class_="warn")


def _several(report: Report) -> Html:
    issuers = ", ".join(of.issuer or "no issuer" for of in report.known)
    words = f"More than one patient has this ID ({issuers}). All of them are in this report."
    return tag("p", words, class_="warn")


def _people(report: Report) -> Html:
    """One line for each person or system that viewed: how often, first and last."""
    seen: dict[tuple[str, str], list[int]] = {}
    for row in report.viewed:
        if not row.event.outcome:
            seen.setdefault((_who(row.event), row.event.actor.role), []).append(row.event.time_us)
    if not seen:
        return tag("p", "Nobody, as far as the ledger has it.")
    lines = [
        tag(
            "tr",
            tag("td", tag("b", name), tag("small", role) if role else None),
            tag("td", count(len(times), "viewing")),
            tag("td", _when(min(times))),
            tag("td", _when(max(times))),
        )
        for (name, role), times in sorted(seen.items(), key=lambda one: -len(one[1]))
    ]
    head = tag("tr", [tag("th", name, scope="col") for name in ("Who", "How often", "First", "Last")])
    caption = tag("caption", "Persons, systems and hospitals, the most frequent first")
    return tag("div", tag("table", caption, tag("thead", head), tag("tbody", lines)), class_="wide", tabindex=0)


def _who(event: Event) -> str:
    """Who acted, by name; of another hospital's people, whom it alone can name, where they belong."""
    if is_tag(event.actor.name):
        return f"{'The node' if event.actor.kind == 'system' else 'Somebody'} at {event.hospital}"
    return event.actor.name or "unknown"


def _table(report: Report, rows: Sequence[Row], caption: str) -> Html:
    if not rows:
        return tag("p", "Nothing is recorded.")
    names = ("When", "Who, from where", "What", "Why", "Entry")
    head = tag("tr", [tag("th", name, scope="col") for name in names])
    lines = [_line(report, row) for row in rows]
    table = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", lines))
    return tag("div", table, class_="wide", tabindex=0)


def _line(report: Report, row: Row) -> Html:
    event, emergency = row.event, row.event.purpose == EMERGENCY
    note = report.notes.get(event.study or "", StudyNote())
    study = " ".join(filter(None, (note.modalities, note.description, date(note.date) if note.date else ""))) or "Study"
    told = [
        ENTRY_TYPES[event.type].meaning,
        *([_served(row)] if row.images is not None else []),
        *([f"Outcome: {outcome(event.outcome)}."] if event.outcome else []),
    ]
    began, whom = row.began_us, actor_words(event.actor)
    why: list[Content] = [tag("b", purpose(event.purpose), class_="why") if emergency else purpose(event.purpose)]
    if event.reason:
        why.append(tag("small", event.reason))
    return tag(
        "tr",
        tag("td", _when(began if began is not None else event.time_us), tag("small", _until(row)) if began else None),
        tag("td", tag("b", _who(event)), tag("small", event.actor.role if is_tag(event.actor.name) else whom)),
        tag("td", study, tag("small", event.study or "", class_="uid"), [tag("small", words) for words in told]),
        tag("td", why),
        tag("td", tag("small", f"{event.index:,}"), tag("code", event.id.hex(), class_="hash")),
        class_="emergency" if emergency else None,
    )


def _served(row: Row) -> str:
    if is_sealed(row.event):
        return f"Served: {count(row.sealed or 0, 'sealed block')}, which show nothing without the study's key."
    parts = [count(row.images or 0, "image")]
    if row.frames:
        parts.append(count(row.frames, "frame"))
    if row.headers:
        parts.append("headers " + count(row.headers, "time"))
    return "Served: " + ", ".join(parts) + "."


def _until(row: Row) -> str:
    return f"to {moment(row.event.time_us):%H:%M:%S} at the latest"


def _when(time_us: int) -> Html:
    when = moment(time_us)
    return tag("time", f"{when.day} {when:%b %Y, %H:%M:%S}", datetime=iso(time_us))


def _limits() -> Html:
    """What a reader must know of what is not there."""
    lines = (
        "Served is not seen: the archive knows what it sent to a viewer, not what a person looked at.",
        "A viewing is a session: from the first request to at most a minute after the last, ten minutes at most. Its "
        "end is therefore an upper bound, and one that is going on is not in the ledger yet.",
        "Studies whose keys were destroyed (erased) are missing: nothing links their entries to a patient any more.",
        "Searches and refused requests are in the ledger without naming a patient, so that they are not here.",
        "What was exported or sent elsewhere is out of this archive's sight from then on.",
        "Times are those of the archive's clock. Names are those of the credentials used; whether someone lent theirs "
        "cannot be seen.",
        "The patient is found by Patient ID as the archive has it today; images filed under another ID are not here.",
    )
    return tag("section", tag("h2", "What this report cannot tell"), tag("ul", [tag("li", line) for line in lines]))


def _checking(node: Node) -> Html:
    note = node.log.checkpoint()
    return tag(
        "section",
        tag("h2", "How to check it"),
        tag(
            "p",
            "Each line is an entry of an append-only, signed log; its column Entry has the entry's number and hash. "
            "Where the archive runs, ",
            tag("code", "cairn ledger prove HASH --out FILE"),
            " writes the proof of one entry, and ",
            tag("code", "cairn ledger verify FILE --key KEY"),
            " checks it anywhere, without the archive. When this report was made the log's newest checkpoint was:",
        ),
        tag("pre", note or "none yet"),
    )
