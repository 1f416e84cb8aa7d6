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
        "instance", "frame", "metadata", "bulk" -> how many were served, repetitions counted.
    instances
        How many distinct SOP Instance UIDs the records name.
    asked
        What a query, a refusal or a reading of the ledger was about, in the words recorded, each once.
    facts
        Texts and numbers that a record states of itself, by name, such as the name of a token.
    again
        Whether every received instance was held already, byte for byte.
    unreadable
        How many records cannot be opened, since their key is gone.
    """

    classes: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    instances: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    again: bool = False
    unreadable: int = 0


_TOLD_ELSEWHERE = frozenset({"actor", "study", "purpose", "reason", "opens", "items", "series", "instance", "class"})


def content(details: Iterable[Detail]) -> Content:
    """Sum up the records of one event; what is not understood is left out, never guessed."""
    found = Content()
    sops: dict[str, str] = {}
    received = repeated = 0
    for detail in details:
        if detail.body is None:
            found.unreadable += 1
            continue
        sop = detail.body.get("instance")
        if isinstance(sop, str):
            received += 1
            repeated += detail.body.get("outcome") == "again"
            sops[sop] = _text(detail.body.get("class"))
        else:
            _facts(found, detail.body)
        items = detail.body.get("items")
        if isinstance(items, list | tuple):
            _items(found, items, sops)
    for sop_class in sops.values():
        found.classes[sop_class] += 1
    found.instances = len(sops)
    found.again = received > 0 and repeated == received
    return found


def _items(found: Content, items: Iterable[object], sops: dict[str, str]) -> None:
    """Counted items: [what, SOP Instance UID, frame, count] of a viewing, words and a count of anything else."""
    for item in items:
        match item:
            case ["instance" | "frame" | "metadata" | "bulk" as what, str() as sop, str(), int() as count]:
                found.served[what] += count
                if sop:
                    sops.setdefault(sop, "")
            case [*words, int() as count] if words and all(isinstance(word, str) for word in words):
                said = " ".join(str(word) for word in words)
                found.asked[said] = found.asked.get(said, 0) + count


def _facts(found: Content, body: Mapping[str, object]) -> None:
    for name, value in body.items():
        if name not in _TOLD_ELSEWHERE and isinstance(value, str | int) and not isinstance(value, bool):
            found.facts.setdefault(name, str(value))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
