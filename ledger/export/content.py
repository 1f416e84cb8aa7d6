"""What the records of an event say together: how many instances of which class, what was served, what else was told.

Pure. An event's records are many small maps; exports and reports want their sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ledger.event import Detail


@dataclass(slots=True)
class Content:
    """The sum of an event's records.

    Attributes
    ----------
    classes
        SOP Class UID -> how many distinct instances of it were received; "" for a class that is not told.
    served
        "instance", "frame", "metadata", "bulk", "sealed block" -> how many were served, repetitions counted.
    instances
        How many distinct SOP Instance UIDs the records name.
    asked
        What a query, a refusal or a reading of the ledger was about, in the words recorded -> how often.
    facts
        What a record states of itself, by name, such as the name of a token; lists and maps in one line.
    received
        What became of received instances ("new", "version", "again", "healed") -> of how many.
    unreadable
        How many records cannot be opened, since their key is gone.
    """

    classes: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    instances: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    facts: dict[str, str] = field(default_factory=dict)
    received: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0


_TOLD_ELSEWHERE = frozenset({"actor", "study", "purpose", "reason", "opens", "items"})


def content(kind: str, details: Iterable[Detail]) -> Content:
    """Sum up the records of one event of a type; what is not understood is left out, never guessed."""
    found = Content()
    sops: dict[str, str] = {}
    for detail in details:
        body = detail.body
        if body is None:
            found.unreadable += 1
            continue
        sop = body.get("instance")
        if isinstance(sop, str):
            sops[sop] = _text(body.get("class"))
            found.received[_text(body.get("outcome"))] += 1
        else:
            _facts(found, body)
        items = body.get("items")
        if isinstance(items, list | tuple):
            _items(found, kind, items, sops)
    found.classes.update(sops.values())
    found.instances = len(sops)
    return found


def _items(found: Content, kind: str, items: Iterable[object], sops: dict[str, str]) -> None:
    """Counted items: of a viewing [what, SOP Instance UID, frame, count], of anything else [words ..., count]."""
    for item in items:
        match item:
            case [str() as what, str() as sop, str(), int() as count] if kind == "study.access":
                found.served[what] += count
                if sop:
                    sops.setdefault(sop, "")
            case [*words, int() as count] if kind != "study.access":
                found.asked[" ".join(word for word in words if isinstance(word, str) and word)] += count


def _facts(found: Content, body: Mapping[str, object]) -> None:
    for name, value in body.items():
        if name not in _TOLD_ELSEWHERE and (line := _line(value)):
            found.facts.setdefault(name, line)


def _line(value: object) -> str:
    """A value of a record in one line; octets as hexadecimal digits."""
    match value:
        case bytes():
            return value.hex()
        case bool():
            return "yes" if value else "no"
        case str() | int():
            return str(value)
        case list() | tuple():
            return "; ".join(_line(one) for one in value)
        case Mapping():
            return ", ".join(f"{name} {_line(one)}" for name, one in value.items())
    return ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
