"""What is to be done next to keep the archive in its content engine: a decision over trees, pins, packs and time.

Nothing here touches the world. The recipe that the steps are from is `bridge.services.keep_content`:
(1) a tree whose root is not pinned (2) its root pinned (3) its new blocks read back (4) that recorded (5) what it
replaces dropped (6) the oldest packs trimmed. What was begun is finished before anything new is begun, so that a
process that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = [
    "AUDIT_S",
    "ENGINE",
    "Outlook",
    "Pack",
    "Setback",
    "Step",
    "StepKind",
    "TreeState",
    "changed_faults",
    "faults",
    "next_step",
    "set_back",
    "trimmable",
]

ENGINE: Final = b""
"""The name of the engine among setbacks; a root's is its CID."""
FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = {True: 30.0, False: 600.0}  # of the engine, of one root
AUDIT_S: Final = 60.0
RECOUNT_S: Final = 30.0
TRIM_S: Final = 30.0


class TreeState(NamedTuple):
    """A study's tree: its row, its newest root, and the former root that is still pinned (None: there is none)."""

    tree: int
    root: bytes
    former: bytes | None = None


class Pack(NamedTuple):
    """A pack file: number, length in bytes, and whether every live block in it lies below a root read back since."""

    number: int
    size: int
    verified: bool = False


class Setback(NamedTuple):
    """How often something failed in a row, until when (monotonic seconds) it is left alone, and why."""

    failures: int
    until: float
    reason: str


class StepKind(StrEnum):
    """What can be done."""

    PIN = "pin"
    READ_BACK = "read back"
    DROP = "drop"
    AUDIT = "audit"
    RECOUNT = "recount"
    TRIM = "trim"


class Step(NamedTuple):
    """One thing to do: `tree` for PIN and READ_BACK, `root` for DROP and RECOUNT, `pack` for TRIM."""

    kind: StepKind
    tree: TreeState | None = None
    root: bytes = b""
    pack: int = -1


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known when a decision is made.

    `waiting` trees' newest roots are not pinned (1); `unverified` ones are and were never read back (3); `stale` roots
    are pinned although a newer one of their tree is, and was read back (5); `short` ones have fewer copies than wanted.
    `packs` lie in the spool, oldest first. `audited`, `recounted` and `trimmed` are when (monotonic seconds) pins were
    last compared with the engine's, copies counted, and the trimming of the spool tried; None: never by this process.
    """

    waiting: Sequence[TreeState] = ()
    unverified: Sequence[TreeState] = ()
    stale: Sequence[bytes] = ()
    short: Sequence[bytes] = ()
    packs: Sequence[Pack] = ()
    spool_bytes: int = 0
    may_trim: bool = False
    audited: float | None = None
    recounted: float | None = None
    trimmed: float | None = None
    setbacks: Mapping[bytes, Setback] = field(default_factory=lambda: MappingProxyType({}))


def next_step(outlook: Outlook, now: float) -> Step | None:
    """The next step, or None when there is nothing to do now.

    First pins are compared with the engine's, for what it lost is to be brought again; then what was begun is ended
    (5, 3), then trees are brought in their order (2), then copies counted and the spool trimmed (6). While the engine
    is set aside, so is everything.
    """
    if _set_aside(outlook.setbacks, ENGINE, now):
        return None
    if _due(outlook.audited, AUDIT_S, now):
        return Step(StepKind.AUDIT)
    for root in outlook.stale:
        if not _set_aside(outlook.setbacks, root, now):
            return Step(StepKind.DROP, root=root)
    for kind, trees in ((StepKind.READ_BACK, outlook.unverified), (StepKind.PIN, outlook.waiting)):
        for tree in trees:
            if not _set_aside(outlook.setbacks, tree.root, now):
                return Step(kind, tree=tree)
    for root in outlook.short:
        if _due(outlook.recounted, RECOUNT_S, now) and not _set_aside(outlook.setbacks, root, now):
            return Step(StepKind.RECOUNT, root=root)
    if outlook.may_trim and _due(outlook.trimmed, TRIM_S, now):
        for pack in trimmable(outlook.packs, outlook.spool_bytes):
            return Step(StepKind.TRIM, pack=pack.number)
    return None


def trimmable(packs: Sequence[Pack], spool_bytes: int) -> list[Pack]:
    """(6) The packs that may go, oldest first: verified ones, only while what is left exceeds `spool_bytes`.

    The newest is never among them, whatever its size: its number tells the next pack's.
    """
    beyond = sum(pack.size for pack in packs) - spool_bytes
    found = []
    for pack in packs[:-1]:
        if beyond <= 0:
            break
        if pack.verified:
            found.append(pack)
            beyond -= pack.size
    return found


def set_back(former: Setback | None, subject: bytes, reason: str, now: float) -> Setback:
    """The setback after one more failure: each time twice as long, up to 30 s for the engine, 10 minutes for a root."""
    failures = (former.failures if former else 0) + 1
    rest = min(FIRST_REST_S * 2.0 ** min(failures - 1, 20), LONGEST_REST_S[subject == ENGINE])
    return Setback(failures, now + rest, reason)


def faults(engine: Collection[str], outlook: Outlook, lost: Mapping[bytes, str]) -> dict[str, str]:
    """What is wrong now, by name, in words for an operator; empty when nothing is.

    Parameters
    ----------
    engine
        What the engine says is wrong with it.
    outlook
        What waits, and what was set back.
    lost
        Why a root cannot be kept whole: blocks below it that are nowhere to be had.
    """
    found: dict[str, str] = {}
    behind = f"; {len(outlook.waiting)} studies wait for it" if outlook.waiting else ""
    reasons = "; ".join(engine) or (outlook.setbacks[ENGINE].reason if ENGINE in outlook.setbacks else "")
    if reasons:
        found["engine"] = reasons + behind
    kept_back = [held.reason for root, held in outlook.setbacks.items() if root != ENGINE and root not in lost]
    if kept_back:
        found["pins"] = f"{len(kept_back)} studies could not be brought to the engine: {kept_back[0]}"
    if lost:
        found["blocks"] = f"{len(lost)} studies are not whole in the engine or the spool: {next(iter(lost.values()))}"
    return found


def changed_faults(held: Mapping[str, str], now: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What to record of faults, and which to remove: a fault that goes on keeps since when it is there."""
    return {name: reason for name, reason in now.items() if held.get(name) != reason}, sorted(held.keys() - now.keys())


def _set_aside(setbacks: Mapping[bytes, Setback], subject: bytes, now: float) -> bool:
    held = setbacks.get(subject)
    return held is not None and now < held.until


def _due(last: float | None, every: float, now: float) -> bool:
    return last is None or now - last >= every
