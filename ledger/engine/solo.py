"""The engine of one node: it signs the checkpoint itself. Nobody else vouches for the order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ledger import checkpoint, entry, keys, merkle
from ledger.engine import Position, Sealed
from ledger.errors import ChainBroken, LedgerError, TreeMismatch
from ledger.journal import Journal, Journaled
from ledger.publication import LOG_LIMIT, Publication
from ledger.source import ClosedBatch, Cursor
from ledger.store import LedgerStore, StoredEntry, row
from ledger.tile_files import TileFiles
from ledger.tiles import WIDTH

DATABASE = "ledger.db"
JOURNAL = "journal"
_MOST_WAITING = 64  # entries in the journal that are not yet in the database
_UNPUBLISHED = 4 * WIDTH  # entries after which the files are written even when busy
# Neither a Sig_structure (RFC 9052 section 4.4) nor a note (C2SP signed-note), which is all that else is signed.
_JOURNAL = b"cairn ledger: the key of the journal, version 1"


class SoloEngine:
    """The ledger below `home` (ledger.db, tile/, checkpoint), created when it is not there.

    `signer` signs the checkpoints, whose key is named `origin`; `ledger_id` is derived from both when not given; `node`
    is the id of this node when its first key was another. Opening repairs what a crash between the commit and the
    files has left: a kill -9 at any point leaves a ledger that goes on where it was. One thread at a time.

    Few entries are durable in the journal alone, with one synchronisation, until `publish` commits them; many are
    committed at once. Tiles and the checkpoint file follow the database and are durable before the write-ahead log is
    emptied (`settle`). So files that a loss of power may have torn are always of entries that are still in the log, and
    those are checked when it is opened.

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
        self._waiting: list[StoredEntry] = []  # in the journal, not yet in the database
        self._epoch: bytes | None = None  # under which all entries were made, as far as is known
        try:
            self._journal = Journal(home / JOURNAL, _journal_key(signer))
        except BaseException:
            self._store.close()
            raise
        try:
            with self._store.writing():
                self._recover()
                self._published.settle()
        except BaseException:
            with suppress(LedgerError, OSError):
                self._store.settle()
            self._release()
            raise

    @property
    def ledger_id(self) -> bytes:
        """The 8 bytes that every entry names."""
        return self._ledger

    def position(self) -> Position:
        """Where this node's chain stands; what another engine wrote just now may be seen by `append` alone."""
        known = self._known
        if known is None or self._store.touched() or (not self._waiting and self._left_by_another()):
            with self._store.writing():
                known = self._stand()
        return known[0]

    def append(self, entries: Sequence[Sealed], cursor: Cursor) -> None:
        """(1) durable in the journal when few, and while the disk writes (2) signed, in rows, which grow the tree;
        (3) else committed with the tree's signed checkpoint; (4) publish when many wait."""
        with self._store.writing():
            position, frontier = self._stand()
            since = frontier.size
            end = position.sequence + len(entries)
            if [sealed.entry.sequence for sealed in entries] != list(range(position.sequence, end)):
                raise ChainBroken("the entries do not continue this node's sequence", f"entry {since}")
            self._known = None  # until it is known how the write went
            frontier, rows, previous = frontier.copy(), list[StoredEntry](), position.previous

            def grow() -> None:  # (2)
                nonlocal previous
                for at, one in enumerate(entries, since):
                    rows.append(row(at, one.envelope, one.entry, one.batch, one.records))
                    frontier.append(rows[-1].leaf)
                if entries:
                    previous = entry.envelope_hash(entries[-1].envelope)

            if self._journaled(since, entries, cursor, grow):  # (1)
                self._waiting += rows
            else:
                grow()
                self._commit([*self._waiting, *rows], frontier, cursor)  # (3)
            self._known = Position(position.ledger, position.node, end, previous, cursor), frontier
            if not self._waiting:
                self._make_room()  # (4)

    def held(self, records_roots: Sequence[bytes], epoch: bytes) -> set[bytes]:
        """Those of the roots, of batches of this epoch, over whose records an entry was taken under another.

        None are looked up while all entries were made under this epoch: its batches are sealed once, in order.
        """
        if self._epoch == epoch:
            return set()
        with self._store.writing():
            self._flush()
        if self._store.made_under(epoch):
            self._epoch = epoch
            return set()
        return self._store.sealed(records_roots)

    def unlinked(self) -> int:
        """None: a log of the node's own is lost with what it knows."""
        return 0

    def link(self, batches: Sequence[ClosedBatch], epoch: bytes) -> int:
        """Nothing is left to be linked."""
        return 0

    def publish(self) -> None:
        """Commit what the journal holds; write the tiles that are new, and the newest checkpoint."""
        with self._store.writing():
            self._flush()
            self._published.publish()

    def settle(self) -> bool:
        """Publish, durably, and move the write-ahead log into the database; False when a reader holds it up."""
        with self._store.writing():
            self._flush()
            return self._published.settle()

    def close(self) -> None:
        """Settle and close the database."""
        try:
            self.settle()
        finally:
            self._release()

    def _release(self) -> None:
        self._journal.close()
        self._store.close()

    def _stand(self) -> tuple[Position, merkle.Frontier]:
        """Position and frontier as they are on the disk, which are read again when another may have written there."""
        if self._store.others_held():
            self._known = None
        if self._known is None:
            self._take_in()
            last, state = self._store.tip(), self._store.state()
            sequence, envelope = (-1, None) if last is None else last
            previous = entry.GENESIS if envelope is None else entry.envelope_hash(envelope)
            position = Position(self._ledger, self._node, sequence + 1, previous, state.cursor)
            self._known, self._epoch = (position, state.frontier), None
        return self._known

    def _left_by_another(self) -> bool:
        assert self._known is not None
        return self._journal.continues(self._known[1].size)

    def _journaled(self, since: int, entries: Sequence[Sealed], cursor: Cursor, meanwhile: Callable[[], None]) -> bool:
        """(1) Whether the entries are durable in the journal; from it the cursor is known by the last one's batch."""
        if not entries or len(self._waiting) + len(entries) > _MOST_WAITING or cursor != entries[-1].batch:
            return False
        kept = [Journaled(sealed.payload, sealed.batch, sealed.records) for sealed in entries]
        return self._journal.append(since, kept, meanwhile)

    def _flush(self) -> None:
        """Commit what waits in the journal."""
        if self._waiting:
            position, frontier = self._stand()
            if self._waiting:  # else another engine has taken it in meanwhile
                self._commit(self._waiting, frontier, position.cursor)

    def _commit(self, rows: Sequence[StoredEntry], frontier: merkle.Frontier, cursor: Cursor) -> None:
        """(3) ONE transaction; then the journal begins anew."""
        note = checkpoint.make(self._origin, frontier.size, frontier.root(), self._signer) if rows else None
        self._store.commit(rows, frontier, cursor, note)
        self._waiting = []
        self._journal.begin()

    def _make_room(self) -> None:
        if self._store.size() - self._published.size >= _UNPUBLISHED:
            self._published.publish()
        if self._store.log_size() > LOG_LIMIT:
            self._published.settle()

    def _take_in(self) -> None:
        """Commit what the journal holds beyond the database: left by a crash, or written by another engine.

        Only what this node has written and what continues its chain: a journal beside a database that was restored from
        a backup may be of another history.
        """
        self._waiting = []
        last, state = self._store.tip(), self._store.state()
        sequence, previous = (0, entry.GENESIS) if last is None else (last[0] + 1, entry.envelope_hash(last[1]))
        frontier, cursor, rows = state.frontier.copy(), state.cursor, []
        for payload, batch, records in self._journal.read(frontier.size):
            try:
                said = entry.decode(payload)
            except LedgerError:  # of a version of this program that knows more
                break
            if (said.ledger, said.node, said.sequence, said.previous) != (self._ledger, self._node, sequence, previous):
                break
            envelope = entry.sign(payload, self._signer)
            rows.append(row(frontier.size, envelope, said, batch, records))
            frontier.append(rows[-1].leaf)
            sequence, previous, cursor = sequence + 1, entry.envelope_hash(envelope), batch
        if rows:
            self._commit(rows, frontier, cursor)
        self._journal.clear()

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
        self._take_in()


def _journal_key(signer: keys.Signer) -> bytes:
    """The key of the journal's tags, 32 bytes: from a signature that is made for nothing else and never shown.

    Only who can sign knows it (RFC 8032 section 5.1.6: the same data is signed the same). Another key's journal is left
    alone: what is in it is sealed again.
    """
    return hashlib.sha256(signer.sign(_JOURNAL)).digest()
