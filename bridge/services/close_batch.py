"""Batches of records, and step (8) of the way in: closing one.

A batch is an open run of records about one study (or none) by one actor; closed, it becomes one ledger entry.
A batch of stores closes when its association or request ends, after 2 s without a store, after 30 s, or at 1,000
records (DESIGN section 6). What a crash left open is closed when the process of the same name starts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future

from bridge import crash
from bridge.content import cid as cids
from bridge.content import manifest
from bridge.errors import CairnError, NotFound
from bridge.model import STORES, Actor, Adopted, Batch, BatchClosing, Committed, SealedRecord, StudyKey, WriteUnit
from bridge.ports import ContentStore, Index
from bridge.services.provenance import Clock, now_us
from ledger import merkle

log = logging.getLogger(__name__)
IDLE_S, OLD_S, RECORDS, RETRY_S = 2.0, 30.0, 1000, 5.0
CLOSED_AT_ONCE = 64


class OpenBatch:
    """One batch still taking records, from several threads at once.

    Leaves are kept by the position that the index gave each record, for commits that overtake each other. Once closing
    has begun no record enters, and closing waits for those that are on their way.
    """

    def __init__(self, batch: Batch, leaves: Sequence[bytes] = ()) -> None:
        self.batch = batch
        self.closed = False
        self.settled = False
        self._leaves = dict(enumerate(leaves))
        self._changed = threading.Condition()
        self._entering = 0
        self._units: set[Future[Committed]] = set()
        self._began = self._touched = time.monotonic()
        self._not_before = self._began

    @property
    def due(self) -> bool:
        """Whether a batch of stores should close now."""
        now = time.monotonic()
        with self._changed:
            idle = not self._entering and now - self._touched > IDLE_S
            due = idle or now - self._began > OLD_S or len(self._leaves) >= RECORDS
            return due and now >= self._not_before

    def enter(self) -> bool:
        """Announce a record; False when the batch is closed. `leave` must follow."""
        with self._changed:
            self._entering += not self.closed
            return not self.closed

    def leave(self, position: int | None, records: Sequence[SealedRecord]) -> None:
        """The records entered at `position` and after, or None: they failed."""
        with self._changed:
            if position is not None:
                self._leaves.update((position + number, record.leaf) for number, record in enumerate(records))
            self._entering -= 1
            self._touched = time.monotonic()
            self._changed.notify_all()

    def follow(self, unit: Future[Committed]) -> None:
        """A unit that was announced has been handed to the index: it has entered, or failed, when it is done."""
        with self._changed:
            self._units.add(unit)
        unit.add_done_callback(self._done)

    def _done(self, unit: Future[Committed]) -> None:
        with self._changed:
            self._units.discard(unit)
        if unit.cancelled() or unit.exception() is not None:
            self.leave(None, ())
        else:
            self.leave(unit.result().position, [unit.result().record])

    def shut(self) -> list[bytes]:
        """Let no record enter any more, wait for those on their way, and give all leaves in order."""
        with self._changed:
            self.closed = True
            units = tuple(self._units)
        for unit in units:  # who handed it in may have gone without waiting for it, and then nobody writes it
            with contextlib.suppress(CancelledError):
                unit.exception()
        with self._changed:
            while self._entering:
                self._changed.wait()
            return [leaf for _, leaf in sorted(self._leaves.items())]

    def reopen(self) -> None:
        """Closing failed: it takes records again, and is not closed for a while."""
        self._not_before = time.monotonic() + RETRY_S
        self.closed = False


class Batches:
    """The open batches of one process."""

    def __init__(
        self, index: Index, content: ContentStore, owner: str, hash_name: cids.HashName, clock: Clock = now_us
    ) -> None:
        self._index = index
        self._content = content
        self._owner = owner
        self._hash = hash_name
        self._clock = clock
        self._stores: set[OpenBatch] = set()
        self._lock = threading.Lock()
        self._closing_lock = threading.Lock()

    def open(
        self,
        kind: str,
        actor: Actor,
        study: StudyKey | None,
        purpose: str,
        outcome: int = 0,
        *,
        body: bytes | None = None,
        refs: tuple[bytes, ...] = (),
    ) -> OpenBatch:
        """A new batch; it exists in the index from its first record on. `body` and `refs` as in `Batch`."""
        return OpenBatch(
            Batch(
                id=os.urandom(16),
                owner=self._owner,
                type=kind,
                actor=actor,
                study=study.study if study else None,
                study_tag=study.tag if study else None,
                purpose=purpose,
                opened=self._clock(),
                outcome=outcome,
                body=body,
                refs=refs,
            )
        )

    def store(self, open_batch: OpenBatch, unit: Callable[[Batch], WriteUnit]) -> Future[Committed] | None:
        """Begin to commit one unit under an open batch; None when it was closed meanwhile. Errors as Index.commit."""
        if not open_batch.enter():
            return None
        try:
            committed = self._index.commit(unit(open_batch.batch))
        except BaseException:
            open_batch.leave(None, ())
            raise
        self._watch(open_batch)
        open_batch.follow(committed)
        return committed

    def append(self, open_batch: OpenBatch, records: Sequence[SealedRecord]) -> bool:
        """Add records durably; False when the batch was closed meanwhile. Raises what Index.append does."""
        if not open_batch.enter():
            return False
        position = None
        try:
            position = self._index.append(open_batch.batch, records).result()
        finally:
            open_batch.leave(position, records)
        if open_batch.batch.type in STORES:
            self._watch(open_batch)
        return True

    def adopt(self, open_batch: OpenBatch, write: Callable[[Batch], Future[Adopted]]) -> Adopted | None:
        """Take in a whole tree under an open batch; None when that was closed meanwhile.

        `write` is the index's `adopt` of the tree, with records for the batch that it is given. Raises what it does.
        """
        if not open_batch.enter():
            return None
        adopted = None
        try:
            adopted = write(open_batch.batch).result()
        finally:
            if adopted is not None:
                open_batch.leave(adopted.position, adopted.records)
            else:
                open_batch.leave(None, ())
        self._watch(open_batch)
        return adopted

    def _watch(self, open_batch: OpenBatch) -> None:
        """Close this batch of stores when it is due."""
        with self._lock:
            self._stores.add(open_batch)

    def close(self, open_batch: OpenBatch) -> None:
        """(8) Close one batch. Raises StorageFull, StorageFault, Busy; it stays open then, and `tick` tries again."""
        for error in self._close([open_batch]):
            raise error

    def close_or_log(self, open_batches: Iterable[OpenBatch]) -> None:
        """(8) Close batches, leaving to a later tick or start what cannot be closed now."""
        for error in self._close(list(open_batches)):
            log.warning("a batch stays open for now", extra={"slug": error.slug})

    def _close(self, open_batches: Sequence[OpenBatch]) -> list[CairnError]:
        """(8) Put each study's touched pages and root, then close the batches, all that wait in one commit.

        A batch without records leaves nothing. Two closings of one study would build on the same root: one at a time,
        and of one study in turns.
        """
        errors: list[CairnError] = []
        left = deque(open_batches)
        with self._closing_lock:
            while left:
                studies: set[str | None] = set()
                turn: list[tuple[OpenBatch, Future[None]]] = []
                for _ in range(min(len(left), CLOSED_AT_ONCE)):
                    if left[0].batch.study in studies:
                        break
                    open_batch = left.popleft()
                    studies |= {open_batch.batch.study} - {None}
                    try:
                        turn += self._begin_closing(open_batch)
                    except CairnError as error:
                        open_batch.reopen()
                        errors.append(error)
                ends = [self._end_closing(open_batch, closed) for open_batch, closed in turn]
                errors += [end for end in ends if end is not None]
        return errors

    def _begin_closing(self, open_batch: OpenBatch) -> list[tuple[OpenBatch, Future[None]]]:
        leaves = open_batch.shut()
        if not leaves or open_batch.settled:
            self._forget(open_batch)
            return []
        crash.step("close_batch.8")
        return [(open_batch, self._index.close_batch(open_batch.batch, self._closing(open_batch.batch, leaves)))]

    def _end_closing(self, open_batch: OpenBatch, closed: Future[None]) -> CairnError | None:
        try:
            closed.result()
        except CairnError as error:
            open_batch.reopen()
            return error
        except BaseException:
            open_batch.reopen()
            raise
        open_batch.settled = True
        crash.step("close_batch.9")
        self._forget(open_batch)
        return None

    def _forget(self, open_batch: OpenBatch) -> None:
        with self._lock:
            self._stores.discard(open_batch)

    def _closing(self, batch: Batch, leaves: Sequence[bytes]) -> BatchClosing:
        closing = BatchClosing(closed=self._clock(), records=len(leaves), records_root=merkle.root(leaves))
        if batch.type not in STORES or batch.study_tag is None:
            return closing
        try:
            held = self._index.study_tree(batch.study_tag)
        except NotFound:  # erased meanwhile: its records stay, of a tree that is gone
            return closing
        tree = manifest.grow(held, self._hash)
        positions = self._content.put(tree.blocks)
        crash.step("close_batch.8b")
        salt = os.urandom(16)
        return BatchClosing(
            closed=closing.closed,
            records=closing.records,
            records_root=closing.records_root,
            root=tree.root,
            pages=tree.pages,
            instances=tree.covered,
            salt=salt,
            commitment=hashlib.sha256(salt + tree.root).digest(),
            blocks=tuple(positions),
        )

    def tick(self) -> None:
        """Close the batches of stores that are due; a failure is logged and tried again at the next tick."""
        with self._lock:
            due = [open_batch for open_batch in self._stores if open_batch.due]
        self.close_or_log(due)

    def recover(self, left: Sequence[tuple[Batch, Sequence[bytes]]]) -> int:
        """Close what a crash left open under this process's name; how many there were.

        What cannot be closed now, as on a full disk, is tried again by `tick`: it must not keep the node from serving.
        """
        open_batches = [OpenBatch(batch, leaves) for batch, leaves in left]
        for open_batch in open_batches:
            self._watch(open_batch)
        self.close_or_log(open_batches)
        return len(left)

    def close_all(self) -> None:
        """Close every batch of stores, at the end of the process."""
        with self._lock:
            left = list(self._stores)
        self.close_or_log(left)
