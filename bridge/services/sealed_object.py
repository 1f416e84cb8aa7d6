"""One sealed object as blocks: plaintext -> 1 MiB ciphertext segments -> UnixFS leaves and nodes, and back by range.

A segment is a leaf, so opening any part of an object costs the dag-pb nodes above it and the segments it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import Protocol

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.crypto import sealing
from bridge.model import Block, BlockPosition, SealedObject
from bridge.ports import ContentStore

PUT_AT_ONCE = 4 << 20


class BlockSink:
    """Blocks on their way to the store, put a few megabytes at a time: one write for a usual instance."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content
        self._waiting: list[Block] = []
        self._size = 0
        self.positions: list[BlockPosition] = []

    def add(self, block: Block) -> None:
        """Take a block, writing when enough has gathered. Raises StorageFull, StorageFault."""
        self._waiting.append(block)
        self._size += len(block.data)
        if self._size >= PUT_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Put what waits. Raises StorageFull, StorageFault."""
        if self._waiting:
            self.positions += self._content.put(self._waiting)
            self._waiting, self._size = [], 0


class SealedObjectWriter:
    """Seals one plaintext stream into blocks of a sink."""

    def __init__(self, sink: BlockSink, key: bytes, associated_data: bytes, hash_name: cids.HashName) -> None:
        self._sink = sink
        self._sealer = sealing.Sealer(key, associated_data)
        self._tree = unixfs.TreeBuilder(hash_name)
        self._length = 0

    def write(self, data: bytes) -> None:
        """The next plaintext bytes."""
        self._length += len(data)
        for segment in self._sealer.update(data):
            self._leaf(segment)

    def finish(self) -> SealedObject:
        """Seal the last segment; the object's root, stream header and plaintext length."""
        self._leaf(self._sealer.finalize())
        root, blocks = self._tree.finish()
        for block in blocks:
            self._sink.add(block)
        return SealedObject(root, self._sealer.header, self._length)

    def _leaf(self, segment: bytes | bytearray) -> None:
        for block in self._tree.leaf(segment):
            self._sink.add(block)


class Blocks(Protocol):
    """Where blocks are read from: a content store, or a file that holds a whole tree."""

    def get(self, cid: bytes) -> bytes:
        """The block, verified against its CID. Raises IntegrityError."""


class SealedObjectReader:
    """Opens ranges of one sealed object; every block is verified against its CID, every segment by its tag.

    `nodes` fetches the dag-pb nodes above the leaves, when the caller keeps verified ones; `each` the leaves of a range
    in order, when the store can read ahead. The segment opened last is kept, for frames that share one. Used by one
    thread.
    """

    def __init__(
        self,
        content: Blocks,
        sealed: SealedObject,
        key: bytes,
        associated_data: bytes,
        nodes: Callable[[bytes], bytes] | None = None,
        each: Callable[[Iterable[bytes]], Iterator[bytes]] | None = None,
    ) -> None:
        self._nodes = nodes or content.get
        self._each = each or (lambda cids: map(content.get, cids))
        self._sealed = sealed
        self._opener = sealing.Opener(key, sealed.header, associated_data, sealed.length)
        self._last = -1, b""

    def read(self, offset: int, length: int) -> bytes:
        """`length` plaintext bytes from `offset`. Raises ContentMissing, ContentCorrupt; ValueError beyond the end."""
        return b"".join(self.chunks(offset, length))

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The same in pieces of at most a segment, with the memory of one."""
        wanted = self._sealed.length - offset if length is None else length
        slices = sealing.segment_range(offset, wanted, self._sealed.length)
        if not slices:
            return
        size = sealing.ciphertext_length(self._sealed.length)
        start, stop = (number * unixfs.LEAF_SIZE for number in (slices[0].number, slices[-1].number + 1))
        leaves, ahead = tee(unixfs.leaves(self._sealed.root, self._nodes, size, start, stop))
        kept, segment = self._last
        fetched = self._each(leaf.cid for leaf in ahead if leaf.number != kept)
        for part, leaf in zip(slices, leaves, strict=True):
            plain = segment if leaf.number == kept else self._opener.open(leaf.number, next(fetched))
            self._last = leaf.number, plain
            whole = part.start == 0 and part.stop == len(plain)
            yield plain if whole else plain[part.start : part.stop]
