"""The frame of every page: head, landmarks, navigation, security headers; and the pages of refusal."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Container, Mapping, Sequence
from typing import Final, Protocol

from starlette.responses import Response

from bridge.errors import CairnError, Unauthenticated
from dicomweb import problems
from dicomweb.console.html import Content, Html, link, tag

STATIC: Final = "/console/static/"
SECTIONS: Final[tuple[tuple[str, str], ...]] = (
    ("/console/", "Timeline"),
    ("/console/alerts", "Alerts"),
    ("/console/emergencies", "Emergencies"),
    ("/console/health", "Ledger"),
    ("/console/storage", "Storage"),
    ("/console/consortium", "Consortium"),
    ("/console/sharing", "Sharing"),
)
"""The navigation: where each section lies, and its name."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",  # addresses hold study UIDs and patient IDs
    "x-content-type-options": "nosniff",
}
"""Sent with each page: nothing of another host, nothing inline, no frame, nothing kept."""

# Who has no session may fetch nothing else, so that this page brings its own style, allowed by its hash alone.
_LOGIN_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;max-width:38rem;margin:12vh auto;"
    "padding:0 1.5rem}h1{font-size:1.6rem}pre{padding:.8rem 1rem;border:1px solid;border-radius:.5rem;overflow:auto}"
)


class Visitor(Protocol):
    """Whom a page is for: what `dicomweb.exchange.Exchange` has of it."""

    @property
    def method(self) -> str: ...


def page(title: str, content: Content, *, section: str = "", who: str = "", aim: str = "Skip to content") -> Html:
    """A whole document. `section` is the address of the navigation's current entry, `who` the name of the reader."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · Cairn"),
        tag("link", rel="icon", href=STATIC + "cairn.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href=STATIC + "console.css"),
        tag("script", type="module", src=STATIC + "console.js"),
    )
    sections = [
        tag("li", link(address, name, aria_current="page" if address == section else None))
        for address, name in SECTIONS
    ]
    header = tag(
        "header",
        tag(
            "a",
            tag("img", src=STATIC + "cairn.svg", alt="", width=26, height=26),
            "Cairn",
            class_="brand",
            href="/console/",
        ),
        tag("nav", tag("ul", sections), aria_label="Sections"),
        tag("p", tag("span", "Signed in as ", class_="quiet"), tag("b", who), class_="who") if who else None,
        class_="top",
    )
    body = tag(
        "body",
        link("#content", aim, class_="skip"),
        header,
        tag("main", content, id="content", tabindex=-1),
        tag("footer", tag("p", "Times are in UTC. Reading this console is recorded in the ledger."), class_="bottom"),
    )
    return Html("<!doctype html>" + tag("html", head, body, lang="en"))


def answer(visitor: Visitor, document: Html, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The document as an answer; its headers alone for HEAD."""
    body = document.encode()
    response = Response(
        None if visitor.method == "HEAD" else body, status, {**HEADERS, **(headers or {})}, "text/html; charset=utf-8"
    )
    response.headers["content-length"] = str(len(body))
    return response


def panel(title: str, *content: Content, id_: str, class_: str = "") -> Html:
    """A titled part of a page."""
    heading = tag("h2", title, id=f"{id_}-title")
    return tag("section", heading, content, class_=f"panel {class_}".strip(), aria_labelledby=f"{id_}-title", id=id_)


def facts(rows: Mapping[str, Content]) -> Html:
    """Names and values as a list of descriptions."""
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows.items()], class_="facts")


def tiles(rows: Mapping[str, tuple[Content, Content]]) -> Html:
    """Figures side by side: name -> (figure, what is to be said of it)."""
    return tag(
        "dl",
        [
            tag("div", tag("dt", name), tag("dd", tag("b", figure), tag("small", remark) if remark else None))
            for name, (figure, remark) in rows.items()
        ],
        class_="tiles",
    )


def choice(name: str, label: str, options: Sequence[tuple[str, str]], form: str, chosen: str | None = None) -> Html:
    """A field of a form in which one of `options` (value, words) is chosen; `form` keeps its id apart from others."""
    items = [tag("option", said, value=value, selected=value == chosen) for value, said in options]
    place = f"{form}-{name}"
    return tag("p", tag("label", label, for_=place), tag("select", items, name=name, id=place), class_="field")


def listing(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Content]],
    *,
    figures: Container[str] = (),
    foot: Content = None,
) -> Html:
    """A table whose rows become cards on a narrow screen; columns named in `figures` are aligned at their last digit.

    The first cell of a row is its head. `foot` are whole rows below it. Roles are named, for a table that is laid out
    as something else is none any more to who cannot see it.
    """

    def cell(place: int, content: Content) -> Html:
        name = head[place]
        class_ = "figure" if name in figures else None
        if place == 0:
            return tag("th", content, scope="row", class_=class_, role="rowheader")
        return tag("td", content, data_label=name, class_=class_, role="cell")

    columns = [
        tag("th", name, scope="col", class_="figure" if name in figures else None, role="columnheader") for name in head
    ]
    lines = [tag("tr", [cell(place, content) for place, content in enumerate(row)], role="row") for row in rows]
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", columns, role="row"), role="rowgroup"),
        tag("tbody", lines, role="rowgroup"),
        tag("tfoot", foot, role="rowgroup") if foot else None,
        class_="counts listing",
        role="table",
    )


def note(*content: Content, kind: str = "info") -> Html:
    """A remark that stands out; `kind` is "info", "good", "warn" or "bad"."""
    return tag("p", content, class_=f"note {kind}")


def refused(visitor: Visitor, error: CairnError, back: str = "/console/") -> Response:
    """The page of an error: what happened, what to do, the way back; nobody is asked for a password by a dialogue."""
    status = error.answer.http
    titles = {403: "Not for this role", 404: "Not here", 503: "Not now"}
    title = titles.get(status, "That did not work")
    said = [
        tag("h1", title),
        tag("p", error.detail[:1].upper() + error.detail[1:], "." if error.detail[-1:] != "." else ""),
    ]
    if status == 403:
        roles = "The console is for the roles auditor and admin; changes are for admin alone. "
        said.append(tag("p", roles, "Ask an administrator for such a login."))
    else:
        said.append(tag("p", error.advice))
    if status != 403:
        said.append(tag("p", link(back, "Back to the timeline" if back == "/console/" else "Back")))
    headers = {"retry-after": str(problems.RETRY_AFTER_SECONDS)} if status == 503 else {}
    return answer(visitor, page(title, tag("div", said, class_="plain")), status, headers)


def lone(title: str, style: str, body: Content) -> tuple[Html, str]:
    """A page that needs no other file: the document, and the Content-Security-Policy that allows its style alone."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · Cairn"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style)),
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Html("<!doctype html>" + tag("html", head, tag("body", tag("main", body)), lang="en")), policy


def login_needed(visitor: Visitor, error: Unauthenticated) -> Response:
    """The page for who has no session: how to get a login link."""
    body = (
        tag("h1", "Login needed"),
        tag("p", "The console shows who stored and saw what. It is for the roles auditor and admin."),
        tag("p", "Make a login link where the node runs, or ask for one, and open it here within ten minutes:"),
        tag("pre", tag("code", "cairn login-link --name WHO --role auditor")),
    )
    document, policy = lone("Login needed", _LOGIN_STYLE, body)
    challenge = {"content-security-policy": policy, "www-authenticate": problems.BEARER_CHALLENGE}
    return answer(visitor, document, 401, challenge)
