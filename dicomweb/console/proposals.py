"""Putting a change of the consortium to the vote: a form for each, what it would mean, and the button that does it.

Two steps, for a proposal is on the ledger for ever: the form is judged and shown in words (`check`), then stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from bridge.consortium_model import CardOverview, MemberOverview, Motion, Planned
from bridge.errors import NotFound, RequestError
from dicomweb.console import consortium, page, words
from dicomweb.console.html import Content, Html, link, tag
from dicomweb.exchange import Exchange

SECTION: Final = consortium.PROPOSE
CHECKS: Final = "/console/consortium/proposals/check"
PROPOSALS: Final = "/console/consortium/proposals"
_TITLES: Final[Mapping[str, str]] = {
    "enroll": "Take in a hospital",
    "retire": "Retire a member",
    "power": "Change what a validator’s vote weighs",
    "rotate": "Change a member’s keys or addresses",
}
_BEGIN: Final = "-----BEGIN CAIRN MEMBER CARD-----"
_COMPARED: Final = "compared"


def show(exchange: Exchange) -> Response:
    """`GET /console/consortium/propose`, for administrators."""
    membership = exchange.node.membership
    if membership is None:
        return consortium.alone(exchange, "Propose a change", consortium.SECTION)
    stands = membership.overview()
    active = [member for member in stands.members if member.active]
    body = [
        _place(),
        tag("h1", "Propose a change"),
        tag(
            "p",
            f"More than two thirds of the members decide: {stands.quorum} of {len(active)}. A proposal counts as this "
            "hospital’s vote for it, all members see it, and it stays on the ledger. Before it is made, you are shown "
            "what it means.",
        ),
        page.panel(_TITLES["enroll"], *_enroll(), id_="enroll"),
        page.panel(_TITLES["retire"], *_retire(active), id_="retire"),
        page.panel(_TITLES["power"], *_power(active), id_="power"),
        page.panel(_TITLES["rotate"], *_rotate(), id_="rotate"),
    ]
    document = page.page("Propose a change", body, section=consortium.SECTION, who=exchange.actor.name)
    return page.answer(exchange, document)


def motion_of(fields: Mapping[str, str]) -> Motion:
    """The change that a form asks for. Raises RequestError."""
    do, votes = fields.get("do", ""), fields.get("power", "")
    if do not in _TITLES:
        raise RequestError("there is no such change to propose")
    if do == "power" and not (votes.isascii() and votes.isdigit() and len(votes) <= 9):
        raise RequestError("votes are a whole number, 0 or more")
    return Motion(do, fields.get("member", ""), fields.get("card", ""), int(votes) if do == "power" else None)


def check(exchange: Exchange, fields: Mapping[str, str]) -> Html:
    """What the change means, with the button that puts it to the vote. Raises NotFound, RequestError."""
    membership = exchange.node.membership
    if membership is None:
        raise NotFound("this node is in no consortium")
    plan = membership.plan(motion_of(fields))
    members = membership.overview().members
    body = [
        _place(link(SECTION, "Propose a change")),
        tag("h1", f"{_what(plan)}?"),
        *([_card(plan.card, plan.former)] if plan.card is not None else []),
        page.panel(
            "What it means", tag("ul", [tag("li", one) for one in _means(plan, members)], class_="bullets"), id_="means"
        ),
        _confirmation(plan),
    ]
    return page.page("Propose a change: sure?", body, section=consortium.SECTION, who=exchange.actor.name)


def propose(exchange: Exchange, fields: Mapping[str, str]) -> str:
    """Put it to the vote; the way to where it stands. Raises NotFound, RequestError."""
    membership = exchange.node.membership
    if membership is None:
        raise NotFound("this node is in no consortium")
    motion = motion_of(fields)
    if motion.card and fields.get(_COMPARED) != "yes":
        raise RequestError("compare the card’s fingerprint with the hospital by telephone first, and say so")
    made = membership.propose(exchange.actor, motion)
    return f"{consortium.SECTION}#p-{made.hex()[:16]}" if made is not None else f"{consortium.SECTION}?sent=proposal"


def _place(*between: Content) -> Html:
    way = (link(consortium.SECTION, "Consortium"), " / ", *((one, " / ") for one in between))
    return tag("nav", tag("p", way, "Sure?" if between else "Propose a change"), aria_label="Place")


def _enroll() -> list[Html]:
    return [
        tag(
            "p",
            "The hospital makes its card with ",
            tag("code", "cairn consortium join --name NAME --genesis genesis.json --out CARD"),
            " and sends you the file.",
        ),
        _form("enroll", _card_field("enroll"), button="Look at the card"),
    ]


def _retire(active: Sequence[MemberOverview]) -> list[Html]:
    others = [member.name for member in active if not member.own]
    if not others:
        return [tag("p", "There is no other member.")]
    return [
        tag("p", "Of a hospital that leaves, or that broke the rules: nothing of it is taken any more."),
        _form("retire", page.choice("member", "Member", [(one, one) for one in others], "retire"), button="Go on"),
    ]


def _power(active: Sequence[MemberOverview]) -> list[Html]:
    members = [(member.name, f"{member.name} (now {member.power:,})") for member in active]
    votes = tag(
        "p",
        tag("label", "Votes", for_="power-votes"),
        tag("input", type="number", name="power", id="power-votes", min=0, max=1 << 20, step=1, value=1, required=True),
        class_="field",
    )
    fields = tag("div", page.choice("member", "Member", members, "power"), votes, class_="row")
    return [
        tag(
            "p",
            "CometBFT makes a block when validators with more than two thirds of all votes agree. With 0 votes a "
            "member writes and reads as before, and its being away stops nobody.",
        ),
        _form("power", fields, button="Go on"),
    ]


def _rotate() -> list[Html]:
    return [
        tag("h3", "Of this hospital"),
        tag("p", "A new key is made where the node runs, and never leaves it, so that a command proposes it there:"),
        tag(
            "pre",
            "# a new ledger key, for use from the first start after the members have accepted it\n"
            "cairn consortium propose rotate\n\n"
            "# only other addresses, another certificate or another validator’s key\n"
            "cairn consortium propose rotate --keep-key --url https://HOST:8043 --peer HOST:26656",
            tabindex=0,
            aria_label="Commands",
        ),
        tag("h3", "Of another member that lost its keys"),
        tag(
            "p",
            "It makes a new card under its old name with ",
            tag("code", "cairn consortium join --name NAME --out CARD"),
            " and sends you the file.",
        ),
        _form("rotate", _card_field("rotate"), button="Look at the card"),
    ]


def _card_field(form: str) -> Html:
    """Where a card is pasted; with script it can be read from a file too."""
    area = tag(
        "textarea",
        name="card",
        id=f"{form}-card",
        rows=6,
        required=True,
        spellcheck="false",
        autocomplete="off",
        placeholder=_BEGIN,
    )
    file = tag(
        "p",
        tag("label", "or from its file", for_=f"{form}-file"),
        tag("input", type="file", id=f"{form}-file", data_into=f"{form}-card"),
        class_="field",
        hidden=True,
    )
    return Html(tag("p", tag("label", "The card’s text", for_=f"{form}-card"), area, class_="field") + file)


def _form(do: str, *content: Content, button: str) -> Html:
    return tag(
        "form",
        tag("input", type="hidden", name="do", value=do),
        content,
        tag("div", tag("button", button, type="submit"), class_="actions"),
        method="post",
        action=CHECKS,
        aria_label=_TITLES[do],
    )


def _what(plan: Planned) -> str:
    return {
        "enroll": f"Propose to take in {plan.member}",
        "retire": f"Propose to retire {plan.member}",
        "power": f"Propose that {plan.member}’s vote weighs {plan.motion.power or 0:,}",
        "rotate": f"Propose a new card of {plan.member}",
    }[plan.motion.do]


def _card(card: CardOverview, former: CardOverview | None) -> Html:
    """What a card says, and in what it differs from the one that the member has."""

    def row(value: Content, same: bool) -> Content:
        return value if former is None else (value, tag("small", "as before" if same else "new"))

    was = former or card
    rows: dict[str, Content] = {
        "Fingerprint": tag("b", card.fingerprint, class_="fingerprint"),
        "Name": card.name,
        "Members’ listener": row(tag("code", card.url), card.url == was.url),
        "CometBFT": row(tag("code", card.address), card.address == was.address),
        "Votes": f"{card.power:,}" if card.power else "none: no validator",
        "Ledger key": row(words.short(card.key), card.key == was.key),
        "Validator’s key": row(words.short(card.consensus), card.consensus == was.consensus),
        "Certificate": row(
            (words.short(card.certificate), (", until ", words.stamp(card.until_us)) if card.until_us else None),
            card.certificate == was.certificate,
        ),
    }
    asked = page.note(
        tag("b", "Read the fingerprint to each other by telephone, "),
        "at a number that you know from elsewhere. The card says who signed it, not who that is.",
        kind="warn",
    )
    return page.panel("The card", asked, page.facts(rows), id_="card")


def _means(plan: Planned, members: Sequence[MemberOverview]) -> list[Content]:
    """In words for who has to decide."""
    active = sum(member.active for member in members)
    name, said = plan.member, list[Content]()
    match plan.motion.do:
        case "enroll":
            said = [
                f"{name} gets the whole ledger, signs it, votes on changes, and can be given studies.",
                f"It gets no study by that: each is given by a grant. Members are {active + 1} then.",
            ]
        case "retire":
            said = [
                f"Nothing that {name} writes is taken from then on. What it wrote stays, signed and provable.",
                "It has no vote, and gets no study any more. What it was given before it may still have.",
                f"It cannot be undone: {name} could come back with other keys only, by another vote.",
                f"Members are {active - 1} then.",
            ]
        case "power":
            said = [f"{name} has {words.count(plan.power, 'vote')} now."]
        case "rotate":
            said = [
                "Its former ledger key is given up once the new one has signed. What it signed before stays valid.",
                "Studies are sealed to its new key from then on; what was given to it before must be given again if "
                "it lost its keys.",
            ]
    if plan.motion.do != "rotate":
        said.append(_votes(plan))
    said.append(f"{plan.needed} of {active} members must vote for it. Your proposal is the first of these votes.")
    return said


def _votes(plan: Planned) -> Content:
    """What the votes in CometBFT amount to then."""
    if not plan.after:
        return "No validator would be left."
    spare = plan.after - (2 * plan.after // 3 + 1)
    total = f"All validators together have {words.count(plan.after, 'vote')} then (now {plan.total:,})"
    if plan.largest > spare:
        return (total, "; ", tag("b", f"a member with {plan.largest:,} of them that is away stops all agreement"), ".")
    return f"{total}; members with {spare:,} of them may be away at a time, and agreement goes on."


def _confirmation(plan: Planned) -> Html:
    motion = plan.motion
    held = {"do": motion.do, "member": motion.member, "card": motion.card}
    if motion.power is not None:
        held["power"] = str(motion.power)
    compared = tag(
        "p",
        tag("input", type="checkbox", name=_COMPARED, value="yes", id=_COMPARED, required=True),
        tag("label", f"I compared the fingerprint with {plan.member} by telephone", for_=_COMPARED),
        class_="check-field",
    )
    danger = "danger large" if motion.do == "retire" else None
    return tag(
        "form",
        [tag("input", type="hidden", name=name, value=value) for name, value in held.items() if value],
        compared if plan.card is not None else None,
        tag(
            "div",
            tag("button", "Put it to the vote", type="submit", class_=danger),
            link(SECTION, "Do not", class_="button"),
            class_="actions",
        ),
        method="post",
        action=PROPOSALS,
        aria_label="Put it to the vote",
    )
