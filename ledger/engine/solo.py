"""The engine of one node: it signs the checkpoint itself. Nobody else vouches for the order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ledger import checkpoint, entry, keys, merkle
from ledger.engine import Position, Sealed
from ledger.errors import ChainBroken, LedgerError, TreeMismatch
from ledger.publication import LOG_LIMIT, Publication
from ledger.source import Cursor
from ledger.store import LedgerStore, row
from ledger.tile_files import TileFiles
from ledger.tiles import WIDTH

DATABASE = "ledger.db"
_UNPUBLISHED = 4 * WIDTH  # entries after which the files are written even when busy


class SoloEngine:
    """The ledger below `home` (ledger.db, tile/, checkpoint), created when it is not there.

    `signer` signs the checkpoints, whose key is named `origin`; `ledger_id` is derived from both when not given; `node`
    is the id of this node when its first key was another. Opening repairs what a crash between the commit and the
    files has left: a kill -9 at any point leaves a ledger that goes on where it was. One thread at a time.

    What is appended is durable in the database alone, with one synchronisation; tiles and the checkpoint file follow it
    (`publish`) and are durable before the write-ahead log is emptied (`settle`). So files that a loss of power may have
    torn are always of entries that are still in the log, and those are checked when it is opened.

    Raises TreeMismatch when the newest checkpoint is not of the tree, or of another origin or key.
    """

    def __init__(
        self,
        home: Path,
        signer: keys.Signer,
        origin: str,
        ledger_id: bytes | None = None,
        node: bytes | None = None,
    ) -> None:
        self._signer, self._origin = signer, origin
        self._ledger = entry.ledger_id(origin, signer.public_key()) if ledger_id is None else ledger_id
        self._node = keys.node_id(signer.public_key()) if node is None else node
        home.mkdir(parents=True, exist_ok=True)
        self._known: tuple[Position, merkle.Frontier] | None = None
        self._store = LedgerStore(home / DATABASE)
        self._published = Publication(self._store, TileFiles(home))
        try:
            with self._store.writing():
                self._recover()
                self._published.settle()
        except BaseException:
            with suppress(LedgerError, OSError):
                self._store.settle()
            self._store.close()
            raise

    @property
    def ledger_id(self) -> bytes:
        """The 8 bytes that every entry names."""
        return self._ledger

    def position(self) -> Position:
        """Where this node's chain stands."""
        return self._stand()[0]

    def append(self, entries: Sequence[Sealed], cursor: Cursor) -> None:
        """(1) rows from envelopes; (2) grow the tree, sign its checkpoint; (3) commit; (4) publish when many wait."""
        with self._store.writing():
            position, frontier = self._stand()
            since = frontier.size
            rows = [row(since + at, *sealed) for at, sealed in enumerate(entries)]  # (1)
            if [item.sequence for item in rows] != list(range(position.sequence, position.sequence + len(rows))):
                raise ChainBroken("the entries do not continue this node's sequence", f"entry {since}")
            frontier = frontier.copy()
            for item in rows:  # (2)
                frontier.append(item.leaf)
            note = checkpoint.make(self._origin, frontier.size, frontier.root(), self._signer) if rows else None
            self._known = None  # until it is known how the commit went
            self._store.commit(rows, frontier, cursor, note)  # (3)
            if rows:
                position = position._replace(
                    sequence=rows[-1].sequence + 1, previous=entry.envelope_hash(rows[-1].envelope)
                )
            self._known = position._replace(cursor=cursor), frontier
            if frontier.size - self._published.size >= _UNPUBLISHED:  # (4)
                self._published.publish()
            if self._store.log_size() > LOG_LIMIT:
                self._published.settle()

    def held(self, records_roots: Sequence[bytes], epoch: bytes) -> set[bytes]:
        """Those of the roots, of batches of this epoch, over whose records an entry was taken under another."""
        return self._store.sealed(records_roots, epoch)

    def publish(self) -> None:
        """Write the tiles that are new, and the newest checkpoint."""
        with self._store.writing():
            self._published.publish()

    def settle(self) -> bool:
        """Publish, durably, and move the write-ahead log into the database; False when a reader holds it up."""
        with self._store.writing():
            return self._published.settle()

    def close(self) -> None:
        """Settle and close the database."""
        try:
            self.settle()
        finally:
            self._store.close()

    def _stand(self) -> tuple[Position, merkle.Frontier]:
        """Position and frontier as they are in the database, which is read again when another has written it."""
        if self._known is None or self._store.changed():
            last, state = self._store.tip(), self._store.state()
            sequence, envelope = (-1, None) if last is None else last
            previous = entry.GENESIS if envelope is None else entry.envelope_hash(envelope)
            position = Position(self._ledger, self._node, sequence + 1, previous, state.cursor)
            self._known = position, state.frontier
        return self._known

    def _recover(self) -> None:
        """The checkpoint must be of this tree; files that are not as they should be are written from the database."""
        frontier = self._store.state().frontier
        note = self._store.checkpoint()
        if note is None:
            note = checkpoint.make(self._origin, 0, frontier.root(), self._signer)
            self._store.commit([], frontier, self._store.state().cursor, note)
        head = checkpoint.verify(note, self._origin, self._signer.public_key())
        if (head.size, head.root) != (frontier.size, frontier.root()):
            raise TreeMismatch("the newest checkpoint is not of the tree", "checkpoint")
        self._published.recover(note)
