"""Trees of blocks as CAR files, out and in; the same for every engine, and the same bytes wherever a tree is exported.

Import reads the file twice. First every section is verified and the tree below the root is walked within the file, so
that a CAR which is cut, altered or not complete is refused before anything of it is written; then the tree's blocks
are put in their own order. The file's order does not matter, a block that comes twice is taken once, and one that
does not belong to the tree is not taken. Kubo accepts a CAR without blocks, or one that lacks some of them, and waits
for these; here it is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple, Protocol

from bridge.content import car, dag
from bridge.content import cid as cids
from bridge.content.at_hand import at_hand_only
from bridge.content.passed import PassedCids
from bridge.errors import CarInvalid, ContentCorrupt, IntegrityError
from bridge.model import Block, BlockPosition, PinReceipt
from bridge.ports import ContentStore

__all__ = ["MAX_BLOCKS", "Car", "Kept", "Source", "export_car", "import_car", "is_held", "keep", "missing"]

MAX_BLOCKS: Final = 2_000_000  # of one CAR, about 150 bytes of temporary disk each while it is read
_PUT_AT_ONCE: Final = 4 << 20
_SYNC_AT_ONCE: Final = 64 << 20
Placed = Callable[[Sequence[BlockPosition]], None]


class Kept(NamedTuple):
    """What `keep` did: how many blocks there are and their bytes, and how many of them were new here."""

    blocks: int
    size: int
    new: int


class Source(Protocol):
    """A whole tree of blocks from elsewhere, such as `Car`."""

    @property
    def root(self) -> bytes:
        """The CID of its root."""

    def order(self) -> Iterator[bytes]:
        """The CIDs of the tree, depth first, each once."""

    def length(self, cid: bytes) -> int:
        """How many bytes a block has."""

    def get(self, cid: bytes) -> bytes:
        """A block, verified."""


def export_car(store: ContentStore, root: bytes) -> Iterator[bytes]:
    """The CAR of the tree below a root, piece by piece: the bytes that `ipfs dag export` gives.

    Raises ContentMissing, ContentCorrupt at the block that cannot be read; what was given before it is then no CAR.
    """
    yield car.encode_header([root])
    for block in dag.walk(root, store.get, passed=PassedCids()):
        yield car.section_head(block.cid, len(block.data))
        yield bytes(block.data)


class Car:
    """A CAR file that was read whole and holds every block of the tree below one root.

    Parameters
    ----------
    file
        Seekable and opened for reading; used until the object is done with, by one thread.
    root
        The root to be found; None: the one that the header names.

    Raises CarInvalid, naming the block that is cut, altered or missing, when the file is not as the specification
    says, names several roots or another one, or has more than 2,000,000 blocks.
    """

    def __init__(self, file: BinaryIO, root: bytes | None = None) -> None:
        self._file = file
        self._places = _Places()
        file.seek(0)
        try:
            reader = car.CarReader(file.read)
            self.root = _the_root(reader.roots, root)
            for block in reader:
                length = len(block.data)
                self._places.add(block.cid, reader.offset - length, length)
                if self._places.count > MAX_BLOCKS:
                    raise CarInvalid(f"the CAR has more than {MAX_BLOCKS} blocks")
        except ContentCorrupt as error:
            raise CarInvalid(error.detail) from None
        for cid in self.order():
            self._place(cid)

    def order(self) -> Iterator[bytes]:
        """The CIDs of the tree, depth first, each once."""
        try:
            for cid, _ in dag.order(self.root, self.get, passed=PassedCids()):
                yield cid
        except ContentCorrupt as error:
            raise CarInvalid(error.detail) from None

    def has(self, cid: bytes) -> bool:
        """Whether the file holds the block."""
        return self._places.of(cid) is not None

    def length(self, cid: bytes) -> int:
        """How many bytes the block has. Raises CarInvalid."""
        return self._place(cid)[1]

    def get(self, cid: bytes) -> bytes:
        """The block, verified again: the file may have changed meanwhile. Raises CarInvalid."""
        offset, length = self._place(cid)
        self._file.seek(offset)
        data = self._file.read(length)
        if not cids.verify(cid, data):
            raise CarInvalid(f"block {cids.to_text(cid)} of the CAR was altered while it was read")
        return data

    def _place(self, cid: bytes) -> tuple[int, int]:
        place = self._places.of(cid)
        if place is None:
            raise CarInvalid(f"block {cids.to_text(cid)} is missing in the CAR")
        return place


class _Places:
    """Where each block of a CAR begins and how long it is: a table in a temporary file, so that memory stays the same
    whatever the CAR's size. The first of several places of a block stands."""

    def __init__(self) -> None:
        self.count = 0
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("CREATE TABLE place (cid BLOB PRIMARY KEY, start INT, length INT) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def add(self, cid: bytes, start: int, length: int) -> None:
        added = self._table.execute("INSERT OR IGNORE INTO place VALUES (?, ?, ?)", (cid, start, length))
        self.count += added.rowcount

    def of(self, cid: bytes) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self._table.execute(
            "SELECT start, length FROM place WHERE cid = ?", (cid,)
        ).fetchone()
        return found


def missing(store: ContentStore, source: Source) -> int:
    """How many bytes of a CAR's tree are not held; what is held and damaged is not told from what is whole."""
    return sum(source.length(cid) for cid in source.order() if not store.has(cid))


def keep(store: ContentStore, source: Source, placed: Placed, chosen: Iterable[bytes] | None = None) -> Kept:
    """Put the blocks of a CAR's tree and make them durable; `placed` is told where these lie, to have them indexed.

    `chosen` are CIDs of the tree, when not all of it. A block that is held whole is not written again; a damaged one
    is, and so healed. Holds a few megabytes. Raises StorageFull, StorageFault (blocks put before are harmless: nothing
    refers to them), what `placed` does, and CarInvalid when the file changed since it was read.
    """
    blocks = size = new = 0
    waiting: list[Block] = []
    waiting_size = 0
    put: list[BlockPosition] = []

    def flush(*, last: bool) -> None:
        nonlocal waiting, waiting_size, put
        if waiting:
            put += store.put(waiting)
            waiting, waiting_size = [], 0
        if last or sum(position.length for position in put) >= _SYNC_AT_ONCE:
            store.sync()
            if put:
                placed(put)
            put = []

    for cid in source.order() if chosen is None else chosen:
        block = Block(cid, source.get(cid))
        blocks, size = blocks + 1, size + len(block.data)
        if is_held(store, cid):
            continue
        new += 1
        waiting.append(block)
        waiting_size += len(block.data)
        if waiting_size >= _PUT_AT_ONCE:
            flush(last=False)
    flush(last=True)
    return Kept(blocks, size, new)


def import_car(store: ContentStore, file: BinaryIO, placed: Placed, root: bytes | None = None) -> PinReceipt:
    """Verify a CAR, keep its tree, pin its root; parameters as of `Car` and `keep`. Errors as theirs and of `pin`."""
    source = Car(file, root)
    keep(store, source, placed)
    return store.pin(source.root)


def _the_root(named: Sequence[bytes], wanted: bytes | None) -> bytes:
    if wanted is not None and wanted not in named:
        raise CarInvalid(f"the CAR does not name the root {cids.to_text(wanted)}")
    if wanted is None and len(set(named)) > 1:
        raise CarInvalid("the CAR names several roots: " + ", ".join(map(cids.to_text, named)))
    root = named[0] if wanted is None else wanted
    if cids.parse(root).hash == cids.IDENTITY:
        raise CarInvalid("the CAR names no tree: its root is an identity CID")
    return root


def is_held(store: ContentStore, cid: bytes) -> bool:
    """Whether this node itself has the block, whole: it is read."""
    if not store.has(cid):
        return False
    try:
        with at_hand_only():
            store.get(cid)
    except IntegrityError:
        return False
    return True
