"""Runs of a ledger's entries read in processes of their own: checking Ed25519 signatures does not scale with threads.

Each process opens the database read-only for itself and is sent nothing but bounds; what it sends back of a sound run
is 32 bytes an entry. Of a run with any fault it sends nothing: whoever asked reads that again, entry by entry, and so
says the same as if it had read alone.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from ledger import entry, keys
from ledger.entry import Entry
from ledger.errors import LedgerError
from ledger.run import Run, begun, read_run
from ledger.source import Cursor
from ledger.store import LedgerStore, StoredEntry, row
from ledger.verify import LogCheck, Sound, Trust

T = TypeVar("T")

#: Bounds of a run, by entries' indices [start, end); None is unbounded.
Bounds = tuple[int | None, int | None]


class SoundRows(NamedTuple):
    """A sound run whose columns say what its envelopes say, and the source epochs it was made under, with how many
    entries each, in order (none of hashes alone)."""

    run: Sound
    epochs: tuple[tuple[bytes, int], ...]


def bounds(size: int, run: int) -> list[Bounds]:
    """Runs of so many entries, a power of two, that cover every index, also those that a sound log has not."""
    if run.bit_count() != 1:
        raise ValueError(f"a run of {run} entries is none of a power of two")
    starts = range(run, size, run)
    return list(zip((None, *starts), (*starts, None), strict=True))


@dataclass(frozen=True)
class Reading:
    """How runs of a log are read: who signs it, with or without entries' signatures, so many entries at a time."""

    trust: Trust
    signatures: bool
    run: int

    def open(self, database: Path) -> LedgerStore:
        """The database, for reading."""
        return LedgerStore(database, readonly=True)

    def checks(self, store: LedgerStore) -> Callable[[Run], LogCheck] | None:
        """What checks runs of this store, one each; None when nothing can be said of runs by themselves."""
        return lambda run: begun(run, self.trust, self.signatures)

    def plain(self) -> Reading:
        """The same, as it can be sent to another process."""
        return replace(self, trust=self.trust._replace(key=keys.raw(self.trust.key)))


class Reader:
    """Reads runs of one store."""

    def __init__(self, store: LedgerStore, reading: Reading) -> None:
        self._store, self._reading = store, reading
        self._checks: Callable[[Run], LogCheck] | None = None
        with suppress(*_UNREADABLE):
            self._checks = reading.checks(store)

    def read(self, of: Bounds) -> SoundRows | None:
        """A run, checked as far as it can be by itself; None when anything is wrong with it."""
        if self._checks is None:
            return None
        try:
            return self._sound(of, self._checks) if self._reading.signatures else self._hashes(of, self._checks)
        except _UNREADABLE:
            return None

    def _sound(self, of: Bounds, checks: Callable[[Run], LogCheck]) -> SoundRows | None:
        store, size = self._store, self._reading.run
        rows = store.first_of(*of, size + 1)
        first = of[0] or 0
        end = first + len(rows) if of[1] is None else of[1]
        if len(rows) > size or [stored.idx for stored in rows] != list(range(first, end)):
            return None
        before = store.entry(first - 1) if first else None
        if bool(first) != (before is not None):
            return None
        faults = []

        def compare(index: int, envelope: bytes, said: Entry | None) -> None:
            if said is not None and column_faults(rows[index - first], index, envelope, said):
                faults.append(index)

        previous = entry.GENESIS if before is None else entry.envelope_hash(before.envelope)
        of_rows = [stored.envelope for stored in rows], [stored.leaf for stored in rows]
        run = Run(first, previous, *of_rows, list(store.checkpoints(first, end)))
        found = read_run(run, checks(run), True, compare)
        if found is None or faults:
            return None
        return SoundRows(found, tuple((epoch, len(list(of_it))) for epoch, of_it in groupby(row.epoch for row in rows)))

    def _hashes(self, of: Bounds, checks: Callable[[Run], LogCheck]) -> SoundRows | None:
        store, size = self._store, self._reading.run
        indices, leaves, envelopes = store.first_hashes(*of, size + 1)
        first = of[0] or 0
        end = first + len(indices) if of[1] is None else of[1]
        if len(indices) > size or indices != list(range(first, end)):
            return None
        run = Run(first, entry.GENESIS, envelopes, leaves, list(store.checkpoints(first, end)))
        found = read_run(run, checks(run), signatures=False)
        return None if found is None else SoundRows(found, ())


# What a damaged database makes of reading it.
_UNREADABLE: Final = (LedgerError, TypeError, ValueError)


def column_faults(stored: StoredEntry, index: int, envelope: bytes, said: Entry) -> list[str]:
    """The columns of a row that do not say what its envelope says."""
    expected = row(index, envelope, said, Cursor(stored.epoch, stored.batch), stored.records)
    if stored == expected and list(map(type, stored)) == list(map(type, expected)):
        return []
    pairs = zip(StoredEntry._fields, stored, expected, strict=True)
    return [name for name, value, wanted in pairs if type(value) is not type(wanted) or value != wanted]


class RunReaders:
    """Processes that read a ledger's database; each reads one run at a time, and few results wait to be taken."""

    def __init__(self, database: Path, reading: Reading, processes: int) -> None:
        self._waiting = processes * 2
        # Spawned: the process that asks may have threads, which a fork would not copy.
        self._pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), _open, (database, reading.plain())
        )
        for _ in range(processes):  # so that they start now
            self._ask(_nothing)

    def structure(self) -> Future[list[str]]:
        """`LedgerStore.integrity`, in one of the processes."""
        return self._ask(_structure)

    def read(self, runs: Sequence[Bounds]) -> Iterator[SoundRows | None]:
        """What `Reader.read` gives for each run, in order; None also when its process failed."""
        ahead: deque[Future[SoundRows | None]] = deque()
        rest = iter(runs)
        for _ in runs:
            while len(ahead) < self._waiting and (bounds := next(rest, None)) is not None:
                ahead.append(self._ask(_read, bounds))
            yield result(ahead.popleft())

    def _ask(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        try:
            return self._pool.submit(work, *arguments)
        except BrokenExecutor as error:
            failed: Future[T] = Future()
            failed.set_exception(error)
            return failed

    def close(self) -> None:
        """End the processes; what was asked for and not taken is dropped."""
        self._pool.shutdown(cancel_futures=True)


def result(future: Future[T]) -> T | None:
    """What a process answered; None when it died or cannot read what it was to: who asked does the work itself."""
    try:
        return future.result()
    except (BrokenExecutor, LedgerError, OSError):
        return None


# Of each process: its own connection, and what reads runs from it.
_state: dict[str, Any] = {}


def _open(database: Path, reading: Reading) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that asked, which ends this one
    store = reading.open(database)
    _state.update(store=store, reader=Reader(store, reading))


def _read(of: Bounds) -> SoundRows | None:
    reader: Reader = _state["reader"]
    return reader.read(of)


def _nothing() -> None:
    pass


def _structure() -> list[str]:
    store: LedgerStore = _state["store"]
    return store.integrity()
