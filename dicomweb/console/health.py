"""The ledger's health: how fresh it is, whether numbers are missing, who vouches for it, what waits."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.responses import Response

from bridge.model import LedgerHealth
from dicomweb.console import page, witnesses, words
from dicomweb.console.html import Content, Html, link, tag
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from ledger import checkpoint
from ledger.errors import LedgerError
from ledger.event import EventQuery

_DAY_US = 86_400 * 1_000_000
_LATE_S = 60  # a record that waits longer for its entry makes `cairn ledger verify` fail
_NOTABLE_STEP_US = 1_000_000


def show(exchange: Exchange) -> Response:
    """`GET /console/health`."""
    node = exchange.node
    now_us = time.time_ns() // 1000
    health = node.overview.ledger()
    note = node.log.checkpoint()
    body = [
        tag("h1", "Ledger"),
        _verdict(health, now_us, node.ready()),
        page.tiles(_figures(node, health, now_us)),
        page.panel("Who vouches for it", *_vouchers(node, health, note), id_="vouchers"),
        tag(
            "div",
            page.panel("Order", page.facts(_order(health)), id_="order"),
            tag(
                "div",
                page.panel("Waiting", page.facts(_waiting(health, now_us)), id_="waiting"),
                page.panel("Forwarding of audit messages", *_forwarding(node, health), id_="forwarding"),
            ),
            class_="columns",
        ),
        _signed(node, note),
    ]
    document = page.page("Ledger", body, section="/console/health", who=exchange.actor.name)
    return page.answer(exchange, document)


def _verdict(health: LedgerHealth, now_us: int, not_ready: object) -> Html:
    """The one thing to know: whether anything is wrong."""
    wrong = [str(reason) for reason in not_ready] if isinstance(not_ready, list | tuple) else []
    missing = _missing(health)
    if missing:
        wrong.append(f"{words.count(missing, 'sequence number')} missing")
    if health.waiting_since is not None and now_us - health.waiting_since > _LATE_S * 1_000_000:
        wrong.append(f"records have waited for {words.span((now_us - health.waiting_since) / 1e6)}")
    if health.stepped_back_us > _NOTABLE_STEP_US:
        wrong.append(f"the clock was set back by {words.span(health.stepped_back_us / 1e6)}")
    if wrong:
        return page.note("Look at this: ", "; ".join(wrong), ".", kind="bad")
    if not health.size:
        return page.note("The ledger has no entry yet.", kind="info")
    return page.note(
        "Nothing is missing and nothing is late. ",
        tag("code", "cairn ledger verify"),
        " checks every signature and hash.",
        kind="good",
    )


def _figures(node: Node, health: LedgerHealth, now_us: int) -> dict[str, tuple[Content, Content]]:
    midnight = now_us // _DAY_US * _DAY_US
    today = sum(number for _, number in node.audit.histogram(EventQuery(since_us=midnight, until_us=now_us + 1), 1))
    age: Content = "none yet"
    if health.checkpoint is not None:
        age = words.span(max(0, now_us - health.checkpoint) / 1e6)
    newest = node.audit.search(EventQuery(limit=1))
    taken_in = newest[0].index + 1 if newest else 0
    behind = max(0, health.size - taken_in)
    return {
        "Entries": (f"{health.size:,}", "in the tree"),
        "Entries today": (f"{today:,}", "since midnight, UTC"),
        "Checkpoint’s age": (age, words.stamp(health.checkpoint) if health.checkpoint is not None else None),
        "Records waiting": (f"{health.waiting_records:,}", "for their entry"),
        "Search is behind by": (f"{behind:,}", "entries"),
    }


def _missing(health: LedgerHealth) -> int:
    """Sequence numbers without an entry: a node's numbers run from 0 without gap in each log."""
    held = health.size if health.numbered is None else health.numbered
    return 0 if health.last_sequence is None else max(0, health.last_sequence + 1 - held)


