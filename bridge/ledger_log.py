"""The log of this node's ledger, read beside the process that writes it: the port `bridge.ports.LedgerLog`.

Committed entries come from the ledger's database, opened read-only; hashes of the tree from the published tiles, and
from the database where a tile is not there yet. Nothing is computed over the whole tree: a proof reads a few tiles, and
is checked before it is given.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from bridge.errors import NotFound, StorageFault
from bridge.index.record_leaves import RecordLeaves, RecordPlace
from bridge.ledger_reading import unreadable
from bridge.model import SealedRecord
from ledger import checkpoint, merkle, proof, tiles
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError, ProofInvalid, RecordUnreadable
from ledger.keys import PublicKey
from ledger.store import LedgerStore, StoredEntry
from ledger.tile_files import TileFiles
from ledger.tiles import ENTRIES, HEIGHT, WIDTH, Tile

ID_SIZE = 32  # bytes of an entry's or a record's leaf hash
_KEPT_TILES = 256  # of 8 KiB each
#: (study or None, sealed record) -> the record's bytes, None when its key is gone
Opener = Callable[[str | None, SealedRecord], bytes | None]
#: Record's leaf hash -> indices of entries that may be over it, and up to which index (-1: none) entries are known so
Places = Callable[[bytes], tuple[Sequence[int], int]]


class Cosignatures(Protocol):
    """What others have cosigned of the log's checkpoints. Each may raise StorageFault."""

    def lines(self, size: int) -> Sequence[str]:
        """The cosignature lines of the checkpoint of that size, each with its newline."""

    def newest(self, least: int) -> int | None:
        """The largest size, of at least `least`, whose checkpoint has all the cosignatures it needs; None for none."""

    def policy(self, log_key: str) -> str:
        """The trust policy (C2SP tlog-policy) of the log with this vkey."""


def _nowhere(leaf: bytes) -> tuple[Sequence[int], int]:
    return (), -1


