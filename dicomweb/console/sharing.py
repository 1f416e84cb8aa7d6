"""Studies shared with other hospitals: what was given and received, the form that gives, the button that revokes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from bridge.consortium_model import Share
from bridge.errors import NotFound
from bridge.model import Role
from dicomweb.console import emergencies, lookup, page, words
from dicomweb.console.consortium import alone
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from ledger.types import PURPOSES

SECTION: Final = "/console/sharing"
GRANTS: Final = "/console/sharing/grants"
REVOCATIONS: Final = "/console/sharing/revocations"
EXPIRIES: Final = (("1d", "1 day"), ("7d", "7 days"), ("30d", "30 days"), ("365d", "1 year"), ("", "never"))
DEFAULT_EXPIRY: Final = "30d"
_EMERGENCY: Final = frozenset({"ETREAT", "BTG"})
_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "waiting": ("waiting for consensus", "query"),
    "granted": ("granted, not yet delivered", "query"),
    "delivered": ("delivered", "store"),
    "received": ("received there", "check"),
    "announced": ("announced, its key is not here yet", "query"),
    "fetching": ("being fetched", "store"),
    "held": ("here", "check"),
    "revoking": ("revoked, waiting for consensus", "end"),
    "revoked": ("revoked", "end"),
    "ending": ("ending, keys are destroyed", "end"),
    "expired": ("expired", "end"),
    "ended": ("ended, keys destroyed", "node"),
    "refused": ("refused", "refuse"),
}
"""A share's state in words, and the colour of its mark."""
CAN: Final = (
    "Revoking takes effect at once here: no further key and no further block of this study is given to that hospital, "
    "and images that come later are sealed under a new key. It is written on the ledger for all members to see. The "
    "other hospital’s node then destroys its keys, forgets the images, and attests so on the ledger."
)
CANNOT: Final = (
    "It cannot call back what was already seen, printed or copied there, nor prove that a changed program or a backup "
    "kept nothing. What they added themselves, such as a report, stays theirs."
)


