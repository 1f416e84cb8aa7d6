"""Writes the index, one group at a time in a process: whoever waits for a job first writes all that stand in the queue.

A group: what stands in the queue -> the lock between processes -> BEGIN -> each job within its own savepoint, so that
one that fails fails alone -> `before_commit` once (step (5): the blocks become durable; the disk has been writing them
while the statements ran, and when another process holds the lock they are synced while waiting) -> COMMIT -> the
futures. The group is whatever arrived during the commit before it; there is no delay to gather one.

A thread of its own would have to be woken for each group, and wake who waits, which costs processor time (ADR 0005).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bridge.errors import Busy, CairnError, StorageFault
from bridge.index.database import Cursor, Database

T = TypeVar("T")
_MOST_KNOWN: Final = 20_000


@dataclass(slots=True)
class Known:
    """Row ids that this thread has seen, to save looking them up; forgotten when anything else might have changed."""

    patients: dict[bytes, int] = field(default_factory=dict)
    studies: dict[str, int] = field(default_factory=dict)
    trees: dict[bytes, int] = field(default_factory=dict)
    series: dict[tuple[int, str], int] = field(default_factory=dict)
    classes: set[tuple[int, str]] = field(default_factory=set)
    batches: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """Batch id -> its row and the position of its next record; of batches that this process alone writes to."""

    def clear(self) -> None:
        """Forget all."""
        self.clear_shared()
        self.batches.clear()

    def clear_shared(self) -> None:
        """Forget what another process may have changed."""
        for kept in (self.patients, self.studies, self.trees, self.series, self.classes):
            kept.clear()

    def bound(self) -> None:
        """Forget all when it has become too much."""
        kept: tuple[Sized, ...] = (self.patients, self.studies, self.trees, self.series, self.classes, self.batches)
        if max(len(one) for one in kept) > _MOST_KNOWN:
            self.clear()


IsGone = Callable[[bytes, str | None], bool]
"""Whether the keys of a study tag were erased and are not held again; with the study's UID, nor any other of it."""


def nothing_gone(tag: bytes, study: str | None) -> bool:
    """Where no study was ever erased."""
    return False


@dataclass(slots=True)
class Transaction:
    """What a job writes with: the cursor of the open transaction, what is known, which study tags were erased."""

    cursor: Cursor
    known: Known
    is_gone: IsGone = nothing_gone

    def refuse_gone(self, tag: bytes, study: str | None = None) -> None:
        """Raise Busy when the keys of a study tag were erased: who began before must begin anew, with a new key.

        With the study's UID only while no other key of it is held either.
        """
        if self.is_gone(tag, study):
            raise Busy("the study was erased meanwhile; send it again")

    def one(self, text: str, parameters: dict[str, Any]) -> Any:
        """The first row of a statement, or None."""
        return self.cursor.execute(text, parameters).fetchone()

    def insert(self, text: str, parameters: dict[str, Any]) -> int:
        """Run an INSERT; the new row's id."""
        self.cursor.execute(text, parameters)
        return self.cursor.lastrowid or 0


Submit = Callable[[Callable[[Transaction], Any]], "Future[Any]"]
"""Has work done in a group's transaction, as `Writer.submit`."""


def run_one(submit: Submit, statement: str, values: dict[str, Any]) -> None:
    """Run one statement; durable on return. Errors as `Writer.submit`."""

    def work(transaction: Transaction) -> None:
        transaction.cursor.execute(statement, values)

    submit(work).result()


