"""The consortium: its members, whether they agree, what is put to the vote, and what was proved against whom."""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response

from bridge.consortium_model import ConsortiumOverview, EvidenceOverview, MemberOverview, ProposalOverview
from bridge.model import Role
from dicomweb.console import emergencies, page, words
from dicomweb.console.html import Content, Html, link, tag
from dicomweb.exchange import Exchange

SECTION: Final = "/console/consortium"
PROPOSE: Final = "/console/consortium/propose"
VOTES: Final = "/console/consortium/votes"
_SENT: Final = {
    "proposal": "The proposal is stated and waits for its block; it stands below as soon as the members have it.",
    "vote": "The vote is stated and waits for its block; it counts as soon as the members have it.",
}
_OUTCOMES: Final = {
    "accepted": "Accepted, in force",
    "rejected": "Rejected",
    "withdrawn": "Withdrawn",
    "void": "Accepted, but could no longer take effect",
}


def alone(exchange: Exchange, title: str, section: str) -> Response:
    """The page of a node that is in no consortium, for every page about one."""
    body = [
        tag("h1", title),
        page.note("This node is in no consortium: its ledger is its own, and it shares with nobody."),
        tag(
            "p",
            "Hospitals that hold one ledger together, and need no third party for it, are set up with ",
            tag("code", "cairn consortium init"),
            " and ",
            tag("code", "cairn consortium join"),
            "; docs/consortium.md tells how.",
        ),
    ]
    return page.answer(exchange, page.page(title, body, section=section, who=exchange.actor.name))


def show(exchange: Exchange) -> Response:
    """`GET /console/consortium`."""
    membership = exchange.node.membership
    if membership is None:
        return alone(exchange, "Consortium", SECTION)
    stands, now_us = membership.overview(), time.time_ns() // 1000
    admin = exchange.actor.role is Role.ADMIN
    sent = dict(exchange.parameters).get("sent", "")
    body = [
        tag("h1", f"Consortium {stands.name}"),
        page.note(_SENT[sent]) if sent in _SENT else None,
        emergencies.banner(membership.emergencies(), now_us),
        *_verdicts(stands, now_us),
        page.tiles(_figures(stands, now_us)),
        tag(
            "p",
            link("/console/sharing", "Studies shared", class_="button"),
            link("/console/replicas", "Copies kept at members", class_="button"),
            class_="actions before",
        ),
        _members(stands, now_us),
        page.panel("Put to the vote", *_proposals(stands, admin), id_="proposals"),
        page.panel("Proved against members", *_evidence(stands.evidence), id_="evidence"),
    ]
    return page.answer(exchange, page.page("Consortium", body, section=SECTION, who=exchange.actor.name))


def _verdicts(stands: ConsortiumOverview, now_us: int) -> list[Html]:
    """What to know first: who was proved to have lied, which stays so for ever, and what waits now, why, what to do."""
    found = []
    if stands.evidence:
        count = words.count(len({one.member for one in stands.evidence}), "member is", "members are")
        found.append(page.note("Look at this: ", count, " proved to have broken the rules; see below.", kind="bad"))
    if stands.hindrances:
        found.append(_hindered(stands, now_us))
    return found or [_agreement(stands)]


def _agreement(stands: ConsortiumOverview) -> Html:
    active = sum(member.active for member in stands.members)
    if stands.cosigned is not None and stands.cosigned >= stands.size:
        return page.note(f"Agreed: {stands.quorum} or more of {active} members have signed the whole log.", kind="good")
    if not stands.size:
        return page.note("The log has no entry yet.")
    signed = f"{stands.cosigned:,}" if stands.cosigned is not None else "none"
    bear = "bears" if stands.cosigned == 1 else "bear"
    return page.note(
        f"Committed. Of {words.count(stands.size, 'entry', 'entries')}, {signed} {bear} the signatures of a quorum so "
        "far."
    )


def _hindered(stands: ConsortiumOverview, now_us: int) -> Html:
    """Why there is no agreement, since when, and what to do about each cause."""
    said = "Nothing of this hospital waits so far"
    if stands.outbox:
        waits = words.count(stands.outbox, "entry of this hospital waits", "entries of this hospital wait")
        said = f"{waits} for consensus, the oldest for {_ago(stands.waiting_since, now_us)}"
    causes = [
        tag(
            "div",
            tag("dt", one.what, ".", (" Since ", words.stamp(one.since_us), ".") if one.since_us is not None else None),
            tag("dd", tag("b", "What to do: "), one.advice),
        )
        for one in stands.hindrances
    ]
    return tag(
        "div",
        tag("p", tag("b", "No agreement at the moment. "), said, ". Storing and viewing go on."),
        tag("dl", causes, class_="causes"),
        class_="note warn",
        role="status",
    )


def _ago(moment: int | None, now_us: int) -> str:
    return words.span(max(0, now_us - (now_us if moment is None else moment)) / 1e6)