def show(exchange: Exchange) -> Response:
    """`GET /console/sharing`."""
    membership = exchange.node.membership
    if membership is None:
        return alone(exchange, "Sharing", SECTION)
    shares = membership.shares()
    notes = lookup.notes(exchange.node, [one.study for one in shares])
    admin = exchange.actor.role is Role.ADMIN
    given, received = [one for one in shares if one.given], [one for one in shares if not one.given]
    body = [
        tag("h1", "Sharing"),
        emergencies.banner(membership.emergencies(), time.time_ns() // 1000),
        page.panel("Given to other hospitals", *_listed(given, notes, admin, "Given"), id_="given"),
        page.panel("Received from other hospitals", *_listed(received, notes, False, "Received"), id_="received"),
        page.panel("What revoking can and cannot do", tag("p", CAN), tag("p", CANNOT), id_="revoking"),
        tag(
            "p",
            "A study is given on its own page; ",
            link("/console/", "the timeline leads there"),
            ".",
            class_="remark",
        ),
    ]
    return page.answer(exchange, page.page("Sharing", body, section=SECTION, who=exchange.actor.name))


def panel(exchange: Exchange, study: str, held: bool) -> Html | None:
    """What the page of a study says of sharing it, with the form for administrators; None without a consortium."""
    membership = exchange.node.membership
    if membership is None:
        return None
    admin, shares = exchange.actor.role is Role.ADMIN, membership.shares(study)
    given = [one for one in shares if one.given]
    said: list[Content] = [_origin(one) for one in shares if not one.given]
    if given:
        said += [_table(given, {}, admin, "Given", of_study=True), tag("p", CAN, " ", CANNOT, class_="remark")]
    others = [member.name for member in membership.overview().members if member.active and not member.own]
    lenders = sorted({one.member for one in shares if not one.given and one.live})
    own = _own(exchange.node, study) if lenders else None
    if lenders:
        said.append(tag("p", _whose(lenders, own)))
    if admin and held and others and own != 0:
        said.append(_form(study, others, own))
    elif not said:
        said.append(tag("p", "It is shared with nobody."))
    return page.panel("Sharing", *said, id_="sharing")


def _own(node: Node, study: str) -> int:
    """How many of its instances this hospital stored itself; 0 when none, or the study is not held."""
    try:
        trees = node.study_content(study, 0).trees
    except NotFound:
        return 0
    return sum(tree.tree.covered for tree in trees if tree.tree.origin is None)


def _whose(lenders: Sequence[str], own: int | None) -> str:
    """What of a study that others lent may be given further."""
    names = " and ".join(lenders)
    if not own:
        return f"It came from {names}, which alone may share it further. What this hospital adds, it may share."
    added = words.count(own, "instance")
    return f"This hospital added {added} to it, which it may share. What {names} lent, {names} alone may share further."


def sure(exchange: Exchange, grant: str) -> Html:
    """What revoking a grant would do, with the button that does it. Raises NotFound for one that has ended, or none."""
    membership = exchange.node.membership
    shares = membership.shares() if membership is not None else ()
    one = next((one for one in shares if one.given and one.live and one.grant.hex() == grant), None)
    if one is None:
        raise NotFound("this hospital has made no such grant, or it has ended")
    told = {
        "Study": _study(one, lookup.notes(exchange.node, [one.study])),
        "Purpose": words.purpose(one.purpose),
        "Since": words.stamp(one.granted_us),
    }
    body = [
        tag("nav", tag("p", link(SECTION, "Sharing"), " / Sure?"), aria_label="Place"),
        tag("h1", f"Revoke what was given to {one.member}?"),
        tag("div", page.facts(told), class_="panel"),
        page.panel("What revoking can and cannot do", tag("p", CAN), tag("p", CANNOT), id_="revoking"),
        tag(
            "form",
            tag("input", type="hidden", name="grant", value=grant),
            tag(
                "div",
                tag("button", "Revoke it", type="submit", name="sure", value="yes", class_="danger large"),
                link(SECTION, "Do not", class_="button"),
                class_="actions",
            ),
            method="post",
            action=REVOCATIONS,
            aria_label="Revoke",
        ),
    ]
    return page.page("Revoke: sure?", body, section=SECTION, who=exchange.actor.name)


def _origin(one: Share) -> Html:
    """Where a received study came from."""
    grant = link(path("console", "entries", one.grant.hex()), "Grant on the ledger")
    until = (", until ", words.stamp(one.expires_us)) if one.expires_us is not None else ""
    state, _ = _STATES.get(one.state, (one.state, ""))
    said = (
        f"Received from {one.member} for {words.purpose(one.purpose)} on ",
        words.stamp(one.granted_us),
        until,
        f": {state}. Its images were made and signed there. ",
        grant,
    )
    return page.note(said, kind="good" if one.live else "warn")


def _listed(shares: Sequence[Share], notes: Mapping[str, words.StudyNote], admin: bool, name: str) -> list[Html]:
    if not shares:
        return [tag("p", "None.")]
    return [_table(shares, notes, admin, name)]


def _table(
    shares: Sequence[Share],
    notes: Mapping[str, words.StudyNote],
    admin: bool,
    name: str,
    *,
    of_study: bool = False,
) -> Html:
    head = [*([] if of_study else ["Study"]), "Hospital", "Purpose", "State", "Since", "Until", "Grant"]
    if admin:
        head.append("Revoke")
    return page.listing(f"{name} studies, newest first", head, [_row(one, notes, admin, of_study) for one in shares])


def _row(one: Share, notes: Mapping[str, words.StudyNote], admin: bool, of_study: bool) -> list[Content]:
    state, colour = _STATES.get(one.state, (one.state, "node"))
    if one.refused and one.live:
        state, colour = "not taken in there", "refuse"
    trouble = [tag("small", why) for why in dict.fromkeys((one.refused, one.trouble)) if why]
    row: list[Content] = [
        tag("b", one.member),
        (words.purpose(one.purpose), tag("small", "they broke the glass") if one.emergency else None),
        (tag("span", state, class_=f"badge {colour}"), trouble),
        words.stamp(one.granted_us),
        words.stamp(one.expires_us) if one.expires_us is not None else "no end",
        link(path("console", "entries", one.grant.hex()), words.short(one.grant)),
    ]
    return [*([] if of_study else [_study(one, notes)]), *row, *([_revoke(one)] if admin else [])]


def _study(one: Share, notes: Mapping[str, words.StudyNote]) -> Content:
    if one.study is None:
        return "not held here"
    note = notes.get(one.study, words.StudyNote())
    named = " ".join(part for part in (note.modalities, note.description) if part) or f"…{one.study[-16:]}"
    return link(path("console", "studies", one.study), named, title=one.study)


def _revoke(one: Share) -> Html | None:
    if not one.live:
        return None
    return tag(
        "form",
        tag("input", type="hidden", name="grant", value=one.grant.hex()),
        tag("button", "Revoke", type="submit", class_="danger", aria_label=f"Revoke what was given to {one.member}"),
        method="post",
        action=REVOCATIONS,
    )


def _form(study: str, others: Sequence[str], own: int | None) -> Html:
    """To whom, why and how long; of a study that others lent too, only the `own` instances are given."""
    what = f"what this hospital added ({words.count(own, 'instance')})" if own is not None else "it"
    given = "what this hospital added, and nothing that others lent" if own is not None else "this study"
    purposes = [(code, f"{said} ({code})") for code, said in PURPOSES.items() if code not in _EMERGENCY]
    return tag(
        "form",
        tag("h3", f"Give {what} to another hospital"),
        tag("input", type="hidden", name="study", value=study),
        tag(
            "div",
            page.choice("to", "Hospital", [(name, name) for name in others], "f", others[0]),
            page.choice("purpose", "Purpose", purposes, "f", "TREAT"),
            page.choice("expires", "Ends after", EXPIRIES, "f", DEFAULT_EXPIRY),
            class_="row",
        ),
        tag(
            "p",
            f"The other hospital gets the key of {given}, sealed to it alone, and its viewers show that as their own. "
            "The grant is written on the ledger, which all members hold; names and images are not.",
            class_="remark",
        ),
        tag("div", tag("button", "Share", type="submit"), class_="actions"),
        method="post",
        action=GRANTS,
    )