class _Job(Future[Any]):
    """A job, and what becomes of it: who asks for that writes the group it stands in, if nobody does already."""

    def __init__(
        self, work: Callable[[Transaction], Any], needs_content: bool, see_to: Callable[[Future[Any]], None]
    ) -> None:
        super().__init__()
        self.work = work
        self.needs_content = needs_content
        self._see_to = see_to

    def result(self, timeout: float | None = None) -> Any:
        """As a Future's; the timeout does not hold for a group that is written here."""
        self._see_to(self)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `result`."""
        self._see_to(self)
        return super().exception(timeout)


class _ContentNotDurable(Exception):
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Content:
    """What a group put: made durable once, as late as may be, or while another process writes."""

    def __init__(self, sync: Callable[[], None], wanted: bool) -> None:
        self._sync = sync
        self._wanted = wanted

    def make_durable(self) -> None:
        """Call `before_commit` if the group needs it and it was not called yet. Raises _ContentNotDurable."""
        if self._wanted:
            self._wanted = False
            try:
                self._sync()
            except Exception as error:
                raise _ContentNotDurable(error) from error


class Writer:
    """Writes by jobs.

    Parameters
    ----------
    database
        Where to.
    before_commit
        Called once before the COMMIT of each group that holds a job which `needs_content`; what it raises, those jobs
        fail with.
    most_waiting
        How many jobs may wait; one more raises Busy.
    is_gone
        As `Transaction.is_gone`.
    """

    def __init__(
        self,
        database: Database,
        before_commit: Callable[[], None],
        most_waiting: int = 1024,
        is_gone: IsGone = nothing_gone,
    ) -> None:
        self._before_commit = before_commit
        self._is_gone = is_gone
        self._most_waiting = most_waiting
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._busy = False  # somebody writes a group
        self._known = Known()
        self._writing = database.writing()

    def submit(self, work: Callable[[Transaction], T], *, needs_content: bool = False) -> Future[T]:
        """Queue a job; the future gives what `work` returns once it is durable.

        It is written when somebody asks the future for its result or exception, with the next group that somebody else
        writes, or when the writer is closed: `concurrent.futures.wait` alone waits for others.

        Raises Busy when the queue is full, StorageFault when the writer is closed. The future raises what `work`
        raises, or StorageFull, StorageFault, Busy for the database's own failures; nothing of the job is then kept.
        """
        job = _Job(work, needs_content, self._see_to)
        with self._changed:
            if self._closed:
                raise StorageFault("the index is closed")
            if len(self._waiting) >= self._most_waiting:
                raise Busy("too much waits to be written to the index")
            self._waiting.append(job)
        return job

    def close(self) -> None:
        """Write what waits, then stop."""
        with self._changed:
            self._closed = True
            while self._busy:
                self._changed.wait()
            jobs = self._taken()
        self._write_group(jobs)
        self._writing.close()

    def _see_to(self, job: Future[Any]) -> None:
        """Return when a job is done: written by who writes already, or with all that wait by this thread."""
        if job.done():
            return
        with self._changed:
            while self._busy and not job.done():
                self._changed.wait()
            if job.done():
                return
            jobs = self._taken()
        self._write_group(jobs)

    def _taken(self) -> list[_Job]:
        """What waits, to be written by this thread. Called with `_changed` held, while nobody writes."""
        self._busy = True
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs

    def _write_group(self, jobs: list[_Job]) -> None:
        try:
            self._write([job for job in jobs if job.set_running_or_notify_cancel()])
        except BaseException:  # this thread was interrupted: nobody else would ever write them
            self._known.clear()
            for job in jobs:
                if not job.done():
                    job.set_exception(StorageFault("writing to the index was interrupted"))
            raise
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _write(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            content = _Content(self._before_commit, any(job.needs_content for job in jobs))
            outcomes = self._transact(jobs, content)
        except _ContentNotDurable as lost:  # handed to each caller as it is; who needs no content is written without
            self._known.clear()
            for job in jobs:
                if job.needs_content:
                    job.set_exception(lost.error)
            return self._write([job for job in jobs if not job.needs_content])
        except Exception as error:  # the group as a whole: every waiting caller is told, and the thread lives on
            self._known.clear()
            outcomes = [(None, self._writing.told(error))] * len(jobs)
        for job, (result, failure) in zip(jobs, outcomes, strict=True):
            if failure is None:
                job.set_result(result)
            else:
                job.set_exception(failure)

    def _transact(self, jobs: list[_Job], content: _Content) -> list[tuple[Any, Exception | None]]:
        writing = self._writing
        try:
            if writing.begin(content.make_durable):
                self._known.clear_shared()
            self._known.bound()
            transaction = Transaction(writing.cursor, self._known, self._is_gone)
            if len(jobs) == 1:  # nobody to be kept from its failure
                outcomes: list[tuple[Any, Exception | None]] = [(jobs[0].work(transaction), None)]
            else:
                outcomes = [self._isolated(transaction, job) for job in jobs]
            content.make_durable()
            writing.commit(self._refuse_waiting)
            return outcomes
        finally:
            writing.end()

    def _isolated(self, transaction: Transaction, job: _Job) -> tuple[Any, Exception | None]:
        cursor = transaction.cursor
        cursor.execute("SAVEPOINT job")
        try:
            result = job.work(transaction)
        except Exception as error:  # the job's own failure, told to its caller
            transaction.known.clear()
            if not self._writing.is_intact:
                raise
            cursor.execute("ROLLBACK TO job")
            cursor.execute("RELEASE job")
            return None, self._writing.told(error)
        cursor.execute("RELEASE job")
        return result, None

    def _refuse_waiting(self, why: CairnError) -> bool:
        """While it is not known what became of a group: fail the jobs that came since; whether to wait any longer."""
        with self._changed:
            jobs = list(self._waiting)
            self._waiting.clear()
            closed = self._closed
        for job in jobs:
            if job.set_running_or_notify_cancel():
                job.set_exception(why)
        with self._changed:
            self._changed.notify_all()
        return not closed
