"""Following the ledger: what it has sealed is read from its database, joined with its batch, and taken in.

    (1) how far audit.db has come; that the ledger still has the last entry it took in
    (2) the next entries, from the ledger's database, read-only; behind the last of a closed log, those of the next
    (3) the closed batches they are of, from the index: who is behind the actor's tag, the records' leaves
    (4) rows and counts, in one transaction with (1)
    (5) entries of this node's that got their batch only later, after its disk was lost and restored: as (3) and (4)

An entry whose batch the index does not hold (another node's, or closed under another epoch) is taken in as its envelope
tells it: the actor's kind and role, no name, no address.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from bridge.audit.database import AuditDatabase
from bridge.audit.taking_in import Known, link, take_in
from bridge.errors import StorageFault
from bridge.index.audit_source import AuditSource
from ledger import entry as ledger_entry
from ledger.block_store import BlockStore
from ledger.errors import LedgerError, NotMadeYet
from ledger.event import ActorKind, Participant
from ledger.store import LedgerStore, StoredEntry

ENTRIES: Final = 200
"""Entries in one transaction: each may have 1,000 records."""

T = TypeVar("T")
_KINDS: Final[tuple[ActorKind, ...]] = ("system", "user", "device", "peer")


class Followed(NamedTuple):
    """A log by its database, which need not be there yet; whether it is the one that members share."""

    database: Path
    shared: bool = False


class Rewritten(StorageFault):
    """The ledger does not hold what was taken in from it: it was restored from a backup, or is another one."""


class Follower:
    """Reads the logs of one node, for one audit database at a time. One thread at a time; all raise StorageFault.

    Parameters
    ----------
    logs
        In their order: each but the last is closed, and grows no more.
    source
        The index.
    """

    def __init__(self, logs: Sequence[Followed], source: AuditSource) -> None:
        self._logs = [_Reading(log) for log in logs]
        self._source = source
        self._seen: tuple[object, ...] | None = None  # the file, how many entries are in it, and how many linked again

    def size(self) -> int:
        """How many entries the logs hold."""
        return sum(log.read(lambda ledger: ledger.size()) or 0 for log in self._logs)

    def step(self, database: AuditDatabase) -> int:
        """Take in the next entries, at most ENTRIES; how many. Raises Rewritten."""
        file, linked = database.file(), [log.linked() for log in self._logs]
        if file is not None and self._seen == (file, self.size(), *linked):
            return 0
        with database.writing() as connection:
            taken, size = self._step(connection)
            taken = taken or self._link(connection)
        self._seen = None if taken else (database.file(), size, *linked)
        return taken

    def close(self) -> None:
        """Close the logs' databases."""
        self._seen = None
        for log in self._logs:
            log.close()

    def _step(self, connection: sqlite3.Connection) -> tuple[int, int]:
        number, first = connection.execute("SELECT number, first FROM log ORDER BY number DESC").fetchone() or (0, 0)
        last = connection.execute("SELECT idx, leaf FROM event ORDER BY idx DESC LIMIT 1").fetchone()  # (1)
        end = 0 if last is None else last[0] + 1
        if last is not None and not self._holds(connection, *last):
            raise Rewritten("the ledger does not hold what the audit trail has taken in")
        for log in self._logs[number:]:
            entries = log.next(end - first)  # (2)
            if entries:
                row = number, first, log.linked()
                connection.execute("INSERT INTO log VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row)
                take_in(connection, self._known(entries, log.block_times(entries)), first)  # (3), (4)
                return len(entries), end + len(entries)
            number, first = number + 1, end
        return 0, end

    def _link(self, connection: sqlite3.Connection) -> int:
        """(5), for some of one log's; how many."""
        for number, first, linked in connection.execute("SELECT number, first, linked FROM log").fetchall():
            found = self._logs[number].linked_after(linked) if number < len(self._logs) else ()
            if found:
                entries = [stored for _, stored in found]
                link(connection, self._known(entries, [None] * len(entries)), first)
                connection.execute("UPDATE log SET linked = ? WHERE number = ?", (found[-1][0], number))
                return len(found)
        return 0

    def _holds(self, connection: sqlite3.Connection, index: int, leaf: bytes) -> bool:
        """Whether the log of an event that was taken in still has its entry at that place."""
        found = connection.execute("SELECT number, first FROM log WHERE first <= ? ORDER BY number DESC", (index,))
        number, first = found.fetchone() or (0, 0)
        if number >= len(self._logs):
            return False
        held = self._logs[number].read(lambda ledger: ledger.entry(index - first))
        return held is not None and held.leaf == leaf

    def _known(self, entries: Sequence[StoredEntry], times: Sequence[int | None]) -> list[Known]:
        own = [entry.batch for entry in entries if entry.epoch == self._source.epoch]
        if not own:
            return [Known(entry, _as_told(entry), (), time) for entry, time in zip(entries, times, strict=True)]
        actors = self._source.actors(min(own), max(own))
        leaves: dict[int, list[bytes]] = {}
        for number, leaf in self._source.leaves(min(own), max(own)):
            leaves.setdefault(number, []).append(leaf)
        known = []
        for entry, time in zip(entries, times, strict=True):
            batch = actors.get(entry.batch) if entry.epoch == self._source.epoch else None
            if batch is None or batch.root != entry.root:
                known.append(Known(entry, _as_told(entry), (), time))
            else:
                known.append(Known(entry, batch.actor, leaves.get(entry.batch, ()), time))
        return known


class _Reading:
    """One log, opened when it is there."""

    def __init__(self, log: Followed) -> None:
        self._log = log
        self._ledger: LedgerStore | None = None

    def read(self, what: Callable[[LedgerStore], T]) -> T | None:
        """What the log's database answers; None while there is none."""
        try:
            if self._ledger is None:
                if not self._log.database.exists():
                    return None
                kind = BlockStore if self._log.shared else LedgerStore
                self._ledger = kind(self._log.database, readonly=True)
            return what(self._ledger)
        except NotMadeYet:
            return None
        except (LedgerError, OSError) as error:
            self.close()
            raise StorageFault("the ledger's database cannot be read") from error

    def next(self, start: int) -> Sequence[StoredEntry]:
        """The entries from an index on, at most ENTRIES."""
        return self.read(lambda ledger: ledger.entries(start - 1, ENTRIES)) or []

    def linked(self) -> int:
        """How many entries got their batch again."""
        return self.read(lambda ledger: ledger.newest_linked() if isinstance(ledger, BlockStore) else 0) or 0

    def linked_after(self, number: int) -> Sequence[tuple[int, StoredEntry]]:
        """Those behind the first so many, at most ENTRIES, each with its number."""

        def linked(ledger: LedgerStore) -> Sequence[tuple[int, StoredEntry]]:
            return ledger.linked(number, ENTRIES) if isinstance(ledger, BlockStore) else ()

        return self.read(linked) or ()

    def block_times(self, entries: Sequence[StoredEntry]) -> Sequence[int | None]:
        """Of entries without a gap; None for each in a log without blocks."""
        start, end = entries[0].idx, entries[-1].idx + 1
        if not isinstance(self._ledger, BlockStore):
            return [None] * len(entries)
        blocks = self.read(lambda ledger: ledger.blocks_of(start, end) if isinstance(ledger, BlockStore) else None)
        times = [
            block.time_ns // 1000
            for block in blocks or ()
            for _ in range(max(block.first, start), min(block.size, end))
        ]
        if len(times) != len(entries):
            raise StorageFault("the ledger's database has entries without a block")
        return times

    def close(self) -> None:
        """Close it until it is read again."""
        if self._ledger is not None:
            with suppress(sqlite3.Error):
                self._ledger.close()
            self._ledger = None


def _as_told(entry: StoredEntry) -> Participant:
    """The actor as the envelope tells it; nobody when the envelope cannot be read, which verification reports."""
    try:
        who = ledger_entry.read(entry.envelope).who
    except LedgerError:
        return Participant("system", "")
    return Participant(_KINDS[who.kind], "", who.role)
