"""Replication: sealed studies kept at other members, and theirs kept here; none of them can be read there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from bridge.consortium_model import Replica
from dicomweb.console import consortium, lookup, page, words
from dicomweb.console.consortium import alone
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.exchange import Exchange

SECTION: Final = "/console/replicas"
_SHOWN: Final = 500
_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "assigned": ("on its way", "query"),
    "kept": ("kept, signed for", "check"),
    "lost": ("lost", "refuse"),
    "released": ("released", "node"),
}


def show(exchange: Exchange) -> Response:
    """`GET /console/replicas`."""
    membership = exchange.node.membership
    if membership is None:
        return alone(exchange, "Replicas", consortium.SECTION)
    found = membership.replicas()
    ours, theirs = [one for one in found if not one.kept_here], [one for one in found if one.kept_here]
    notes = lookup.notes(exchange.node, [one.study for one in ours[:_SHOWN]])
    body = [
        tag("h1", "Replicas"),
        _verdict(ours),
        page.tiles(
            {
                "Copies elsewhere": (f"{sum(one.state == 'kept' for one in ours):,}", "signed for on the ledger"),
                "On their way": (f"{sum(one.state == 'assigned' for one in ours):,}", "not signed for yet"),
                "Lost": (f"{sum(one.state == 'lost' for one in ours):,}", "another member is asked"),
                "Kept for others": (f"{sum(one.state == 'kept' for one in theirs):,}", "sealed; no key is here"),
            }
        ),
        page.panel("Of this hospital, elsewhere", *_listed(ours, notes, "Studies kept elsewhere"), id_="ours"),
        page.panel("Of other hospitals, here", *_listed(theirs, {}, "Studies kept for others"), id_="theirs"),
    ]
    return page.answer(exchange, page.page("Replicas", body, section=consortium.SECTION, who=exchange.actor.name))


def _verdict(ours: Sequence[Replica]) -> Html:
    troubled = sorted({one.member for one in ours if one.trouble})
    if troubled:
        return page.note("Look at this: something is wrong with copies at ", ", ".join(troubled), ".", kind="bad")
    if any(one.state == "lost" for one in ours):
        return page.note("Copies were lost with a member; other members are asked for them.", kind="warn")
    if not ours:
        said = "No study of this hospital is kept elsewhere: "
        return page.note(said, tag("code", "[replication] copies"), " in the settings says how many members keep each.")
    return page.note("Members that keep a copy hold sealed blocks alone: without a key they cannot read them.")


def _listed(found: Sequence[Replica], notes: Mapping[str, words.StudyNote], caption: str) -> list[Html]:
    if not found:
        return [tag("p", "None.")]
    table = page.listing(caption, ("Study", "Member", "State", "Since"), [_row(one, notes) for one in found[:_SHOWN]])
    more = len(found) - _SHOWN
    return [table, tag("p", f"and {more:,} more", class_="remark") if more > 0 else Html()]


def _row(one: Replica, notes: Mapping[str, words.StudyNote]) -> list[Content]:
    state, colour = _STATES.get(one.state, (one.state, "node"))
    trouble = tag("small", one.trouble) if one.trouble else None
    named: Content = ("study tag ", words.short(one.tag))
    if one.study is not None:
        note = notes.get(one.study, words.StudyNote())
        said = " ".join(part for part in (note.modalities, note.description) if part) or f"…{one.study[-16:]}"
        named = link(path("console", "studies", one.study), said, title=one.study)
    return [
        named,
        tag("b", one.member),
        (tag("span", state, class_=f"badge {colour}"), trouble),
        words.stamp(one.since_us),
    ]
