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
    "Standing",
    "Step",
    "StepKind",
    "TreeState",
    "due",
    "faults",
    "next_step",
    "set_back",
    "trimmable",
]

ENGINE: Final = b""
"""The name of the engine among setbacks; a root's is its CID."""
FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = {True: 30.0, False: 600.0}  # of the engine, of one root
AUDIT_S: Final = 30.0
RECOUNT_S: Final = 30.0


class TreeState(NamedTuple):
    """A study's tree: its row, its newest root, and the former root that is still pinned (None: there is none).

    `verified`: whether all below the former one was read back.
    """

    tree: int
    root: bytes
    former: bytes | None = None
    verified: bool = False


class Standing(NamedTuple):
    """Where the trees stand, as the index says: `Outlook` has the same under the same names."""

    waiting: Sequence[TreeState] = ()
    unverified: Sequence[TreeState] = ()
    stale: Sequence[bytes] = ()
    short: Sequence[bytes] = ()


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
    """One thing to do: with `tree` for PIN and READ_BACK, with `root` for DROP, with `pack` for TRIM."""

    kind: StepKind
    tree: TreeState | None = None
    root: bytes = b""
    pack: int = -1


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known when a decision is made.

    `waiting` trees' newest roots are not pinned (1); `unverified` ones are and were never read back (3); `stale` roots
    are pinned although a newer one of their tree is, and was read back (5); `short` ones have fewer copies than wanted.
    `packs` lie in the spool, oldest first; `may_trim`: the engine is known to fsync. `audited` and `recounted` are when
    (monotonic seconds) pins were last compared with the engine's, and copies counted; None: never by this process.
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
    setbacks: Mapping[bytes, Setback] = field(default_factory=lambda: MappingProxyType({}))


def next_step(outlook: Outlook, now: float) -> Step | None:
    """The next step, or None when there is nothing to do now.

    First pins are compared with the engine's, for what it lost is to be brought again; then what was begun is ended
    (5, 3), then trees are brought in their order (2), then copies counted and the spool trimmed (6). While the engine
    is set aside, so is everything.
    """
    if _set_aside(outlook.setbacks, ENGINE, now):
        return None
    if due(outlook.audited, AUDIT_S, now):
        return Step(StepKind.AUDIT)
    for root in outlook.stale:
        if not _set_aside(outlook.setbacks, root, now):
            return Step(StepKind.DROP, root=root)
    for kind, trees in ((StepKind.READ_BACK, outlook.unverified), (StepKind.PIN, outlook.waiting)):
        for tree in trees:
            if not _set_aside(outlook.setbacks, tree.root, now):
                return Step(kind, tree=tree)
    if outlook.short and due(outlook.recounted, RECOUNT_S, now):
        return Step(StepKind.RECOUNT)
    for pack in trimmable(outlook.packs, outlook.spool_bytes) if outlook.may_trim else ():
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


def faults(
    outlook: Outlook,
    engine: Collection[str] = (),
    lost: Collection[str] = (),
    unpinned: int = 0,
    spool: str = "",
) -> dict[str, str]:
    """What is wrong now, by name, in words for an operator; empty when nothing is.

    Parameters
    ----------
    outlook
        What waits, and what was set back.
    engine
        What the engine says is wrong with it.
    lost
        Why roots cannot be kept whole: blocks below them that are nowhere to be had.
    unpinned
        How many roots the engine no longer pinned and has not got again yet.
    spool
        Why the spool holds more than it should.
    """
    found: dict[str, str] = {}
    waiting = len(outlook.waiting)
    behind = f"; {_studies(waiting)} to be brought to it" if waiting else ""
    reasons = "; ".join(engine) or (outlook.setbacks[ENGINE].reason if ENGINE in outlook.setbacks else "")
    if reasons:
        found["engine"] = reasons + behind
    held_back = [held.reason for root, held in outlook.setbacks.items() if root != ENGINE]
    if lost:
        found["blocks"] = f"{_studies(len(lost))} not whole: {next(iter(lost))}"
    elif held_back:
        found["pins"] = f"{_studies(len(held_back))} not taken by the engine: {held_back[0]}"
    elif unpinned:
        found["pins"] = f"the engine has lost pins: {_studies(unpinned)} to be brought to it again"
    if spool:
        found["spool"] = spool
    return found


def _studies(count: int) -> str:
    return "1 study is" if count == 1 else f"{count} studies are"


def _set_aside(setbacks: Mapping[bytes, Setback], subject: bytes, now: float) -> bool:
    held = setbacks.get(subject)
    return held is not None and now < held.until


def due(last: float | None, every: float, now: float) -> bool:
    """Whether something that is done from time to time is to be done now; `last` None: it never was."""
    return last is None or now - last >= every
