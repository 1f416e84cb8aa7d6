"""The audit trail of a node: `bridge.ports.AuditTrail` over audit.db, which follows the ledger."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from bridge.audit import counting, searching
from bridge.audit.database import AuditDatabase
from bridge.audit.following import Followed, Follower, Rewritten
from bridge.audit.resolving import HospitalOf, Opener, Resolver, Row, leaf_of, rows_by_leaf, rows_of
from bridge.audit.schema import leaf_start
from bridge.crypto.keyring import Keyring
from bridge.errors import NotFound, StorageFault
from bridge.index.audit_source import AuditSource
from ledger.event import Detail, Event, EventQuery

_TOLD_EVERY: Final = 10_000
_FARTHEST: Final = 1 << 62
"""Beyond any time and index, and within a number of SQLite's."""


class LedgerTrail:
    """The port. Thread-safe; opens nothing before its first use.

    Parameters
    ----------
    path
        audit.db, made when it is not there.
    logs
        The node's own log, and behind it the one it shares with others when it does; databases need not be there yet.
    source
        The index, closed by who opened it, later than the trail.
    keys
        The study keys: what is not held is erased.
    open_record
        Opens a sealed record.
    hospital_of
        The name of the member whose node has an id.
    erased_tags
        The tags that an erased study had, by its Study Instance UID.
    """

    def __init__(
        self,
        path: Path,
        logs: Sequence[Followed],
        source: AuditSource,
        keys: Keyring,
        open_record: Opener,
        hospital_of: HospitalOf = lambda node: "",
        erased_tags: Callable[[str], Sequence[bytes]] = lambda study: (),
    ) -> None:
        self._path = path
        self._logs = logs
        self._source = source
        self._resolver = Resolver(keys, source, open_record, hospital_of, erased_tags)
        self._database = AuditDatabase(path)
        self._follower = Follower(logs, source)
        self._following = threading.Lock()
        self._ended = threading.Event()

    def search(self, query: EventQuery) -> Sequence[Event]:
        """As the port."""
        query = _bounded(query)
        tags = self._resolver.tags(query)
        with self._database.reading() as connection:
            query = self._resolver.narrowed(connection, query)
            rows = rows_of(connection, searching.search(connection, query, tags))
        return self._resolver.events(rows)

    def event(self, id: bytes) -> Event:
        """As the port. A record is found as long as the index holds it."""
        for row in self._rows(id):
            if self._resolver.is_of(row, id):
                return self._resolver.events([row])[0]
        raise NotFound("no entry or record has this id")

    def places(self, leaf: bytes, log: int = 0) -> tuple[list[int], int]:
        """Where in a log an entry or record with this leaf hash may be, by index there, as far as the trail followed.

        With it the last index that the trail has followed in that log, -1 when none. `log` is its number in the order
        of the logs. Raises StorageFault.
        """
        with self._database.reading() as connection:
            firsts = dict(connection.execute("SELECT number, first FROM log").fetchall())
            if log not in firsts:
                return [], -1
            first, end = firsts[log], firsts.get(log + 1, _FARTHEST)
            found = connection.execute(
                "SELECT idx FROM leaf WHERE start = ? AND idx >= ? AND idx < ?", (leaf_start(leaf), first, end)
            ).fetchall()
            last = connection.execute("SELECT max(idx) FROM event WHERE idx < ?", (end,)).fetchone()[0]
        return [index - first for (index,) in found], last - first

    def details(self, id: bytes) -> Sequence[Detail]:
        """As the port; none when the index holds the entry's batch no more."""
        for row in self._rows(id):
            if leaf_of(row) == id:
                return self._resolver.details(row)
        raise NotFound("no entry has this id")

    def facets(self, query: EventQuery) -> Mapping[str, Sequence[tuple[str, int]]]:
        """As the port: all matching events, whatever `before` and `limit` say, most frequent values first."""
        query = _bounded(query)
        tags = self._resolver.tags(query)
        with self._database.reading() as connection:
            counted = counting.facets(connection, self._resolver.narrowed(connection, query), tags)
        return self._resolver.named(counted)

    def histogram(self, query: EventQuery, bins: int) -> Sequence[tuple[int, int]]:
        """As the port: spans without a gap, of a round length, from the time asked for or the first match to the last.

        `before` and `limit` do not matter; [] when nothing matches.
        """
        query = _bounded(query)
        tags = self._resolver.tags(query)
        with self._database.reading() as connection:
            return counting.histogram(connection, self._resolver.narrowed(connection, query), tags, bins)

    def follow(self) -> int:
        """As the port. A trail of another history of the ledger is made again."""
        with self._following:
            total = 0
            while not self._ended.is_set():
                try:
                    taken = self._follower.step(self._database)
                except Rewritten:
                    self._database.renew()
                    continue
                if not taken:
                    break
                total += taken
            return total

    def rebuild(self, report: Callable[[str], None] = lambda text: None) -> int:
        """Make audit.db again from the ledger; how many events it then holds. Raises StorageFault.

        The old one is searched until the new one takes its place.
        """
        fresh = self._path.with_name(self._path.name + ".new")
        with (
            self._following,
            closing(AuditDatabase(fresh, alone=True)) as database,
            closing(Follower(self._logs, self._source)) as follower,
        ):
            database.renew()
            total, size = 0, follower.size()
            while not self._ended.is_set() and (taken := follower.step(database)):
                total += taken
                if total // _TOLD_EVERY != (total - taken) // _TOLD_EVERY:
                    report(f"{total} of {max(size, total)} entries read")
            if self._ended.is_set():
                raise StorageFault("the node ended before the audit trail was made again")
            database.settle()
            self._database.replace(fresh)
            return total

    def stop(self) -> None:
        """Let what follows or rebuilds end after its transaction; searches go on."""
        self._ended.set()

    def close(self) -> None:
        """End what follows, and close the databases."""
        self.stop()
        with self._following:
            self._follower.close()
        self._database.close()

    def _rows(self, id: bytes) -> list[Row]:
        with self._database.reading() as connection:
            return rows_by_leaf(connection, id)


def _bounded(query: EventQuery) -> EventQuery:
    """The query with numbers that the database can hold."""
    given = {name: getattr(query, name) for name in ("since_us", "until_us", "before")}
    return replace(
        query,
        **{name: min(max(value, -_FARTHEST), _FARTHEST) for name, value in given.items() if value is not None},
        limit=min(query.limit, _FARTHEST),
    )
