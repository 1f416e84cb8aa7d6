"""How the archive gets into its content engine and stays there: a study's way, one tree after another.

(1) a tree whose newest root is not pinned: its batch was closed, its blocks lie in the spool
(2) pin the new root: the engine takes what is new below it, and holds it
(3) read back and verify every new block, from the engine alone
(4) record that the root was verified
(5) drop the root that it replaces
(6) trim the spool (`services.trim_spool`): the oldest packs go whose every live block is read back once more, only from
    an engine that is known to fsync, and only beyond `content.spool_bytes`, or while their disk is full

Pins that the engine lost are brought again, as are blocks that it lost or damaged while they lie anywhere else. Killed
between any two steps, the next run goes on from what is recorded. What is next is decided by `bridge.content.upkeep`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from bridge import crash
from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.pins import PinTable
from bridge.content.upkeep import (
    ENGINE,
    Outlook,
    Setback,
    Standing,
    Step,
    StepKind,
    faults,
    next_step,
    set_back,
)
from bridge.errors import CairnError, ContentMissing, EngineFault, IntegrityError
from bridge.model import PinReceipt
from bridge.services.check_content import Checked, ContentFinding, check_tree
from bridge.services.provenance import Clock, now_us
from bridge.services.trim_spool import ContentEngine, Spool, SpoolIndex

__all__ = ["ContentEngine", "Kept", "Upkeep"]

log = logging.getLogger(__name__)
MOST: Final = 1000
_SHARE: Final = 20  # looking at the index takes at most a twentieth of the time


class Kept(SpoolIndex, Protocol):
    """What the index knows of trees and pins, and of packs. Every method may raise StorageFault."""

    def standing(self, most: int) -> Standing:
        """Where the trees stand."""

    def verified(self, root: bytes, at: int | None) -> None:
        """(4) Record that everything below a root was read back whole at this time (microseconds); None: it is not."""


class Upkeep:
    """Does what is to be done, one step at a time; from several threads, one after another.

    Parameters
    ----------
    kept, pins
        The index's part.
    engine
        Where everything is kept.
    packs, spool_bytes
        The spool's directory, and how much may lie in it.
    clock, now
        Microseconds since the epoch; monotonic seconds.
    is_full
        Whether the spool's disk is: then it keeps as little as it can.
    """

    def __init__(
        self,
        kept: Kept,
        pins: PinTable,
        engine: ContentEngine,
        packs: Path,
        spool_bytes: int,
        clock: Clock = now_us,
        now: Callable[[], float] = time.monotonic,
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._kept, self._pins, self._engine = kept, pins, engine
        self._clock, self._now = clock, now
        self._spool = Spool(kept, engine, packs, spool_bytes, clock, now, is_full)
        self._lock = threading.Lock()
        self._outlook = Outlook(spool_bytes=spool_bytes)
        self._setbacks: dict[bytes, Setback] = {}
        self._look_again = 0.0
        self._lost: dict[bytes, str] = {}
        self._unpinned: set[bytes] = set()
        self._unsafe: str | None = None
        self._audit_now = False
        self._mended = 0
        self._steps: dict[StepKind, Callable[[Step], None]] = {
            StepKind.PIN: self._pin,
            StepKind.READ_BACK: self._read_back,
            StepKind.DROP: self._drop,
            StepKind.AUDIT: self._audit,
            StepKind.RECOUNT: self._recount,
            StepKind.TRIM: lambda step: self._spool.trim(step.pack),
        }

    def step(self) -> Step | None:
        """Do the next step, if there is one to do now; what was tried, whether it succeeded or not.

        A failure is kept as a setback and tried again when its time has come. Raises StorageFault when the index cannot
        be asked what there is to do.
        """
        with self._lock:
            now = self._now()
            if self._audit_now:
                self._audit_now, self._outlook = False, replace(self._outlook, audited=None)
            self._outlook = self._look(now)
            step = next_step(self._outlook, now)
            if step is not None:
                self._take(step)
            return step

    def try_all_now(self) -> None:
        """Forget what was set back, and when pins were last compared, so that everything is tried anew."""
        with self._lock:
            self._setbacks.clear()
            self._spool.try_all_now()
            self._look_again = 0.0
            self._outlook = replace(self._outlook, audited=None, recounted=None)

    @property
    def outlook(self) -> Outlook:
        """What was known at the last step."""
        return self._outlook

    @property
    def mended(self) -> int:
        """How many blocks the engine was given again."""
        return self._mended + self._spool.mended

    def lacks(self, root: bytes) -> bool:
        """Whether a block below a root was nowhere to be had when it was looked for last."""
        return root in self._lost

    def held_back(self) -> dict[bytes, str]:
        """The roots that are to be brought or read back and were set aside, whoever tried it last, and why."""
        with self._lock:
            to_do = {tree.root for tree in (*self._outlook.waiting, *self._outlook.unverified)}
            return {root: held.reason for root, held in self._setbacks.items() if root in to_do}

    @property
    def set_aside(self) -> str | None:
        """Why the engine is left alone for a while; None when it is not."""
        held = self._setbacks.get(ENGINE)
        return held.reason if held is not None else None

    @property
    def busy(self) -> bool:
        """Whether a step is being done just now."""
        return self._lock.locked()

    def ask_engine(self) -> None:
        """Return when the engine says that nothing is wrong with it, else raise EngineFault. Never waits for a step."""
        if reasons := self._engine.status().reasons:
            raise EngineFault("; ".join(reasons))

    def engine_is_back(self) -> None:
        """Wait no longer for the engine: it says that nothing is wrong with it. Never waits for a step."""
        self._setbacks.pop(ENGINE, None)
        self._audit_now = True

    def verify(self, root: bytes, progress: Callable[[Checked], None] = lambda checked: None) -> None:
        """(3), (4) Read a pinned root back as a whole and mend what is wrong.

        Raises ContentMissing when a block is nowhere to be had, EngineFault, StorageFault.
        """
        with self._lock:
            try:
                self._read_whole(root, None, progress)
            except ContentMissing as error:
                self._lost[root] = error.detail
                self._kept.verified(root, None)  # so that it is tried again from time to time
                raise
            self._kept.verified(root, self._clock())
            self._lost.pop(root, None)

    def faults(self, engine: Collection[str]) -> dict[str, str]:
        """What is wrong now, by name; `engine` is what the engine says of itself. Never waits for a step."""
        return faults(
            self._outlook, engine, list(self._lost.values()), len(self._unpinned), self._spool.fault(self._unsafe)
        )

    # what there is to do

    def _look(self, now: float) -> Outlook:
        outlook = self._outlook
        if now >= self._look_again:
            began = self._now()
            outlook = replace(outlook, **self._kept.standing(MOST)._asdict())
            self._look_again = self._now() + (self._now() - began) * _SHARE
            self._forget_settled(outlook)
        packs, most = self._spool.packs() if outlook.may_trim else ((), outlook.spool_bytes)
        return replace(outlook, packs=packs, spool_bytes=most, setbacks=dict(self._setbacks))

    def _forget_settled(self, outlook: Outlook) -> None:
        """Setbacks of what is no longer to be done are over."""
        to_do = {tree.root for tree in (*outlook.waiting, *outlook.unverified)}
        for root in self._setbacks.keys() - {ENGINE, *to_do, *outlook.stale}:
            del self._setbacks[root]
        self._unpinned &= to_do
        for root in self._lost.keys() - to_do:
            if self._pins.of(root) is None:
                del self._lost[root]

    def _take(self, step: Step) -> None:
        subject = step.tree.root if step.tree else step.root or ENGINE
        try:
            self._steps[step.kind](step)
        except EngineFault as error:
            # The engine's fault, or that of one root: others go on when it says that nothing is wrong with it.
            self._fail(ENGINE if self._engine.status().reasons else subject, error)
        except IntegrityError as error:
            self._lost[subject] = error.detail
            self._fail(subject, error)
        except CairnError as error:
            self._fail(ENGINE, error)
        else:
            for over in (subject, ENGINE):
                self._setbacks.pop(over, None)
            self._lost.pop(subject, None)

    def _fail(self, subject: bytes, error: CairnError) -> None:
        held = self._setbacks[subject] = set_back(self._setbacks.get(subject), subject, error.detail, self._now())
        self._outlook = replace(self._outlook, setbacks=dict(self._setbacks))
        if held.failures == 1:
            log.warning("the content engine: %s", error.detail, extra={"slug": error.slug})

    # the steps

    def _pin(self, step: Step) -> None:
        """(1), (2), then on to (5)."""
        tree = step.tree
        assert tree is not None
        crash.step("keep_content.1")
        self._engine.pin(tree.root, replaces=tree.former)
        crash.step("keep_content.2")
        self._outlook = replace(self._outlook, waiting=[each for each in self._outlook.waiting if each != tree])
        self._unpinned.discard(tree.root)
        self._read_back(step)

    def _read_back(self, step: Step) -> None:
        """(3), (4), then (5)."""
        tree = step.tree
        assert tree is not None
        self._read_whole(tree.root, tree.former if tree.verified else None)
        crash.step("keep_content.3")
        self._kept.verified(tree.root, self._clock())
        crash.step("keep_content.4")
        self._outlook = replace(self._outlook, unverified=[each for each in self._outlook.unverified if each != tree])
        if tree.former is not None and self._takes_its_place(tree.root, tree.former):
            self._let_go(tree.former)

    def _takes_its_place(self, root: bytes, former: bytes) -> bool:
        """Whether a root has as many copies as are wanted, or as its former one has."""
        new, old = self._pins.of(root), self._pins.of(former)
        return new is not None and (old is None or new.replicas >= min(new.wanted, old.replicas))

    def _read_whole(
        self, root: bytes, former: bytes | None, progress: Callable[[Checked], None] = lambda checked: None
    ) -> None:
        """Every block below a root is read from the engine, but for those below a former root that was verified.

        What the engine lost or damaged it is given again, or gets by itself from other engines of its kind. Raises
        ContentMissing when a block is nowhere to be had.
        """
        skip = set() if former is None else dag.shared(root, former, self._engine.get)
        left = self._check(root, skip, progress)
        while sum(self._refetched(finding.block) for finding in left):
            left = self._check(root, skip, progress)  # what lies below those could not be checked before
        if left:
            raise ContentMissing(f"{len(left)} blocks, the first {cids.to_text(left[0].block)}: {left[0].what}")

    def _check(self, root: bytes, skip: set[bytes], progress: Callable[[Checked], None]) -> list[ContentFinding]:
        """Read and mend; what could not be mended."""
        left: list[ContentFinding] = []
        for checked in check_tree(root, [self._engine.copy], self._engine.get, lambda cid, depth: cid not in skip):
            progress(checked)
            left += [finding for finding in checked.findings if not finding.mended]
            self._mended += sum(bool(finding.mended) for finding in checked.findings)
        return left

    def _refetched(self, cid: bytes) -> bool:
        """Whether the engine has the block now from another of its kind."""
        try:
            self._engine.refetch(cid)
        except IntegrityError:
            return False
        self._mended += 1
        return True

    def _drop(self, step: Step) -> None:
        self._let_go(step.root)

    def _let_go(self, root: bytes) -> None:
        """(5); the engine may have done so when it pinned the new root."""
        if self._pins.of(root) is not None:
            self._engine.unpin(root)
        crash.step("keep_content.5")
        self._outlook = replace(self._outlook, stale=[each for each in self._outlook.stale if each != root])

    def _audit(self, step: Step) -> None:
        """Pins that the engine lost are forgotten here too, so that their roots are brought again."""
        recorded = [pin.root for pin in self._pins.all()]  # asked first: what is pinned meanwhile is not missed
        held = self._engine.pinned()
        gone = [root for root in recorded if root not in held]
        for root in gone:
            self._pins.drop(root)
        if gone:
            log.warning("the content engine has lost pins, which are brought again", extra={"pins": len(gone)})
            self._unpinned.update(gone)
            self._look_again = 0.0
        self._spool.begin_again()
        self._unsafe = self._engine.unsafe()
        self._outlook = replace(self._outlook, audited=self._now(), may_trim=self._unsafe is None)

    def _recount(self, step: Step) -> None:
        """Copies may have become more, or fewer, since their root was pinned."""
        for root in self._outlook.short:
            found, held = self._engine.status(root).replicas, self._pins.of(root)
            if found is not None and held is not None and found != held.replicas:
                self._pins.record(root, PinReceipt(root, found, held.pinned), held.wanted)
        self._outlook = replace(self._outlook, recounted=self._now())
