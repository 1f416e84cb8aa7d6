"""One entry: what happened in a sentence, its fields and records, its bytes, its place in the tree, and its proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from starlette.responses import Response

from bridge.errors import NotFound
from dicomweb.console import lookup, merkle_path, page, words
from dicomweb.console.html import Content, Html, link, path, tag
from dicomweb.exchange import Exchange
from dicomweb.node import Node
from ledger import entry as ledger_entry
from ledger.entry import Entry
from ledger.errors import CodecError
from ledger.event import Detail, Event, EventQuery
from ledger.types import ENTRY_TYPES, EVENT_NAMES

_ID_DIGITS: Final = 64
_ROW_BYTES: Final = 16
_SHOWN_RECORDS: Final = 200
_NEIGHBOURS: Final = 64


_WAYS: Final = {
    "dimse": "DICOM network",
    "http": "HTTP",
    "gateway": "HTTP, sealed blocks alone",
    "members": "members' listener, sealed blocks alone",
    "command": "command",
    "node": "the node itself",
}


def show(exchange: Exchange) -> Response:
    """`GET /console/entries/{id}`: the entry with this leaf hash, or the one over the record with it."""
    given = exchange.path["id"]
    if len(given) != _ID_DIGITS or any(digit not in "0123456789abcdef" for digit in given):
        raise NotFound("no entry and no record has this id: it has 64 hexadecimal digits")
    node, id_ = exchange.node, bytes.fromhex(given)
    event = node.audit.event(id_)
    details = node.audit.details(event.id)
    envelope = node.log.envelope(event.id)
    note = lookup.notes(node, [event.study]).get(event.study or "")
    body = [
        _head(event, note, node),
        tag(
            "div",
            tag("div", _decoded(event, envelope, details)),
            tag("div", _verify(node, event), _tree(node, event)),
            class_="columns",
        ),
        _records(details, id_ if id_ != event.id else None),
        _bytes(envelope),
    ]
    title = f"Entry {event.index:,}"
    return page.answer(exchange, page.page(title, body, section="/console/", who=exchange.actor.name))


def _head(event: Event, note: words.StudyNote | None, node: Node) -> Html:
    """The sentence, and the ways to the neighbours of the node's chain."""
    before, after = _neighbours(node, event)
    turns = [
        link(path("console", "entries", one.id.hex()), label, rel=rel)
        for one, label, rel in ((before, "‹ Previous", "prev"), (after, "Next ›", "next"))
        if one is not None
    ]
    return tag(
        "div",
        tag("nav", tag("p", link("/console/", "Timeline"), " / ", f"Entry {event.index:,}"), turns, aria_label="Chain"),
        tag("h1", f"Entry {event.index:,}"),
        tag(
            "p",
            words.badge(event.type),
            words.finality(event),
            tag("span", f"at {event.hospital}", class_="site") if event.hospital else None,
            words.stamp(event.time_us),
            class_="meta",
        ),
        tag("p", words.told(event, note), class_="sentence"),
        class_="entry-head",
    )


def _neighbours(node: Node, event: Event) -> tuple[Event | None, Event | None]:
    """The entries of the same node before and after this one, where they are."""
    older = node.audit.search(EventQuery(nodes=(event.node,), before=event.index, limit=1))
    above = EventQuery(nodes=(event.node,), before=event.index + 1 + _NEIGHBOURS, limit=_NEIGHBOURS)
    newer = [one for one in node.audit.search(above) if one.index > event.index]
    return (older[0] if older else None), (newer[-1] if newer else None)


def _decoded(event: Event, envelope: bytes, details: Sequence[Detail]) -> Html:
    """What the envelope says, field by field, beside what this node knows it to mean."""
    try:
        said = ledger_entry.read(envelope)
    except CodecError as error:
        return page.panel("Fields", page.note(f"The envelope cannot be read: {error}", kind="bad"), id_="fields")
    row = ENTRY_TYPES[event.type]
    who = event.actor
    rows: dict[str, Content] = {
        "Type": (event.type, tag("small", row.meaning)),
        "Action": f"{said.action} · {EVENT_NAMES.get(row.event, 'DICOM event')} ({row.event})",
        "Entry made": words.stamp(event.time_us),
        "Block": _block(event),
        "Hospital": event.hospital or None,
        "Records made": _span(details),
        "Outcome": f"{event.outcome}, {words.outcome(event.outcome)}",
        "Purpose": words.purpose(event.purpose),
        "Reason": event.reason or None,
        "Actor": (f"{who.name or 'unknown'}, {who.kind}", tag("small", "tag ", _code(said.who.tag))),
        "Role": who.role or None,
        "Address": (
            (who.address, tag("small", "tag ", _code(said.who.address))) if said.who.address else who.address or None
        ),
        "Way": _WAYS.get(who.how, who.how) or None,
        "Patient": words.patient(event.patient) if event.patient else None,
        "Study": _study(event, said),
        "Records": f"{event.records:,}",
        "Records root": _code(said.records_root),
        "Manifest commitment": _code(said.commitment) if said.commitment else None,
        "Sequence": f"{said.sequence:,} of node {event.node.hex()}",
        "Previous envelope": _code(said.previous),
        "Ledger": _code(said.ledger),
        "Entry id": _code(event.id),
    }
    return page.panel("Fields", page.facts({name: value for name, value in rows.items() if value}), id_="fields")


