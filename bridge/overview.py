"""How a node stands: its ledger's freshness and its storage, in figures that are cheap to ask for."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from bridge.audit_forwarding.position import PositionFile
from bridge.config import Content
from bridge.content.room import short_of_room
from bridge.errors import StorageFault
from bridge.index import overview
from bridge.index.index import SqlIndex
from bridge.ledger_reading import unreadable
from bridge.model import ContentOverview, LedgerHealth, StorageOverview
from bridge.services.provenance import now_us
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError
from ledger.source import Cursor
from ledger.store import LedgerStore
from ledger.tile_files import CHECKPOINT

_LOOKED_AT: Final = 200  # newest entries whose times are compared
_KEPT_S: Final = 15.0  # counting rows takes time in a large archive, so the counts are of some seconds ago


class _Log(NamedTuple):
    """Of a log: its cursor, how many entries, the newest own one's sequence, times of the newest, newest first."""

    cursor: Cursor = Cursor(b"", 0)
    size: int = 0
    last: int | None = None
    times: Sequence[int] = ()
    numbered: int | None = None
    pending: int = 0


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (LedgerError, OSError) as error:
        raise unreadable("the ledger", error) from error


class Overview:
    """Figures of one node. Thread-safe.

    Parameters
    ----------
    home, ledger
        The node's directory, and the ledger's.
    index
        The node's index.
    content
        `[content]` of the settings.
    spool
        Where it is kept how far the audit repository has been told; None without a repository.
    shared
        Where the consortium's log lies, and this node's id in it; None without a consortium.
    """

    def __init__(
        self,
        home: Path,
        ledger: Path,
        index: SqlIndex,
        content: Content,
        spool: Path | None = None,
        shared: tuple[Path, bytes] | None = None,
    ) -> None:
        self._shared = shared
        self._home, self._ledger, self._index, self._spool = home, ledger, index, spool
        self._content = content
        self._lock = threading.Lock()
        self._counted: tuple[float, int, dict[str, int]] | None = None

    def ledger(self) -> LedgerHealth:
        """The ledger's state now. Raises StorageFault."""
        log = self._newest()
        if self._shared is not None:
            log = self._of_shared(*self._shared, log)
        sealed = log.cursor.id if log.cursor.epoch == self._index.database.epoch else 0
        waiting = overview.waiting(self._index.database, sealed)
        return LedgerHealth(
            size=log.size,
            last_sequence=log.last,
            checkpoint=self._written(),
            waiting_batches=waiting.batches,
            waiting_records=waiting.records,
            waiting_since=waiting.since,
            open_batches=waiting.open,
            open_since=waiting.open_since,
            stepped_back_us=max([0, *(older - newer for newer, older in pairwise(log.times))]),
            forwarded=PositionFile(self._spool).load().next if self._spool is not None else None,
            numbered=log.numbered,
            pending=log.pending,
        )

    def storage(self) -> StorageOverview:
        """What is stored, by counts that are up to 15 seconds old. Raises StorageFault."""
        with self._lock:
            if self._counted is None or time.monotonic() - self._counted[0] > _KEPT_S:
                self._counted = time.monotonic(), now_us(), self._index.counts()
            _, at, counts = self._counted
        try:
            packs = self._home / "packs"  # made by the first store
            sizes = [file.stat().st_size for file in packs.iterdir()] if packs.exists() else []
            disk = shutil.disk_usage(self._home)
        except OSError as error:
            raise StorageFault(f"the packs cannot be looked at ({type(error).__name__})") from error
        return StorageOverview(counts, at, len(sizes), sum(sizes), disk.free, disk.total, tuple(self.full()))

    def full(self) -> Sequence[str]:
        """What is to be told of the disks that packs, keys and databases lie on; [] while there is room."""
        home = self._home
        places = {"CAIRN_HOME": home, "packs": home / "packs", "keys": home / "keys", "ledger": self._ledger}
        if self._shared is not None:
            places["the shared ledger"] = self._shared[0]
        if self._spool is not None:
            places["the audit spool"] = self._spool
        return short_of_room(places, self._content.reserve_bytes)

    def content(self) -> ContentOverview:
        """How the archive stands with its content engine, as was last written down. Raises StorageFault."""
        index, numbers = self._index, self._index.scrub.load()
        counts = index.keeping.counts()
        total = index.scrub.left(0)
        return ContentOverview(
            engine=self._content.engine,
            faults=tuple((fault.since, fault.reason) for fault in index.content_state.faults()),
            waiting=counts["waiting"] or 0,
            pinned=counts["pinned"] or 0,
            verified=counts["verified"] or 0,
            oldest=counts["verified_before"],
            short=counts["short"] or 0,
            trimmed=len(index.content_state.trimmed()),
            days=self._content.scrub_days,
            begun=numbers.get("begun"),
            share=1 - index.scrub.left(numbers["after"]) / total if numbers and total else 0.0,
            wrong=numbers.get("wrong", 0),
            mended=numbers.get("mended", 0),
        )

    def stored_between(self, moments: Sequence[int]) -> Sequence[int]:
        """Instances stored between each of these ascending moments (microseconds) and the next. Raises StorageFault."""
        return overview.stored_between(self._index.database, moments)

    def _newest(self) -> _Log:
        """The log that this node keeps, or kept, alone."""
        path = self._ledger / DATABASE
        if not path.exists():
            return _Log()
        with _reading(), contextlib.closing(LedgerStore(path, readonly=True)) as store:
            newest = store.entries(limit=_LOOKED_AT, descending=True)
            last, times = newest[0].sequence if newest else None, [row.time_us for row in newest]
            return _Log(store.state().cursor, store.size(), last, times)

    def _of_shared(self, home: Path, node: bytes, former: _Log) -> _Log:
        """The shared log, of which this node's entries alone are numbered by it, behind the former one."""
        path = home / DATABASE
        if not path.exists():
            return former
        with _reading(), contextlib.closing(BlockStore(path, readonly=True)) as store:
            newest = [row for row in store.entries(limit=_LOOKED_AT, descending=True) if row.node == node]
            tip, size = store.tip_of(node), former.size + store.size()
            last, times = None if tip is None else tip[0], [row.time_us for row in newest]
            return _Log(store.state().cursor, size, last, times, store.count_of(node), store.waiting())

    def _written(self) -> int | None:
        """When the newest checkpoint was written, in microseconds since the epoch."""
        try:
            home = self._ledger if self._shared is None else self._shared[0]
            return (home / CHECKPOINT).stat().st_mtime_ns // 1000
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFault(f"the checkpoint cannot be read ({type(error).__name__})") from error
