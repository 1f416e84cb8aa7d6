"""Where this node's own statements are found again once they are sealed: in the shared log, or in its own."""

from __future__ import annotations

import threading
from pathlib import Path

from bridge.ledger_reading import unreadable
from bridge.ports import Consortium
from ledger.errors import LedgerError
from ledger.store import LedgerStore


class SealedEntries:
    """Finds entries by records root. Thread-safe.

    Parameters
    ----------
    database
        That of the log that this node keeps, or kept, alone; it need not be there yet.
    consortium
        The shared log; None when the node is in none.
    """

    def __init__(self, database: Path, consortium: Consortium | None) -> None:
        self._database = database
        self._consortium = consortium
        self._lock = threading.Lock()
        self._store: LedgerStore | None = None

    def made(self, root: bytes, final: bool) -> bytes | None:
        """The id of this node's entry over a records root, None when there is none (yet). Raises StorageFault.

        In a consortium one that is only sealed waits for its block, and is found when `final` is not asked for.
        """
        if self._consortium is not None and (found := self._consortium.made(root, final)) is not None:
            return found
        with self._lock:
            try:
                if self._store is None and self._database.exists():
                    self._store = LedgerStore(self._database, readonly=True)
                stored = None if self._store is None else self._store.find(root=root)
            except (LedgerError, OSError) as error:
                self._close()
                raise unreadable("the ledger", error) from error
        return None if stored is None else stored.leaf

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None