def _order(health: LedgerHealth) -> dict[str, Content]:
    missing = _missing(health)
    numbers = "none yet"
    if health.last_sequence is not None:
        numbers = f"0 to {health.last_sequence:,}, " + (f"{missing:,} MISSING" if missing else "none missing")
    step = health.stepped_back_us
    return {
        "Sequence numbers": numbers,
        "Clock": (
            f"set back by {words.span(step / 1e6)} between two of the newest entries"
            if step > _NOTABLE_STEP_US
            else "never behind the entry before, among the newest entries"
        ),
        "Skew against others": (
            "not known: a single node has no other clock to compare with"
            if health.numbered is None
            else (link("/console/alerts", "an alert"), " tells of each entry that is far from the time of its block")
        ),
    }


def _waiting(health: LedgerHealth, now_us: int) -> Mapping[str, Content]:
    def since(moment: int | None) -> str:
        return "" if moment is None else f", the oldest for {words.span(max(0, now_us - moment) / 1e6)}"

    pending = f"{words.count(health.pending, 'entry', 'entries')} of this hospital"
    why = ("; ", link("/console/consortium", "why")) if health.pending else None
    awaited: dict[str, Content] = {"Without a block yet": (pending, why)}
    return (awaited if health.numbered is not None else {}) | {
        "Closed, without entry": words.count(health.waiting_batches, "batch", "batches") + since(health.waiting_since),
        "Still open": words.count(health.open_batches, "session or transfer", "sessions or transfers")
        + since(health.open_since),
    }


def _vouchers(node: Node, health: LedgerHealth, note: str | None) -> list[Html]:
    """Whose signatures the checkpoint bears; that nobody else keeps a copy is said plainly."""
    state = node.witnessing.state() if node.witnessing is not None else None
    said = witnesses.vouchers(state, health.size) if state is not None else []
    if node.membership is not None:
        said.append(_replicated())
    elif state is None or not state.witnesses:
        said.append(_alone())
    if note is not None:
        try:
            signatures = checkpoint.split_note(note)[1]
        except LedgerError:
            return [*said, page.note("The checkpoint cannot be read.", kind="bad")]
        said.append(tag("p", "Signatures on the newest checkpoint:"))
        said.append(tag("ul", [tag("li", tag("code", one.name)) for one in signatures]))
        if len(signatures) == 1:
            said.append(tag("p", "No witness has cosigned it."))
    return said


def _alone() -> Html:
    return page.note(
        tag("b", "Not replicated. "),
        "This ledger has one node. It signs its own checkpoints: whoever holds its key could sign another history, "
        "which only those notice who kept an older checkpoint. Keep some elsewhere.",
        kind="warn",
    )


def _replicated() -> Html:
    return page.note(
        tag("b", "Replicated. "),
        "This ledger is the consortium’s: every member has it whole, and more than two thirds decide its order. ",
        link("/console/consortium", "Members and validators"),
        kind="good",
    )


def _forwarding(node: Node, health: LedgerHealth) -> list[Html]:
    """How far the audit repository has what happened."""
    if health.forwarded is None:
        return [tag("p", "No audit repository is configured; see ", tag("code", "[audit]"), " in the settings.")]
    left = max(0, health.size - health.forwarded)
    state = "all have been sent" if not left else f"{words.count(left, 'entry', 'entries')} still to be sent"
    return [tag("p", f"Audit messages go to the repository by syslog over TLS: {state}.")]


def _signed(node: Node, note: str | None) -> Html:
    """The checkpoint, and what it is checked with: the key, or the members' policy; to be kept elsewhere."""
    shared = node.membership is not None
    trust = "Policy of the members" if shared else "Verifier key"
    return page.panel(
        "Keep a copy",
        tag("p", "Whoever kept a checkpoint can prove later that nothing before it was changed."),
        tag("h3", "Newest checkpoint"),
        tag("pre", note, tabindex=0, aria_label="Checkpoint") if note else tag("p", "There is none yet."),
        tag("h3", trust),
        tag("pre", node.log.policy() if shared else node.log.key(), tabindex=0, aria_label=trust),
        tag(
            "p",
            link("/ledger/checkpoint", "Checkpoint as a file", download="checkpoint", class_="button"),
            class_="actions",
        ),
        id_="copy",
    )
