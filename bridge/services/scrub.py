"""The background scrub: reads everything back once in `content.scrub_days`, mends what it can, and says what it found.

`Scrub.step` does a little and says when it wants to be called again:
(1) when the plan says so, the pass goes on with the next tree, or a new one begins     services.scrub_plan [pure]
(2) some MiB of the tree are read from every copy and checked, and mended               services.check_content
(3) an instance of which a block is lost is flagged, so that the same bytes sent again heal it
(4) what was found is recorded on the ledger, the tree noted as verified, the pass as one tree further
(5) a pass that is through is recorded too, whatever it found

A tree that was begun when the process ended is read again from its root; the pass goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from bridge.errors import CairnError
from bridge.model import Tree
from bridge.services.access import SYSTEM
from bridge.services.archive import Archive
from bridge.services.check_content import Checked, check_tree
from bridge.services.fixity import SCRUB, Tally, copies_of, is_held, note_broken, note_verified, take
from bridge.services.provenance import Clock, now_us
from bridge.services.remake_manifest import source
from bridge.services.scrub_plan import DAY_US, Pass, after_tree, next_at

__all__ = ["Scrub"]

log = logging.getLogger(__name__)
STEP_BYTES: Final = 8 << 20
STEP_BLOCKS: Final = 500
PAUSE_S: Final = 0.5
"""Between two steps of one tree: at most 16 MiB a second are read, whatever there is to be read."""
LONGEST_WAIT_S: Final = 60.0
LOST_WAIT_S: Final = 10.0
"""How often it is looked whether a tree that was not whole has another root."""
AFTER_FAULT_S: Final = 60.0
AGAIN_US: Final = 3_600_000_000
"""What was not whole is read again after an hour, beside the pass: it may have been sent again, or another source have
it by now."""


class Scrub:
    """The scrub of one node; one thread calls it.

    Parameters
    ----------
    node
        Its `content.scrub_days` is the length of a pass; 0: nothing is ever read.
    clock
        Microseconds since the epoch.
    """

    def __init__(self, node: Archive, clock: Clock = now_us) -> None:
        self._node = node
        self._state = node.index.scrub
        self._period = node.settings.content.scrub_days * DAY_US
        self._clock = clock
        self._pass: Pass | None = None
        self._reading: _Reading | None = None
        self._again, self._last_again = clock() + AGAIN_US, 0
        self._looked_at: dict[int, bytes] = {}  # the roots that trees which were not whole had when that was seen

    def step(self) -> float:
        """(1) to (5); in how many seconds to call again. What fails is logged and tried again."""
        if not self._period:
            return LONGEST_WAIT_S
        try:
            if self._reading is None:
                wait = self._begin()
                if self._reading is None:
                    return wait
            return PAUSE_S if self._read(self._reading) else 0.0
        except CairnError as error:
            log.warning("the scrub is interrupted and begins this study again", extra={"slug": error.slug})
            self._reading = None
            return AFTER_FAULT_S

    def _begin(self) -> float:
        """(1) Take up the next tree when it is time; else how long to wait."""
        if self._pass is None:
            numbers = self._state.load()
            self._pass = Pass(**numbers) if numbers else Pass(self._clock())
        now = self._clock()
        lost = self._state.lost()
        if self._take_up_renewed(lost) or (now >= self._again and self._take_up_lost(lost, now)):
            return 0.0
        left = self._state.left(self._pass.after)
        wait = next_at(self._pass, left, self._period, now) - now
        if wait > 0:
            return min(LOST_WAIT_S if lost else LONGEST_WAIT_S, wait / 1_000_000)
        if not left:
            self._end_pass(self._pass, now)
            return 0.0
        row = self._state.next_tree(self._pass.after)
        if row is not None:
            self._take_up(row, again=False)
        return 0.0

    def _take_up(self, row: int, *, again: bool) -> bool:
        tree = self._node.index.trees.by_id(row)
        if tree is None or tree.root is None:
            return False
        blocks = check_tree(tree.root, copies_of(self._node, tree), source(self._node, tree))
        self._reading = _Reading(tree, tree.root, blocks, again)
        return True

    def _take_up_renewed(self, lost: Sequence[int]) -> bool:
        """A tree that was not whole and has another root since: what was missed may have been sent again."""
        self._looked_at = {row: root for row, root in self._looked_at.items() if row in lost}
        for row in lost:
            tree = self._node.index.trees.by_id(row)
            if tree is not None and tree.root is not None and self._looked_at.get(row) != tree.root:
                self._looked_at[row] = tree.root
                return self._take_up(row, again=True)
        return False

    def _take_up_lost(self, lost: Sequence[int], now: int) -> bool:
        """The trees that were not whole, one an hour in turn, oldest row first."""
        self._again = now + AGAIN_US
        beyond = [row for row in lost if row > self._last_again]
        for row in (*beyond, *lost):
            self._last_again = row
            if self._take_up(row, again=True):
                return True
            self._state.note(row, lost=False)  # it is no longer held
        return False

    def _read(self, reading: _Reading) -> bool:
        """(2), (3) A part of the tree; whether more of it is left."""
        tally = reading.tally
        octets, blocks = tally.octets + STEP_BYTES, tally.blocks + STEP_BLOCKS
        for checked in reading.blocks:
            take(self._node, tally, checked)
            if tally.octets >= octets or tally.blocks >= blocks:
                return True
        self._reading = None
        self._end_tree(reading)
        return False

    def _end_tree(self, reading: _Reading) -> None:
        """(4)"""
        tree, tally = reading.tree, reading.tally
        stands = is_held(self._node, tree.id, reading.root)
        if tally.wrong and not stands:
            return  # what was missed may have been let go: it is read again as it is now, if it is held at all
        if tally.wrong and (tally.mended or not reading.again):
            log.error("content was not whole", extra={"wrong": tally.wrong, "mended": tally.mended})
            tally.trees = 1
            self._record(tally, "background")
        if tally.wrong > tally.mended:
            self._looked_at[tree.id] = reading.root
            note_broken(self._node, reading.root, tree.id)
        elif stands and not tally.replaced:
            note_verified(self._node, reading.root, tree.id)
        if reading.again:
            return
        found = {"blocks": tally.blocks, "octets": tally.octets, "wrong": tally.wrong, "mended": tally.mended}
        self._pass = after_tree(self._pass or Pass(self._clock()), tree.id, tree.covered, self._clock(), **found)
        self._state.save(asdict(self._pass))

    def _end_pass(self, ended: Pass, now: int) -> None:
        """(5) Record a pass that read something, and begin the next."""
        if ended.trees:
            self._record(Tally(ended.trees, ended.blocks, ended.octets, ended.wrong, ended.mended), "background, all")
        self._pass = Pass(now)
        self._state.save(asdict(self._pass))

    def _record(self, tally: Tally, did: str) -> None:
        self._node.access.administered(SCRUB, SYSTEM, tally.body(did), outcome=tally.outcome)


@dataclass(slots=True)
class _Reading:
    """A tree that is being read, the root that it had when that began, whether that is beside the pass."""

    tree: Tree
    root: bytes
    blocks: Iterator[Checked]
    again: bool
    tally: Tally = field(default_factory=Tally)
