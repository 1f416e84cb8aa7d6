"""How the archive gets into its content engine and stays there: a study's way, one tree after another.

(1) a tree whose newest root is not pinned: its batch was closed, its blocks lie in the spool
(2) pin the new root: the engine takes what is new below it, and holds it
(3) read back and verify every new block, from the engine alone
(4) record that the root was verified
(5) drop the root that it replaces
(6) trim the spool: the oldest packs go whose every live block is read back once more, only from an engine that is known
    to fsync, and only beyond `content.spool_bytes`

Pins that the engine lost are brought again, as are blocks that it lost or damaged while they lie anywhere else. Killed
between any two steps, the next run goes on from what is recorded. What is next is decided by `bridge.content.upkeep`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from bridge import crash
from bridge.content import cid as cids
from bridge.content import dag, manifest
from bridge.content.copies import Copy
from bridge.content.pack_format import HEADER, pack_number, pack_path, packs_in
from bridge.content.pins import PinTable
from bridge.content.trim import remove_pack
from bridge.content.upkeep import (
    ENGINE,
    Outlook,
    Pack,
    Setback,
    Standing,
    Step,
    StepKind,
    faults,
    next_step,
    set_back,
    trimmable,
)
from bridge.errors import CairnError, ContentCorrupt, ContentMissing, EngineFault, IntegrityError
from bridge.model import Block, PinReceipt
from bridge.ports import ContentStore
from bridge.services.check_content import Checked, ContentFinding, check_tree
from bridge.services.provenance import Clock, now_us

__all__ = ["ContentEngine", "Kept", "Upkeep"]

log = logging.getLogger(__name__)
MOST: Final = 1000
TRIM_S: Final = 30.0
NOT_YET_S: Final = 60.0
STUCK_S: Final = 600.0
ARRIVING_US: Final = 86_400_000_000
"""No instance takes a day to arrive."""
_SHARE: Final = 20  # looking at the index takes at most a twentieth of the time


class Kept(Protocol):
    """What the index knows of trees, pins and packs. Every method may raise StorageFault."""

    def standing(self, most: int) -> Standing:
        """Where the trees stand."""

    def verified(self, root: bytes, at: int) -> None:
        """(4) Record that everything below a root was read back whole at this time (microseconds)."""

    def roots_of(self, pack: int) -> Sequence[bytes] | None:
        """The roots below which the pack's instances lie; None unless each was verified and is the tree's newest."""

    def blocks(self, pack: int) -> Iterator[tuple[bytes, bool]]:
        """Every CID in the pack but those of superseded copies, and whether it is an instance's."""

    def extent(self, pack: int) -> int:
        """How many bytes of the pack the sections of all blocks take that the index knows there."""

    def names(self, cid: bytes) -> bool:
        """Whether a tree has this block for its root or one of its pages."""

    def trim(self, pack: int, at: int) -> None:
        """(6) Record that the pack's file is being removed."""

    def trimmed(self) -> Collection[int]:
        """The packs whose file was removed, or was about to be."""

    def untrim(self, pack: int) -> None:
        """Record that the pack's file is there."""


class ContentEngine(ContentStore, Protocol):
    """An engine beside the spool, and what can be asked of it alone."""

    @property
    def copy(self) -> Copy:
        """The blocks that the engine holds by itself."""

    def pinned(self) -> Collection[bytes]:
        """Every root that the engine pins recursively, as it says itself. Raises EngineFault."""

    def refetch(self, cid: bytes) -> None:
        """Have a block that it lost or damaged from another engine of its kind that it is connected to.

        Raises ContentMissing, ContentCorrupt when none has it, EngineFault.
        """

    def unsafe(self) -> str | None:
        """Why what it holds may be lost by a power cut; None when it is known to fsync. Raises EngineFault."""