def _figures(stands: ConsortiumOverview, now_us: int) -> dict[str, tuple[Content, Content]]:
    active = sum(member.active for member in stands.members)
    block = f"{_ago(stands.block_us, now_us)} ago" if stands.block_us is not None else "none yet"
    waiting = "for consensus"
    if stands.waiting_since is not None:
        waiting += f", the oldest for {_ago(stands.waiting_since, now_us)}"
    cosigned = f"{stands.cosigned:,} entries" if stands.cosigned is not None else "none"
    return {
        "Height": (f"{stands.height:,}", "of the last block with entries"),
        "Last block": (block, words.stamp(stands.block_us) if stands.block_us is not None else None),
        "Entries": (f"{stands.size:,}", "in the shared log"),
        "Signed by a quorum": (cosigned, f"{stands.quorum} of {active} members must sign"),
        "Waiting": (f"{stands.outbox:,}", waiting),
    }


def _members(stands: ConsortiumOverview, now_us: int) -> Html:
    head = ("Member", "State", "Votes with", "Entries", "Last entry", "Has signed", "Address")
    rows = [_member(member, stands, now_us) for member in stands.members]
    table = page.listing("Members of the consortium", head, rows, figures=("Votes with", "Entries"))
    ledger = tag("p", "Ledger ", tag("code", stands.ledger.hex()), class_="remark")
    return page.panel("Members", table, ledger, id_="members")


def _member(member: MemberOverview, stands: ConsortiumOverview, now_us: int) -> list[Content]:
    here = tag("small", "(this node) ") if member.own else None
    state, colour = ("active", "check") if member.active else ("retired", "node")
    unheard = stands.unheard.get(member.name) if member.active else None
    if unheard is not None:
        state, colour = "not heard", "refuse"
    signed = "–"
    if member.cosigned is not None:
        signed = "all" if member.cosigned >= stands.size else f"up to {member.cosigned:,}"
    return [
        (tag("b", member.name), " ", here, tag("small", tag("code", member.node.hex()[:8], "…"))),
        (
            tag("span", state, class_=f"badge {colour}"),
            tag("small", f"for {_ago(unheard, now_us)}") if unheard is not None else None,
        ),
        f"{member.power:,}" if member.power else "no validator",
        f"{member.entries:,}",
        words.stamp(member.last_us) if member.last_us is not None else "–",
        signed,
        tag("code", member.url) if member.url else "–",
    ]


def _proposals(stands: ConsortiumOverview, admin: bool) -> list[Html]:
    own = next((member.name for member in stands.members if member.own), "")
    said = [_proposal(one, admin, own) for one in stands.proposals]
    if not said:
        what = "Nothing. Members are taken in, their keys changed and members retired by votes on the ledger."
        said.append(tag("p", what))
    if admin:
        said.append(tag("p", link(PROPOSE, "Propose a change", class_="button"), class_="actions apart"))
    return said


def _proposal(one: ProposalOverview, admin: bool, own: str) -> Html:
    yes = ", ".join(one.yes) or "nobody"
    against = f"; against: {', '.join(one.no)}" if one.no else ""
    when = (", ", words.stamp(one.time_us)) if one.time_us is not None else None
    said: list[Content] = [
        tag("p", tag("b", one.what), f", proposed by {one.by}", when),
        tag("p", f"In favour: {yes} ({len(one.yes)} of {one.needed} needed){against}.", class_="remark"),
    ]
    if one.state != "open":
        colour = "check" if one.state == "accepted" else "node"
        said.append(tag("p", tag("span", _OUTCOMES.get(one.state, one.state), class_=f"badge {colour}")))
        return tag("div", said, class_="motion", id=f"p-{one.id.hex()[:16]}")
    if one.own is not None:
        said.append(tag("p", f"This hospital has voted {'for' if one.own else 'against'} it."))
    if admin:
        said.append(_ballot(one, one.by == own))
    elif one.own is None:
        said.append(tag("p", "An administrator of this hospital can vote on it here.", class_="remark"))
    return tag("div", said, class_="motion", id=f"p-{one.id.hex()[:16]}")


def _ballot(one: ProposalOverview, proposer: bool) -> Html:
    """The buttons; what a vote means is said beside them. A proposer's no withdraws the proposal."""
    against = "Withdraw it" if proposer else "Vote against it"
    buttons = [
        tag("button", "Vote for it", type="submit", name="vote", value="yes") if one.own is not True else None,
        tag("button", against, type="submit", name="vote", value="no", class_="second")
        if one.own is not False
        else None,
    ]
    return tag(
        "form",
        tag("input", type="hidden", name="proposal", value=one.id.hex()),
        tag(
            "p",
            "The vote is this hospital’s, and all members see it. It can be changed until enough have voted.",
            class_="remark",
        ),
        tag("div", buttons, class_="actions"),
        method="post",
        action=VOTES,
        aria_label=f"Vote on: {one.what}",
    )


def _evidence(found: tuple[EvidenceOverview, ...]) -> list[Html]:
    if not found:
        return [tag("p", "Nothing: no member has signed two blocks of one height, or two logs of one size.")]
    items = [tag("li", tag("b", one.member), ": ", one.what, ", ", words.stamp(one.time_us)) for one in found]
    said = tag("p", "Both signatures are kept, so that anyone can check it. Retire the member by vote if need be.")
    return [tag("ul", items, class_="plain-list"), said, tag("p", link("/console/alerts", "Alerts"))]