def _block(event: Event) -> Content:
    """When the members agreed on it."""
    if event.block_time_us is None:
        return None
    return (words.stamp(event.block_time_us), tag("small", "the members' own time, of all their clocks"))


def _span(details: Sequence[Detail]) -> Content:
    """When the records were made: an entry follows when their session or transfer is over."""
    times = [detail.time_us for detail in details if detail.time_us is not None]
    if not times:
        return None
    first, last = min(times), max(times)
    return words.stamp(first) if last - first < 1_000_000 else (words.stamp(first), " to ", words.clock(last))


def _study(event: Event, said: Entry) -> Content:
    if said.study is None:
        return None
    mark = tag("small", "tag ", _code(said.study))
    if event.study is None:
        return ("erased" if event.erased else "not known here", mark)
    return (link(path("console", "studies", event.study), event.study), mark)


def _records(details: Sequence[Detail], marked: bytes | None) -> Html:
    """The records under the entry, as far as their keys are held."""
    if not details:
        return page.panel("Records", tag("p", "The records of this entry are not here any more."), id_="records")
    rows = []
    for detail in details[:_SHOWN_RECORDS]:
        said: Content = _body(detail.body) if detail.body is not None else tag("em", "Erased: its key was destroyed.")
        proof = tag("a", "Proof", href=path("ledger", "entries", detail.leaf.hex(), "proof"), download=True)
        when = words.clock(detail.time_us) if detail.time_us is not None else "–"
        rows.append(
            tag(
                "tr",
                tag("th", f"{detail.position + 1:,}", scope="row"),
                tag("td", when, class_="when"),
                tag("td", said, tag("small", "leaf ", _code(detail.leaf)), class_="says"),
                tag("td", proof),
                class_="marked" if detail.leaf == marked else None,
            )
        )
    head = tag("tr", [tag("th", name, scope="col") for name in ("No.", "Time", "What it says", "Proof")])
    hidden = len(details) - len(rows)
    return page.panel(
        f"Records ({len(details):,})",
        tag(
            "table",
            tag("caption", "Records of the entry, in order"),
            tag("thead", head),
            tag("tbody", rows),
            class_="records",
        ),
        tag("p", f"{words.count(hidden, 'more record')} not shown.") if hidden else None,
        id_="records",
    )