class _NotYet(Exception):
    """A pack that may go later: it is in use, or a study in it is on its way."""


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
    ) -> None:
        self._kept, self._pins, self._engine, self._packs = kept, pins, engine, packs
        self._clock, self._now = clock, now
        self._lock = threading.Lock()
        self._outlook = Outlook(spool_bytes=spool_bytes)
        self._setbacks: dict[bytes, Setback] = {}
        self._look_again = self._trim_again = 0.0
        self._stuck: dict[int, tuple[float, str]] = {}
        self._lost: dict[bytes, str] = {}
        self._unpinned: set[bytes] = set()
        self._unsafe: str | None = None
        self._audit_now = False
        self.mended = 0
        """How many blocks the engine was given again."""
        self._steps: dict[StepKind, Callable[[Step], None]] = {
            StepKind.PIN: self._pin,
            StepKind.READ_BACK: self._read_back,
            StepKind.DROP: self._drop,
            StepKind.AUDIT: self._audit,
            StepKind.RECOUNT: self._recount,
            StepKind.TRIM: self._trim,
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
            self._stuck.clear()
            self._look_again = self._trim_again = 0.0
            self._outlook = replace(self._outlook, audited=None, recounted=None)

    @property
    def outlook(self) -> Outlook:
        """What was known at the last step."""
        return self._outlook

    @property
    def busy(self) -> bool:
        """Whether a step is being done just now."""
        return self._lock.locked()

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
                raise
            self._kept.verified(root, self._clock())
            self._lost.pop(root, None)

    def faults(self, engine: Collection[str]) -> dict[str, str]:
        """What is wrong now, by name; `engine` is what the engine says of itself. Never waits for a step."""
        held, spool = self._outlook, ""
        size, most = _size(self._packs), held.spool_bytes
        if size > most and self._unsafe is not None:
            spool = f"the spool holds {size} bytes, {size - most} more than content.spool_bytes: {self._unsafe}"
        elif size > most and (reasons := [reason for _, reason in [*self._stuck.values()] if reason]):
            spool = f"the spool cannot be trimmed: {reasons[0]}"
        return faults(held, engine, list(self._lost.values()), len(self._unpinned), spool)

    # what there is to do

    def _look(self, now: float) -> Outlook:
        outlook = self._outlook
        if now >= self._look_again:
            began = self._now()
            outlook = replace(outlook, **self._kept.standing(MOST)._asdict())
            self._look_again = self._now() + (self._now() - began) * _SHARE
            self._forget_settled(outlook)
        packs: Sequence[Pack] = ()
        if outlook.may_trim and now >= self._trim_again:
            packs = self._spool(outlook.spool_bytes, now)
            if not trimmable(packs, outlook.spool_bytes):
                self._trim_again = now + TRIM_S
        return replace(outlook, packs=packs, setbacks=dict(self._setbacks))

    def _forget_settled(self, outlook: Outlook) -> None:
        """Setbacks of what is no longer to be done are over."""
        to_do = {tree.root for tree in (*outlook.waiting, *outlook.unverified)}
        for root in self._setbacks.keys() - {ENGINE, *to_do, *outlook.stale}:
            del self._setbacks[root]
        self._unpinned &= to_do
        for root in self._lost.keys() - to_do:
            if self._pins.of(root) is None:
                del self._lost[root]

    def _spool(self, spool_bytes: int, now: float) -> list[Pack]:
        """The packs, oldest first; whether one is verified is asked only while more have to go."""
        stuck = {number for number, (until, _) in self._stuck.items() if until > now}
        files = [(pack_number(path), path.stat().st_size) for path in packs_in(self._packs)]
        beyond = sum(size for _, size in files) - spool_bytes
        found = []
        for number, size in files:
            verified = beyond > 0 and number not in stuck and self._kept.roots_of(number) is not None
            beyond -= size if verified else 0
            found.append(Pack(number, size, verified))
        return found

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
            self.mended += sum(bool(finding.mended) for finding in checked.findings)
        return left

    def _refetched(self, cid: bytes) -> bool:
        """Whether the engine has the block now from another of its kind."""
        try:
            self._engine.refetch(cid)
        except IntegrityError:
            return False
        self.mended += 1
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
        for pack in set(self._kept.trimmed()) & {pack_number(path) for path in packs_in(self._packs)}:
            self._kept.untrim(pack)  # a crash kept it from being removed
        self._unsafe = self._engine.unsafe()
        self._outlook = replace(self._outlook, audited=self._now(), may_trim=self._unsafe is None)

    def _recount(self, step: Step) -> None:
        """Copies may have become more, or fewer, since their root was pinned."""
        for root in self._outlook.short:
            found, held = self._engine.status(root).replicas, self._pins.of(root)
            if found is not None and held is not None and found != held.replicas:
                self._pins.record(root, PinReceipt(root, found, held.pinned), held.wanted)
        self._outlook = replace(self._outlook, recounted=self._now())

    def _trim(self, step: Step) -> None:
        """(6) What stands against it is kept as the reason why the pack stays for now."""
        try:
            removed = remove_pack(self._packs, step.pack, lambda: self._last_look(step.pack))
            crash.step("keep_content.8")
            self._stuck.pop(step.pack, None)
            if not removed:
                raise _NotYet
            log.info("a pack is trimmed: the content engine was read back", extra={"pack": step.pack})
        except _NotYet:
            self._stuck[step.pack] = self._now() + NOT_YET_S, ""
        except IntegrityError as error:
            self._stuck[step.pack] = self._now() + STUCK_S, f"pack {step.pack:08d}.car: {error.detail}"

    def _last_look(self, pack: int) -> None:
        """(6) Before the only other copy goes: every root is pinned now, every live block is read back now.

        What the index does not know in the pack may belong to an instance that is still arriving: it must be old.
        Raises _NotYet when it is too early, ContentMissing when a block in it is nowhere else to be had.
        """
        file = pack_path(self._packs, pack).stat()
        unknown = file.st_size - len(HEADER) - self._kept.extent(pack)
        if unknown and self._clock() - file.st_mtime_ns // 1000 < ARRIVING_US:
            raise _NotYet
        roots = self._kept.roots_of(pack)
        if roots is None or set(roots) - set(self._engine.pinned()):
            raise _NotYet
        for cid, owned in self._kept.blocks(pack):
            try:
                self._engine.copy.read(cid)
            except IntegrityError:
                if not owned and self._is_former(cid):
                    continue
                if not owned:
                    raise
                self._engine.copy.mend(Block(cid, self._engine.get(cid)))
                self._engine.copy.read(cid)
                self.mended += 1
        crash.step("keep_content.6")
        self._kept.trim(pack, self._clock())
        crash.step("keep_content.7")

    def _is_former(self, cid: bytes) -> bool:
        """Whether this is a page or root that newer ones have taken the place of."""
        if cids.parse(cid).codec != cids.DAG_CBOR or self._kept.names(cid):
            return False
        data = self._engine.get(cid)
        for decode in (manifest.decode_page, manifest.decode_root):
            with contextlib.suppress(ContentCorrupt):
                decode(data)
                return True
        return False


def _size(packs: Path) -> int:
    """The bytes in a spool; one that is removed meanwhile counts for nothing."""
    total = 0
    for path in packs_in(packs):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
