"""Following the ledger: what it has sealed is read from its database, joined with its batch, and taken in.

    (1) how far audit.db has come; that the ledger still has the last entry it took in
    (2) the next entries, from the ledger's database, read-only
    (3) the closed batches they are of, from the index: who is behind the actor's tag, the records' leaves
    (4) rows and counts, in one transaction with (1)

An entry whose batch the index does not hold (it was closed under another epoch) is taken in as its envelope tells it:
the actor's kind and role, no name, no address.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from bridge.audit.database import AuditDatabase
from bridge.audit.taking_in import Known, take_in
from bridge.errors import StorageFault
from bridge.index.audit_source import AuditSource
from ledger import entry as ledger_entry
from ledger.errors import LedgerError
from ledger.event import ActorKind, Participant
from ledger.store import LedgerStore, StoredEntry

ENTRIES: Final = 200
"""Entries in one transaction: each may have 1,000 records."""

T = TypeVar("T")
_KINDS: Final[tuple[ActorKind, ...]] = ("system", "user", "device", "peer")


class Rewritten(StorageFault):
    """The ledger does not hold what was taken in from it: it was restored from a backup, or is another one."""


class Follower:
    """Reads one ledger, for one audit database at a time. One thread at a time; all raise StorageFault.

    Parameters
    ----------
    ledger
        The ledger's database file, which need not be there yet.
    source
        The index.
    """

    def __init__(self, ledger: Path, source: AuditSource) -> None:
        self._path = ledger
        self._source = source
        self._ledger: LedgerStore | None = None
        self._seen: tuple[object, int] | None = None  # the file, and how many entries are in it

    def size(self) -> int:
        """How many entries the ledger holds."""
        return self._read(lambda ledger: ledger.size()) or 0

    def step(self, database: AuditDatabase) -> int:
        """Take in the next entries, at most ENTRIES; how many. Raises Rewritten."""
        file = database.file()
        if file is not None and self._seen == (file, self.size()):
            return 0
        with database.writing() as connection:
            taken, size = self._step(connection)
        self._seen = database.file(), size
        return taken

    def close(self) -> None:
        """Close the ledger's database."""
        self._seen = None
        if self._ledger is not None:
            with suppress(sqlite3.Error):
                self._ledger.close()
            self._ledger = None

    def _step(self, connection: sqlite3.Connection) -> tuple[int, int]:
        last = connection.execute("SELECT idx, leaf FROM event ORDER BY idx DESC LIMIT 1").fetchone()  # (1)
        after = None
        if last is not None:
            after, leaf = last
            held = self._read(lambda ledger: ledger.entry(after))
            if held is None or held.leaf != leaf:
                raise Rewritten("the ledger does not hold what the audit trail has taken in")
        entries = self._read(lambda ledger: ledger.entries(after, ENTRIES)) or []  # (2)
        take_in(connection, self._known(entries))  # (3), (4)
        return len(entries), entries[-1].idx + 1 if entries else 0 if after is None else after + 1

    def _known(self, entries: Sequence[StoredEntry]) -> list[Known]:
        own = [entry.batch for entry in entries if entry.epoch == self._source.epoch]
        if not own:
            return [Known(entry, _as_told(entry)) for entry in entries]
        actors = self._source.actors(min(own), max(own))
        leaves: dict[int, list[bytes]] = {}
        for number, leaf in self._source.leaves(min(own), max(own)):
            leaves.setdefault(number, []).append(leaf)
        known = []
        for entry in entries:
            batch = actors.get(entry.batch) if entry.epoch == self._source.epoch else None
            if batch is None or batch.root != entry.root:
                known.append(Known(entry, _as_told(entry)))
            else:
                known.append(Known(entry, batch.actor, leaves.get(entry.batch, ())))
        return known

    def _read(self, what: Callable[[LedgerStore], T]) -> T | None:
        """What the ledger's database answers; None while there is none."""
        try:
            if self._ledger is None:
                if not self._path.exists():
                    return None
                self._ledger = LedgerStore(self._path, readonly=True)
            return what(self._ledger)
        except (LedgerError, OSError) as error:
            self.close()
            raise StorageFault("the ledger's database cannot be read") from error


def _as_told(entry: StoredEntry) -> Participant:
    """The actor as the envelope tells it; nobody when the envelope cannot be read, which verification reports."""
    try:
        who = ledger_entry.read(entry.envelope).who
    except LedgerError:
        return Participant("system", "")
    return Participant(_KINDS[who.kind], "", who.role)