def _body(value: object) -> Content:
    """A record's body as nested lists; items of access as "2 × frame 1.2.3"."""
    if isinstance(value, Mapping):
        rows = [tag("div", tag("dt", str(key)), tag("dd", _body(item))) for key, item in value.items() if item != ""]
        return tag("dl", rows)
    if isinstance(value, bytes):
        return _code(value)
    if isinstance(value, list | tuple):
        flat = all(not isinstance(item, Mapping | list | tuple) for item in value)
        if flat:
            times = value[-1] if len(value) > 1 and type(value[-1]) is int else None
            shown = value if times is None else value[:-1]
            return ("" if times is None else f"{times:,} × ", " ".join(str(item) for item in shown if item != ""))
        return tag("ul", [tag("li", _body(item)) for item in value])
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _verify(node: Node, event: Event) -> Html:
    """The proof, to take away and to check in this browser."""
    proof = path("ledger", "entries", event.id.hex(), "proof")
    told = {"id": "vkey", "spellcheck": "false", "autocomplete": "off", "aria_describedby": "vkey-remark"}
    key, policy = node.log.key(event.id), node.log.policy()
    # Trust is in the members of a consortium, or in those who witness this log: how many of them must have cosigned.
    cosigned = event.shared or (policy.startswith(f"log {key}\n") and "\nquorum none" not in policy)
    label, option = ("Key of the log", "--key KEY")
    if cosigned:
        label, option = (f"Policy of the {'members' if event.shared else 'witnesses'}", "--policy FILE")
    box = tag("textarea", policy, rows=6, **told) if cosigned else tag("input", value=key, **told)
    return page.panel(
        "Proof",
        tag(
            "p",
            "The proof shows that this very entry is under the log’s signature. It verifies without this server, "
            "here in the browser or with ",
            tag("code", f"cairn ledger verify FILE {option}"),
            ".",
        ),
        tag(
            "p",
            tag("label", label, for_="vkey"),
            box,
            class_="field",
        ),
        tag(
            "p",
            f"This {'policy' if cosigned else 'key'} came from the server that is to be checked. Put in the one that "
            "you were given otherwise.",
            id="vkey-remark",
            class_="remark",
        ),
        tag(
            "p",
            tag(
                "button",
                "Verify in this browser",
                id="verify",
                type="button",
                data_proof=proof,
                data_entry=event.id.hex(),
                hidden=True,
            ),
            tag("a", "Download proof", href=proof, download=f"{event.id.hex()[:16]}.tlog-proof", class_="button"),
            class_="actions",
        ),
        tag("noscript", tag("p", "Verifying in the browser needs JavaScript; the download does not.")),
        tag("div", id="verdict", role="status", aria_live="polite"),
        id_="proof",
    )


def _tree(node: Node, event: Event) -> Html:
    """The way to the signed root, drawn."""
    try:
        climbed = merkle_path.climb(event.id, node.log.prove(event.id))
    except NotFound as error:
        return page.panel("Place in the tree", tag("p", error.detail), id_="tree")
    if climbed is None:
        return page.panel("Place in the tree", page.note("The proof cannot be read.", kind="bad"), id_="tree")
    words_ = (
        f"Leaf {climbed.index:,} of {climbed.size:,}. "
        f"The proof gives {words.count(len(climbed.steps), 'hash', 'hashes')} (dashed); "
        "the others are computed from the entry up. "
    )
    end = "They lead to the root that the checkpoint signs." if climbed.holds else "They lead to ANOTHER root."
    return page.panel(
        "Place in the tree", tag("p", words_, end), tag("div", merkle_path.draw(climbed), class_="tree"), id_="tree"
    )


def _bytes(envelope: bytes) -> Html:
    """The envelope in hexadecimal, its parts told apart."""
    try:
        protected, payload, signature = ledger_entry.unwrap(envelope)
        start = envelope.index(payload)
        parts: tuple[tuple[str, int, int], ...] = (
            ("frame", 0, envelope.index(protected)),
            ("protected", envelope.index(protected), envelope.index(protected) + len(protected)),
            ("payload", start, start + len(payload)),
            ("signature", len(envelope) - len(signature), len(envelope)),
        )
    except CodecError:
        parts = (("frame", 0, len(envelope)),)
    kinds = ["frame"] * len(envelope)
    for kind, first, end in parts:
        kinds[first:end] = [kind] * (end - first)
    rows = []
    for offset in range(0, len(envelope), _ROW_BYTES):
        rows += [tag("span", f"{offset:04x}  ", class_="offset"), *_runs(envelope, kinds, offset), "\n"]
    legend = [
        tag("li", tag("span", name, class_=kind))
        for kind, name in (
            ("protected", "protected header (algorithm, key)"),
            ("payload", "payload"),
            ("signature", "Ed25519 signature"),
            ("frame", "COSE frame"),
        )
    ]
    return page.panel(
        f"Envelope ({words.count(len(envelope), 'byte')})",
        tag("ul", legend, class_="legend"),
        tag("pre", rows, class_="hex", tabindex=0, aria_label="The envelope in hexadecimal"),
        id_="envelope",
    )


def _runs(envelope: bytes, kinds: Sequence[str], offset: int) -> list[Html]:
    """One row of bytes, neighbours of one kind together."""
    row: list[tuple[str, list[str]]] = []
    for place in range(offset, min(offset + _ROW_BYTES, len(envelope))):
        if not row or row[-1][0] != kinds[place]:
            row.append((kinds[place], []))
        row[-1][1].append(f"{envelope[place]:02x}")
    return [tag("span", " ".join(digits) + " ", class_=kind) for kind, digits in row]


def _code(value: bytes) -> Html:
    return tag("code", value.hex(), class_="hash")
