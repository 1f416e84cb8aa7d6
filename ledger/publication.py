"""What of a log's database is published as files: tiles, entry bundles, checkpoint.

What is committed is durable in the database alone; the files follow it (`publish`) and are durable before the
write-ahead log is emptied (`settle`). So files that a loss of power may have torn are always of entries that are still
in the log, and those are checked when it is opened (`recover`).
"""

from __future__ import annotations

from ledger.errors import TreeMismatch
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

LOG_LIMIT = 32 * 1024 * 1024  # bytes of write-ahead log after which it is settled even when busy


class Publication:
    """The files of one log; `size` entries of it are published. Under the store's `writing`."""

    def __init__(self, store: LedgerStore, files: TileFiles) -> None:
        self._store, self._files = store, files
        self.size = 0

    def recover(self, note: str) -> None:
        """Files that are not as they should be are written from the database; `note` is its newest checkpoint."""
        size = self._store.size()
        self._files.repair(size, self._synced(), self._store.leaves, self._store.envelopes)
        if self._files.checkpoint() != note:
            self._files.publish(size, size, note, self._store.leaves, self._store.envelopes)
        self.size = size

    def publish(self) -> None:
        """Write the tiles that are new, and the newest checkpoint. Raises TreeMismatch when the tree has none."""
        size = self._store.size()
        if size > self.size:
            note = self._store.checkpoint(size)
            if note is None:
                raise TreeMismatch("the tree has no checkpoint", "checkpoint")
            self._files.publish(size, self.size, note, self._store.leaves, self._store.envelopes)
            self.size = size

    def settle(self) -> bool:
        """Publish, durably, and move the write-ahead log into the database; False when a reader holds it up."""
        self.publish()
        self._files.sync()
        return self._store.settle()

    def _synced(self) -> int:
        """Up to which size the files were durable: that of the last transaction before those found in the log."""
        if not self._store.left:
            return self._store.size()
        former = self._store.last_checkpoints(self._store.left + 1)
        return former[-1][0] if len(former) > self._store.left else 0
