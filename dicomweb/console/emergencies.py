"""Emergencies: who broke the glass, why, what was seen by it, and the review that each must have.

A banner tells of those across hospitals until they are over and reviewed; the first page of those that wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from bridge.consortium_model import Emergency, Review
from bridge.errors import NotFound, RequestError
from bridge.model import Role
from dicomweb.console import lookup, page, words
from dicomweb.console.events import table
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.exchange import Exchange
from ledger.event import EventQuery

SECTION: Final = "/console/emergencies"
REVIEWS: Final = "/console/emergencies/reviews"
_SHOWN: Final = 200
_ACCESSES: Final = 200
_LONGEST: Final = 2000  # characters of a finding


def show(exchange: Exchange) -> Response:
    """`GET /console/emergencies`: those that wait for their review, then those that had it."""
    found, now_us = exchange.node.emergencies(), time.time_ns() // 1000
    notes = lookup.notes(exchange.node, [one.study for one in found[:_SHOWN]])
    waiting = [one for one in found if not one.reviewed]
    done = [one for one in found if one.reviewed]
    body = [
        tag("h1", "Emergencies"),
        _verdict(waiting, now_us) if found else None,
        page.panel("To be reviewed", *_waiting(waiting, notes, now_us), id_="waiting"),
        page.panel("Reviewed", *_reviewed(done, notes), id_="reviewed"),
        tag(
            "p",
            "Whoever looks at a study for emergency treatment gives a reason and gets it at once, without being asked. "
            "So each such access is looked at afterwards, by somebody of this hospital; across hospitals, by both.",
            class_="remark",
        ),
    ]
    return page.answer(exchange, page.page("Emergencies", body, section=SECTION, who=exchange.actor.name))


def one(exchange: Exchange) -> Response:
    """`GET /console/emergencies/{entry}`: one of them, what was seen by it, its reviews. Raises NotFound."""
    broken = next((each for each in exchange.node.emergencies() if each.entry.hex() == exchange.path["entry"]), None)
    if broken is None:
        raise NotFound("no emergency is known by this entry")
    now_us, sent = time.time_ns() // 1000, dict(exchange.parameters).get("sent")
    notes = lookup.notes(exchange.node, [broken.study])
    body = [
        tag("nav", tag("p", link(SECTION, "Emergencies"), " / Review"), aria_label="Place"),
        tag("h1", _title(broken)),
        _stands(broken, now_us, sent == "review"),
        tag("div", page.facts(_facts(broken, notes, now_us)), class_="panel"),
        page.panel("What was seen", *_seen(exchange, broken, now_us), id_="seen"),
        page.panel("Review", *_review(broken, exchange.actor.role is Role.ADMIN, now_us), id_="review"),
    ]
    return page.answer(exchange, page.page(_title(broken), body, section=SECTION, who=exchange.actor.name))


def review(exchange: Exchange, fields: Mapping[str, str]) -> str:
    """Record a review; the way back to the emergency. Raises NotFound, RequestError."""
    entry = fields.get("entry", "")
    if entry not in {each.entry.hex() for each in exchange.node.emergencies()}:
        raise NotFound("no emergency is known by this entry")
    if not fields.get("finding"):
        raise RequestError("a review needs a finding: what was looked at, and whether the emergency was one")
    exchange.node.review(exchange.actor, bytes.fromhex(entry), fields["finding"])
    return f"{_place(bytes.fromhex(entry))}?sent=review"


def banner(found: Sequence[Emergency], now_us: int) -> Html | None:
    """One line for each that lasts or waits for its review; None when there is none."""
    shown = [one for one in found if one.ends_us > now_us or not one.reviewed]
    if not shown:
        return None
    lines = tag("ul", [_line(one, now_us) for one in shown], class_="stacked")
    return tag("div", tag("p", tag("b", "Emergency access")), lines, class_="note bad", role="status")


def reminder(due: Sequence[int | None], now_us: int) -> Html | None:
    """What the first page says while reviews are missing, by when each is due; None when none is."""
    if not due:
        return None
    late = sum(one is not None and one <= now_us for one in due)
    said = words.count(len(due), "emergency access waits", "emergency accesses wait") + " for review"
    if late:
        overdue = "it is overdue" if late == len(due) == 1 else f"{late:,} overdue"
        said += f"; {overdue}"
    way = link(SECTION, "Review")
    return tag("div", tag("p", tag("b", said, ". "), way), class_=f"note {'bad' if late else 'warn'}", role="status")


def _line(one: Emergency, now_us: int) -> Html:
    of = "this hospital" if one.own else one.from_member
    by = one.to_member if one.own else "this hospital"
    lasts = f"lasts {words.span((one.ends_us - now_us) / 1e6)} more" if one.ends_us > now_us else "is over"
    done = "reviewed" if one.reviewed else "to be reviewed"
    about = (", ", link(path("console", "studies", one.study), "study")) if one.study else None
    return tag(
        "li",
        f"{by} broke the glass for a study of {of} on ",
        words.stamp(one.started_us),
        f"; it {lasts}, {done}. Reason: {one.reason or 'kept at the other hospital'}. ",
        link(_place(one.entry), "review" if not one.reviewed else "details"),
        about,
    )


def _place(entry: bytes) -> str:
    return path("console", "emergencies", entry.hex())


def _is_late(one: Emergency, now_us: int) -> bool:
    return not one.reviewed and one.due_us is not None and one.due_us <= now_us


def _title(one: Emergency) -> str:
    if one.local:
        return "Emergency access in this hospital"
    if one.own:
        return f"{one.to_member} broke the glass for a study of this hospital"
    return f"This hospital broke the glass for a study of {one.from_member}"


def _who(one: Emergency) -> str:
    return one.who or ("" if not one.own else f"Somebody at {one.to_member}, who is known there")


def _verdict(waiting: Sequence[Emergency], now_us: int) -> Html:
    late = sum(_is_late(one, now_us) for one in waiting)
    if late:
        said = words.count(late, "review is", "reviews are")
        return page.note("Look at this: ", f"{said} overdue.", kind="bad")
    if waiting:
        said = words.count(len(waiting), "emergency access waits", "emergency accesses wait")
        return page.note(f"{said} for review.", kind="warn")
    return page.note("Every emergency access was reviewed.", kind="good")


def _waiting(found: Sequence[Emergency], notes: Mapping[str, words.StudyNote], now_us: int) -> list[Html]:
    if not found:
        return [tag("p", "None.")]
    head = ("When", "What", "Who", "Study", "Reason", "Due")
    rows = [
        [
            words.stamp(one.started_us),
            link(_place(one.entry), _title(one)),
            _who(one) or "–",
            _study(one, notes),
            one.reason or "kept at the other hospital",
            _due(one, now_us),
        ]
        for one in found[:_SHOWN]
    ]
    return [page.listing("Emergency accesses to be reviewed, newest first", head, rows), *_more(found)]


def _reviewed(found: Sequence[Emergency], notes: Mapping[str, words.StudyNote]) -> list[Html]:
    if not found:
        return [tag("p", "None.")]
    head = ("When", "What", "Study", "Reviewed by", "Finding")
    rows = [
        [
            words.stamp(one.started_us),
            link(_place(one.entry), _title(one)),
            _study(one, notes),
            [tag("div", _by(each)) for each in one.reviews] or "its entry follows in a moment",
            [tag("div", each.finding) for each in one.reviews] or "–",
        ]
        for one in found[:_SHOWN]
    ]
    return [page.listing("Emergency accesses that were reviewed, newest first", head, rows), *_more(found)]


def _more(found: Sequence[Emergency]) -> list[Html]:
    more = len(found) - _SHOWN
    return [tag("p", f"and {more:,} more; the timeline has all", class_="remark")] if more > 0 else []


def _study(one: Emergency, notes: Mapping[str, words.StudyNote]) -> Content:
    if one.study is None:
        return "not told here"
    note = notes.get(one.study, words.StudyNote())
    named = " ".join(part for part in (note.modalities, note.description) if part) or f"…{one.study[-16:]}"
    return link(path("console", "studies", one.study), named, title=one.study)


def _due(one: Emergency, now_us: int) -> Content:
    if one.due_us is None:
        return "–"
    if _is_late(one, now_us):
        late = words.span((now_us - one.due_us) / 1e6)
        return tag("span", f"overdue for {late}", class_="outcome bad")
    return words.stamp(one.due_us)


def _by(one: Review) -> Content:
    return (one.by, ", ", link(path("console", "entries", one.entry.hex()), words.stamp(one.time_us)))


def _stands(one: Emergency, now_us: int, sent: bool) -> Html | None:
    if one.reviewed:
        return page.note("It was reviewed.", kind="good")
    if sent:
        return page.note("The review is stated; it stands here as soon as the ledger has it. Load the page again.")
    if _is_late(one, now_us):
        return page.note("Its review is overdue.", kind="bad")
    return page.note(
        "It waits for its review", (", due ", words.stamp(one.due_us)) if one.due_us else None, kind="warn"
    )


def _facts(one: Emergency, notes: Mapping[str, words.StudyNote], now_us: int) -> dict[str, Content]:
    study = _study(one, notes)
    patient = notes.get(one.study or "", words.StudyNote()).patient
    left = f"in {words.span((one.ends_us - now_us) / 1e6)}, " if one.ends_us > now_us else ""
    rows: dict[str, Content] = {
        "Who": _who(one),
        "Study": (study, (" of ", words.patient(patient)) if patient is not None else None),
        "Reason": one.reason or "kept at the other hospital",
        "When": words.stamp(one.started_us),
        "Ends" if left else "Ended": None if one.local else (left, words.stamp(one.ends_us)),
        "Entry": link(path("console", "entries", one.entry.hex()), words.short(one.entry)),
    }
    return {name: value for name, value in rows.items() if value}


def _seen(exchange: Exchange, one: Emergency, now_us: int) -> list[Html]:
    """The accesses to the study by the hospital that took it, while it lasted; of a local one, the access itself."""
    if one.local:
        events = [exchange.node.audit.event(one.entry)]
    elif one.study is None:
        return [tag("p", "The other hospital has not told which study it is about.")]
    else:
        events = list(
            exchange.node.audit.search(
                EventQuery(
                    types=("study.access", "study.export"),
                    studies=(one.study,),
                    hospitals=(one.to_member,),
                    since_us=one.started_us,
                    until_us=min(one.ends_us, now_us) + 1,
                    limit=_ACCESSES,
                )
            )
        )
    late = tag("p", "A viewing is told here when it is over: up to ten minutes after it began.", class_="remark")
    if not events:
        return [tag("p", f"Nobody at {one.to_member} has looked at it so far."), late]
    return [table(events, lookup.notes(exchange.node, [event.study for event in events])), late]


def _review(one: Emergency, admin: bool, now_us: int) -> list[Html]:
    said = [tag("p", "Reviewed by ", tag("b", _by(each)), ": ", each.finding) for each in one.reviews]
    if not admin:
        return said or [tag("p", "An administrator of this hospital can write the review here.")]
    if one.ends_us > now_us:
        lasts = "It still lasts: what is seen after a review, the review does not cover."
        said.append(tag("p", lasts, class_="remark"))
    area = tag("textarea", name="finding", id="finding", rows=4, maxlength=_LONGEST, required=True, class_="prose")
    said.append(
        tag(
            "form",
            tag("input", type="hidden", name="entry", value=one.entry.hex()),
            tag(
                "p",
                tag("label", "Finding: what was looked at, was it an emergency, what follows", for_="finding"),
                area,
                class_="field",
            ),
            tag(
                "p",
                "It is written under your name, cannot be changed, and stays sealed in this hospital. The other "
                "members see that there was a review, not what it says.",
                class_="remark",
            ),
            tag("div", tag("button", "Record the review", type="submit"), class_="actions"),
            method="post",
            action=REVIEWS,
            aria_label="Review",
        )
    )
    return said
