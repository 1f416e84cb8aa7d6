"""What of a log's database is published as files: tiles, entry bundles, checkpoint.

What is committed is durable in the database alone; the files follow it (`publish`) and are durable before the
write-ahead log is emptied (`settle`). So files that a loss of power may have torn are always of entries that are still
in the log, and those are checked when it is opened (`recover`).

The checkpoint is the newest; once one was given with others' cosignatures (`publish_cosigned`), it is the newest of
those, so that the files alone show the quorum at any time.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger import checkpoint
from ledger.errors import LedgerError, TreeMismatch
from ledger.store import LedgerStore
from ledger.tile_files import TileFiles

LOG_LIMIT = 32 * 1024 * 1024  # bytes of write-ahead log after which it is settled even when busy


class Publication:
    """The files of one log; `size` entries of it are published. Under the store's `writing`."""

    def __init__(self, store: LedgerStore, files: TileFiles) -> None:
        self._store, self._files = store, files
        self.size = 0
        self._cosigned = 0  # the size of the published checkpoint when others cosigned it

    def recover(self, note: str) -> None:
        """Files that are not as they should be are written from the database; `note` is its newest checkpoint."""
        size = self._store.size()
        self._files.repair(size, self._synced(), self._store.leaves, self._store.envelopes)
        held = self._files.checkpoint()
        self._cosigned = cosigned_size(held, self._store.checkpoint)
        if held != note and not self._cosigned:
            self._files.publish(size, size, note, self._store.leaves, self._store.envelopes)
        self.size = size

    def publish(self) -> None:
        """Write the tiles that are new, and the newest checkpoint. Raises TreeMismatch when the tree has none."""
        size = self._store.size()
        if size > self.size:
            note = self._store.checkpoint(size)
            if note is None:
                raise TreeMismatch("the tree has no checkpoint", "checkpoint")
            given = None if self._cosigned else note
            self._files.publish(size, self.size, given, self._store.leaves, self._store.envelopes)
            self.size = size

    def publish_cosigned(self, size: int, note: str) -> None:
        """Write a checkpoint with others' cosignatures, whose quorum was reached; an older one than is there is not.

        Where this member alone is the quorum nobody's lines are behind its own, and the newest is good by itself.
        """
        self.publish()
        if cosigned_size(note, self._store.checkpoint) and self._cosigned <= size <= self.size:
            self._files.publish(size, size, note, self._store.leaves, self._store.envelopes)
            self._cosigned = size

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


def cosigned_size(note: str | None, stored: Callable[[int], str | None]) -> int:
    """The size of a checkpoint that is the stored one of its size with lines of others behind; 0 when it is not."""
    try:
        size = checkpoint.parse(checkpoint.split_note(note or "")[0]).size
    except LedgerError:
        return 0
    own = stored(size)
    return size if own is not None and note != own and note is not None and note.startswith(own) else 0
