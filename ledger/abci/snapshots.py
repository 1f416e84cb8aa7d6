"""State sync: what a new member starts from, and how it takes that in (CometBFT, spec/p2p/messages/state-sync.md).

A snapshot is of a block that left something. Its metadata is that block's record, whose hash is the app hash that
CometBFT's light client has verified, and a list of chunks: the canonical state in pieces, every block record in order,
every entry in order. All of it is a function of the log, so every member offers the same bytes.

1. the record is that of the app hash                       offer
2. the state is the one that the record names               apply, chunks "s"
3. each block record is named by the next, the last is 1    apply, chunks "b"
4. each block's root is that over the entries up to it      apply, chunks "e"; durable as far as a block is whole
5. state, checkpoint and outbox, in one transaction         apply, the last chunk

Killed before 5, a node has no state, and forgets the entries when it is started again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from ledger import block, codec, entry, members, tiles
from ledger.abci import messages
from ledger.abci.messages import Snapshot
from ledger.block_store import BlockStore, StoredBlock
from ledger.entry import leaf_hash
from ledger.errors import CodecError, LedgerError
from ledger.members import State
from ledger.merkle import Frontier
from ledger.store import FOREIGN, StoredEntry, row

log = logging.getLogger(__name__)
FORMAT: Final = 2
CHUNK: Final = 1_000_000
"""Bytes of a chunk at most, and for a single piece beyond: some are on their way while one is taken in, and each comes
within the ten seconds after which CometBFT asks again, over slow lines too."""
LARGE: Final = 8_000_000
LARGE_FROM: Final = 16_384
"""Of chunks from that number on, for the list of all must fit; CometBFT takes 16 MB, the contract is 10 MB."""
METADATA: Final = 4_000_000
EVERY: Final = 64
"""Heights between two states that others may start from."""
STATE, BLOCKS, ENTRIES = "s", "b", "e"
_READ: Final = 1024


class Chunk(NamedTuple):
    """A chunk: what it holds, so many pieces from the first on (of the state: bytes), the SHA-256 of its bytes."""

    kind: str
    first: int
    pieces: int
    hash: bytes


class Snapshots:
    """What this node offers, and what it takes in. One thread at a time for each of the two."""

    def __init__(self, store: BlockStore, every: int = EVERY) -> None:
        self._store, self._every = store, every
        self._newest = max((height for height, *_ in store.snapshots()), default=0)
        self._plans: dict[int, tuple[list[Chunk], Snapshot, bytes]] = {}
        self._full: dict[str, list[Chunk]] = {BLOCKS: [], ENTRIES: []}

    def due(self, height: int) -> bool:
        """Whether the state after this height is to be kept for others; asked once for each that left something."""
        if self._newest and height < self._newest + self._every:
            return False
        self._newest = height
        return True

    def offered(self, newest: int) -> list[Snapshot]:
        """Snapshots of heights up to `newest`, the newest first."""
        kept = {height: (size, record, state) for height, size, record, state in self._store.snapshots()}
        kept = {height: of for height, of in kept.items() if height <= newest}
        self._plans = {height: plan for height, plan in self._plans.items() if height in kept}
        for height, (size, record, state) in sorted(kept.items()):
            if height not in self._plans:
                chunks = [*_state_chunks(state), *self._grown(BLOCKS, height), *self._grown(ENTRIES, size)]
                metadata = codec.encode({"v": FORMAT, "r": record, "c": [[*chunk] for chunk in chunks]}, METADATA)
                offer = Snapshot(height, FORMAT, len(chunks), sha256(metadata).digest(), metadata)
                self._plans[height] = chunks, offer, state
        return [self._plans[height][1] for height in sorted(kept, reverse=True)]

    def chunk(self, height: int, format: int, number: int) -> bytes:
        """A chunk of a snapshot that was offered; empty when there is none."""
        plan = self._plans.get(height)
        if plan is None or format != FORMAT or not 0 <= number < len(plan[0]):
            return b""
        kind, first, count, _ = plan[0][number]
        if kind == STATE:
            return plan[2][first : first + count]
        return tiles.bundle_bytes(self._pieces(kind, first, count))

    def _pieces(self, kind: str, first: int, count: int) -> list[bytes]:
        if kind == ENTRIES:
            with self._store.mutex:
                return self._store.envelopes(first, first + count)
        return [stored.record for stored in self._store.blocks_from(first, count)]

    def _grown(self, kind: str, end: int) -> Iterator[Chunk]:
        """The chunks over the first pieces: entries up to an index, block records up to a height.

        Those that are full are the same for every later snapshot, and known from then on.
        """
        if kind == BLOCKS:
            end = self._store.blocks_until(end)
        full = [chunk for chunk in self._full[kind] if chunk.first + chunk.pieces <= end]
        yield from full
        first = full[-1].first + full[-1].pieces if full else 0
        at, bundle, digest, count = first, 0, sha256(), 0
        while at < end:
            for piece in self._pieces(kind, at, min(_READ, end - at)):
                framed = tiles.bundle_bytes([piece])
                if count and bundle + len(framed) > _most(len(self._full[kind])):
                    chunk = Chunk(kind, first, count, digest.digest())
                    self._full[kind].append(chunk)
                    yield chunk
                    first, bundle, digest, count = at, 0, sha256(), 0
                digest.update(framed)
                at, bundle, count = at + 1, bundle + len(framed), count + 1
        if count:
            yield Chunk(kind, first, count, digest.digest())


def _most(number: int) -> int:
    """How many bytes the chunk with that number, of its kind, has at most."""
    return CHUNK if number < LARGE_FROM else LARGE


def _state_chunks(state: bytes) -> Iterator[Chunk]:
    for at in range(0, len(state), CHUNK):
        piece = state[at : at + CHUNK]
        yield Chunk(STATE, at, len(piece), sha256(piece).digest())


class Arriving:
    """A snapshot that is being taken in."""

    def __init__(self, store: BlockStore, chunks: Sequence[Chunk], record: bytes) -> None:
        self._store, self._chunks, self._record = store, chunks, record
        self._head = block.decode(record)
        self._state = b""
        self._after: State | None = None
        self._blocks: list[StoredBlock] = []
        self._put = store.blocks_until(2**62)  # block records that are in the database
        self._frontier, self._due = Frontier(), 0
        self._rows: list[StoredEntry] = []

    def take(self, number: int, content: bytes) -> bool:
        """Take in the next chunk; False when it is not the one that was announced. Raises LedgerError for a lie."""
        chunk = self._chunks[number]
        if sha256(content).digest() != chunk.hash:
            return False
        if chunk.kind == STATE:
            self._state += content
        elif chunk.kind == BLOCKS:
            self._take_blocks(tiles.split_bundle(content))
        else:
            self._take_entries(tiles.split_bundle(content))
        return True

    def finish(self, note: Callable[[Frontier], str], node: bytes) -> None:
        """Step 5. Raises LedgerError when something is missing."""
        self._check_chain()
        self._put_rows(self._frontier)
        if self._after is None or self._rows or self._frontier.size != self._head.size:
            raise CodecError("the snapshot ends before its last entry", "snapshot")
        with self._store.writing():
            line = note(self._frontier) if self._frontier.size else None
            self._store.finish_snapshot(self._blocks[-1], self._after, line, node)

    def _take_blocks(self, records: Sequence[bytes]) -> None:
        for record in records:
            said = block.decode(record)
            previous = self._blocks[-1].hash if self._blocks else block.FIRST
            size = self._blocks[-1].size if self._blocks else 0
            if said.previous != previous or said.first != size:
                raise CodecError("a block record does not follow the one before", "snapshot")
            of = StoredBlock(said.height, said.first, said.size, said.time_us * 1000, block.app_hash(record), record)
            self._blocks.append(of)

    def _check_chain(self) -> None:
        """Steps 2 and 3, when all of it is here."""
        if self._after is not None:
            return
        after = members.decode(self._state)
        if members.state_hash(after) != self._head.state:
            raise CodecError("the state is not the one of the record", "snapshot")
        if not self._blocks or self._blocks[-1].record != self._record:
            raise CodecError("the block records do not end with the one of the app hash", "snapshot")
        self._after = after

    def _take_entries(self, envelopes: Sequence[bytes]) -> None:
        """Step 4."""
        self._check_chain()
        held = self._store.size()
        sound = self._frontier.copy()
        self._pass(sound)
        for envelope in envelopes:
            index, leaf = self._frontier.size, leaf_hash(envelope)
            self._frontier.append(leaf)
            if index >= held:
                self._rows.append(row(index, envelope, entry.read(envelope), FOREIGN, 0))
            if self._due < len(self._blocks) and self._frontier.size == self._blocks[self._due].size:
                self._pass(self._frontier)
                sound = self._frontier.copy()
        if sound.size and (self._due and self._blocks[self._due - 1].size == sound.size):
            self._put_rows(sound)

    def _pass(self, frontier: Frontier) -> None:
        """Compare the root with that of every block that ends here."""
        while self._due < len(self._blocks) and self._blocks[self._due].size == frontier.size:
            if block.decode(self._blocks[self._due].record).root != frontier.root():
                raise CodecError("the entries are not those of the block records", "snapshot")
            self._due += 1

    def _put_rows(self, frontier: Frontier) -> None:
        rows = [item for item in self._rows if item.idx < frontier.size]
        self._rows = self._rows[len(rows) :]
        if frontier.size < self._store.size():
            return
        with self._store.writing():
            self._store.grow_unfinished(rows, self._blocks[self._put : self._due], frontier)
            self._put = max(self._put, self._due)
            self._store.settle()


def read_offer(snapshot: Snapshot, app_hash: bytes) -> tuple[list[Chunk], bytes]:
    """Step 1: the chunks and the block record of an offer. Raises CodecError when it is not of this app hash."""
    value: Any = codec.decode(snapshot.metadata, METADATA)
    try:
        chunks = [Chunk(*chunk) for chunk in value["c"]]
        record = value["r"]
        kinds = "".join(chunk.kind for chunk in chunks)
    except (KeyError, TypeError):
        raise CodecError("not the metadata of a snapshot", "snapshot") from None
    if type(record) is not bytes or block.app_hash(record) != app_hash or len(chunks) != snapshot.chunks:
        raise CodecError("the snapshot is not of this app hash", "snapshot")
    if block.decode(record).height != snapshot.height or kinds != "".join(sorted(kinds, key="sbe".index)):
        raise CodecError("the snapshot is of another height, or out of order", "snapshot")
    return chunks, record


class Restoring:
    """OfferSnapshot and ApplySnapshotChunk over a store."""

    def __init__(self, store: BlockStore, note: Callable[[Frontier], str], node: bytes) -> None:
        self._store, self._note, self._node = store, note, node
        self._arriving: Arriving | None = None
        self._left = 0

    def offer(self, snapshot: Snapshot, app_hash: bytes) -> int:
        """Whether to start from it."""
        self._arriving = None
        if snapshot.format != FORMAT:
            return messages.SNAPSHOT_REJECT_FORMAT
        if snapshot.height < self._store.consensus().height:
            return messages.SNAPSHOT_REJECT
        try:
            chunks, record = read_offer(snapshot, app_hash)
        except (LedgerError, ValueError) as error:
            log.warning("a snapshot is refused: %s", error)
            return messages.SNAPSHOT_REJECT
        self._forget()
        self._arriving, self._left = Arriving(self._store, chunks, record), len(chunks)
        log.info("a state is taken over from other members", extra={"entries": block.decode(record).size})
        return messages.SNAPSHOT_ACCEPT

    def apply(self, number: int, content: bytes) -> tuple[int, bool]:
        """What to answer, and whether the snapshot is taken in whole."""
        if self._arriving is None:
            return messages.CHUNK_ABORT, False
        try:
            if not self._arriving.take(number, content):
                return messages.CHUNK_RETRY, False
            self._left -= 1
            if self._left:
                return messages.CHUNK_ACCEPT, False
            self._arriving.finish(self._note, self._node)
        except CodecError as error:
            log.warning("a snapshot is refused: %s", error)
            self._arriving = None
            self._forget()
            return messages.CHUNK_REJECT_SNAPSHOT, False
        self._arriving = None
        log.info("a state was taken over", extra={"entries": self._store.size()})
        return messages.CHUNK_ACCEPT, True

    def _forget(self) -> None:
        with self._store.writing():
            self._store.drop_unfinished()
