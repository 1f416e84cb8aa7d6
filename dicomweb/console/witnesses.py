"""Who witnesses this node's log, whose logs it witnesses, and what does not continue what was cosigned."""

from __future__ import annotations

from typing import Final

from dicomweb.console import page, words
from dicomweb.console.html import Html, tag
from ledger.witness import Conflict, Cosigned, WitnessingState, WitnessState

_STATES: Final = {
    "ok": ("has cosigned", "good"),
    "silent": ("does not answer", "warn"),
    "refused": ("refuses", "warn"),
    "contradicted": ("says that this log does not continue what it cosigned", "bad"),
}


def vouchers(state: WitnessingState, size: int) -> list[Html]:
    """How far this node's log, of `size` entries, is witnessed, and by whom."""
    said: list[Html] = []
    if state.witnesses:
        said.append(_verdict(state, size))
        said.append(tag("ul", [tag("li", *_witness(each)) for each in state.witnesses]))
    if state.watched:
        said.append(tag("p", "This node witnesses in turn:"))
        said.append(tag("ul", [tag("li", *_watched(name, cosigned)) for name, cosigned in state.watched]))
    said += [page.note(*_conflict(each), kind="bad") for each in state.conflicts]
    return said


def _verdict(state: WitnessingState, size: int) -> Html:
    needed = f"{state.threshold} of {words.count(len(state.witnesses), 'witness', 'witnesses')}"
    if state.threshold and state.witnessed >= size:
        return page.note(tag("b", "Witnessed. "), f"All {size:,} entries are cosigned by {needed}.", kind="good")
    left = words.count(size - state.witnessed, "entry", "entries")
    return page.note(
        tag("b", "Not all witnessed. "),
        f"The first {state.witnessed:,} entries are cosigned by {needed}; {left} not yet.",
        kind="info" if state.threshold else "warn",
    )


def _witness(of: WitnessState) -> list[Html | str]:
    if of.asked is None:
        return [tag("b", of.name), ": not asked yet."]
    what, kind = _STATES.get(of.asked.state, (of.asked.state, "warn"))
    said: list[Html | str] = [tag("b", of.name), ": ", tag("span", what, class_=f"outcome {kind}")]
    if of.size:
        said += [f", {of.size:,} entries at ", words.stamp(of.time_us)]
    if of.asked.state != "ok":
        said += [", since ", words.stamp(of.asked.since_us), f": {of.asked.detail}"]
    return [*said, "."]


def _watched(name: str, cosigned: Cosigned | None) -> list[Html | str]:
    if cosigned is None:
        return [tag("b", name), ": nothing yet."]
    return [tag("b", name), f": {cosigned.head.size:,} entries at ", words.stamp(cosigned.time_us), "."]


def _conflict(of: Conflict) -> list[Html | str]:
    whose = "This node’s log" if of.witness else f"The log {of.origin}"
    place = f" showed {of.size:,} entries that do not continue the {of.cosigned:,} cosigned before, at "
    return [tag("b", whose), place, words.stamp(of.time_us), f": {of.why}."]