class LedgerFiles:
    """`LedgerLog` over the ledger below `home`, which may not be there yet. Thread-safe; open it after a fork.

    Parameters
    ----------
    home
        The ledger's directory: database, tiles, checkpoint.
    origin, public_key
        The log's name and the key it signs with.
    leaves
        Finds a record's batch by the record's leaf hash.
    open_record
        Opens a sealed record for the proof; a record whose key is gone is proved by its leaf hash alone.
    places
        Where a record may be, from an index over leaf hashes; what that does not know is searched for in `leaves`.
    cosignatures
        Of the checkpoints; None when nobody is asked for any.
    """

    def __init__(
        self,
        home: Path,
        origin: str,
        public_key: PublicKey,
        leaves: RecordLeaves,
        open_record: Opener,
        places: Places = _nowhere,
        cosignatures: Cosignatures | None = None,
    ) -> None:
        self._cosignatures = cosignatures
        self._database = home / DATABASE
        self._files = TileFiles(home)
        self._key = checkpoint.vkey(origin, public_key)
        self._leaves, self._open_record, self._places = leaves, open_record, places
        self._idle: deque[LedgerStore] = deque()
        self._tiles: OrderedDict[Tile, list[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def key(self, of: bytes | None = None) -> str:
        """The log's verifier key (C2SP signed-note)."""
        return self._key

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint (C2SP tlog-checkpoint); None while there is no entry. Raises StorageFault.

        It has the cosignatures that there are of it yet.
        """
        note = self.signed()
        return None if note is None else self._cosigned(note)

    def signed(self, size: int | None = None) -> str | None:
        """A checkpoint as this node signed it, the newest unless a size is given; None when there is none.

        Raises StorageFault.
        """
        with self._reading() as store:
            return store.checkpoint(size) if store is not None and store.size() else None

    def policy(self) -> str:
        """What trusting the log asks for (C2SP tlog-policy). Raises StorageFault."""
        return f"log {self._key}\nquorum none\n" if self._cosignatures is None else self._cosignatures.policy(self._key)

    def file(self, path: str) -> bytes:
        """A tile or entry bundle by its path below the log's prefix ("tile/0/000.p/5"). Raises NotFound, StorageFault.

        A partial one that gave way to the full one is still answered (tlog-tiles, Partial Tiles).
        """
        tile = tiles.parse_path(path)
        if tile is None:
            raise NotFound("no tile has this path")
        with self._reading() as store:
            if store is None or tile.number * WIDTH + tile.width > store.size() >> (max(tile.level, 0) * HEIGHT):
                raise NotFound("the tree has no such tile")
            return self._content(store, tile)

    def envelope(self, id: bytes) -> bytes:
        """The signed envelope of an entry, by its leaf hash. Raises NotFound, StorageFault."""
        with self._reading() as store:
            found = store.find(leaf=id) if store is not None else None
        if found is None:
            raise NotFound("no entry has this id")
        return found.envelope

    def prove(self, id: bytes, size: int | None = None) -> str:
        """The proof (C2SP tlog-proof) of an entry, or of one record, by its leaf hash.

        It is under the checkpoint of `size`; without one under the newest with all cosignatures that are needed, else
        under the newest. A record's proof holds that record (unless its key is gone), its entry and hashes; nothing of
        other records. Raises NotFound, also when the record still waits for its entry; StorageFault.
        """
        with self._reading() as store:
            if store is None or len(id) != ID_SIZE:
                raise NotFound("no entry and no record has this id")
            stored, of = store.find(leaf=id), None
            if stored is None:
                stored, of = self._record(store, id)
            if size is not None:
                note = store.checkpoint(size) if stored.idx < size else None
            else:
                enough = self._cosignatures.newest(stored.idx + 1) if self._cosignatures is not None else None
                note = store.checkpoint(enough) or store.checkpoint()
            if note is None:
                raise NotFound("the log has no checkpoint yet that covers the entry")
            path = self._path(store, stored, note)
            return proof.encode(stored.envelope, stored.idx, path, self._cosigned(note), of)

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        """The consistency proof between two sizes of the tree (RFC 9162 section 2.1.4). Raises NotFound beyond it."""
        with self._reading() as store:
            if not 0 <= first <= second <= (0 if store is None else store.size()):
                raise NotFound("the log never had these sizes, in this order")
            return [] if store is None else merkle.consistency_proof(first, second, self._reader(store))

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _cosigned(self, note: str) -> str:
        if self._cosignatures is None:
            return note
        return note + "".join(self._cosignatures.lines(checkpoint.parse(checkpoint.split_note(note)[0]).size))

    def _record(self, store: LedgerStore, leaf: bytes) -> tuple[StoredEntry, proof.RecordPath]:
        """The entry over a record's batch, and the record's path in it."""
        place = self._place(store, leaf)
        if place is None:
            raise NotFound("no entry and no record has this id")
        stored = self._over(store, place.records_root) if place.records_root is not None else None
        if stored is None:
            raise NotFound("the record waits for its entry; ask again in a while")
        opened = self._open_record(place.study, place.record)
        return stored, proof.record_path(self._leaves.of_batch(place.batch), place.position, opened)

    def _place(self, store: LedgerStore, leaf: bytes) -> RecordPlace | None:
        try:
            indices, known = self._places(leaf)
        except StorageFault:  # it only saves the search below
            indices, known = _nowhere(leaf)
        for index in indices:
            stored = store.entry(index)
            place = stored and self._leaves.find_under(stored.batch, stored.root, leaf)
            if place:
                return place
        last = store.entry(known) if known >= 0 else None
        return self._leaves.find(leaf, last.batch if last is not None and last.epoch == self._leaves.epoch else 0)

    def _path(self, store: LedgerStore, stored: StoredEntry, note: str) -> list[bytes]:
        """The entry's inclusion path, checked: files may be torn until the ledger's process has started again."""
        head = checkpoint.parse(checkpoint.split_note(note)[0])
        path = merkle.inclusion_proof(stored.idx, head.size, self._reader(store))
        try:
            merkle.verify_inclusion(stored.leaf, stored.idx, head.size, path, head.root)
        except ProofInvalid:
            with self._lock:
                self._tiles.clear()
            path = merkle.inclusion_proof(stored.idx, head.size, self._reader(store, files=False))
            merkle.verify_inclusion(stored.leaf, stored.idx, head.size, path, head.root)
        return path

    def _reader(self, store: LedgerStore, files: bool = True) -> merkle.NodeReader:
        """Perfect subtrees' roots, from the tiles as wide as the tree has them now; without `files`, from the rows."""
        size = store.size()

        def read(level: int, index: int) -> bytes:
            above, inner = divmod(level, HEIGHT)
            first = index << inner
            number, at = divmod(first, WIDTH)
            width = min(WIDTH, (size >> (above * HEIGHT)) - number * WIDTH)
            return self._pyramid(store, Tile(above, number, width), files)[_row(inner) + (at >> inner)]

        return read

    def _pyramid(self, store: LedgerStore, tile: Tile, files: bool) -> list[bytes]:
        """Every perfect subtree within a tile: its hashes, then the row above, and so on; the last used are kept."""
        with self._lock:
            known = self._tiles.get(tile)
            if known is not None:
                self._tiles.move_to_end(tile)
                return known
        known = _pyramid(self._content(store, tile, files), tile.width)
        with self._lock:
            self._tiles[tile] = known
            while len(self._tiles) > _KEPT_TILES:
                self._tiles.popitem(last=False)
        return known

    def _content(self, store: LedgerStore, tile: Tile, files: bool = True) -> bytes:
        """A tile's bytes from its file; from the database when it is not published yet, or gave way to a wider one."""
        with suppress(FileNotFoundError):
            content = self._files.read(tile) if files else b""
            if content and (tile.level == ENTRIES or len(content) == tile.width * merkle.HASH_SIZE):
                return content
        first = tile.number * WIDTH
        if tile.level == ENTRIES:
            return tiles.bundle_bytes(store.envelopes(first, first + tile.width))
        if tile.level == 0:
            return b"".join(store.leaves(first, first + tile.width))
        below = [Tile(tile.level - 1, number, WIDTH) for number in range(first, first + tile.width)]
        return b"".join(tiles.subtree_root(self._content(store, each, files)) for each in below)

    @contextmanager
    def _reading(self) -> Iterator[LedgerStore | None]:
        """A connection of one's own; None while there is no ledger. Other errors than the house's become its own."""
        try:
            # The checkpoint is the last that the ledger's first start writes.
            if not self._idle and self._files.checkpoint() is None:
                yield None
                return
            store = self._take()
            sound = True
            try:
                yield store
            except (LedgerError, OSError):
                sound = False
                raise
            finally:
                if sound and not self._closed:
                    self._idle.append(store)
                else:
                    store.close()
        except RecordUnreadable as error:
            raise StorageFault(f"a record does not open: {error.detail}") from error
        except (LedgerError, OSError) as error:
            raise unreadable("the ledger", error) from error

    def _take(self) -> LedgerStore:
        try:
            return self._idle.pop()
        except IndexError:
            return self._opened()

    def _opened(self) -> LedgerStore:
        return LedgerStore(self._database, readonly=True)

    def _over(self, store: LedgerStore, root: bytes) -> StoredEntry | None:
        """This node's entry over a batch's records."""
        return store.find(root=root)


def _row(inner: int) -> int:
    """Where the row of subtrees over 2**inner hashes begins in a pyramid: behind 256 + 128 + ... hashes."""
    return 2 * WIDTH - (2 * WIDTH >> inner)


def _pyramid(content: bytes, width: int) -> list[bytes]:
    """The rows of a tile, each laid out for a full tile; subtrees that are not perfect yet are left empty."""
    size = merkle.HASH_SIZE
    row = [content[at : at + size] for at in range(0, width * size, size)]
    if len(content) != width * size:
        raise LedgerError("a tile has another length than its width")
    rows: list[bytes] = []
    full = WIDTH
    while full:
        rows += row + [b""] * (full - len(row))
        row = [merkle.node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        full >>= 1
    return rows
