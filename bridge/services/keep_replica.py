"""A member's study kept for it without its key: fetched, verified, pinned. Nothing of it can be opened or found here.

    (1) what of the tree is not at hand is fetched: its CAR, or block by block where an earlier state of it is held
    (2) its manifest, strictly: of the study tag that was assigned, with every block below it
    (3) the blocks put, synced and indexed; then those of the manifest, so that no pack ever names unknown instances
    (4) ONE transaction: the tree, its root and pages
    (5) the root pinned, and the former one let go

Nothing is written before (3) but a temporary file, so that what is refused leaves nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.car_transfer import Car, Kept, Source, keep
from bridge.content.gateway_client import at_hand_only
from bridge.errors import CarInvalid, ContentCorrupt, ContentMissing, IntegrityError, RequestError
from bridge.model import Adopted, AdoptedTree, BlockPosition, Tree
from bridge.ports import ContentStore
from bridge.services.received_study import Received, read_manifest

__all__ = ["Asked", "Holder", "Origin", "keep_replica"]

_BESIDE: Final = 4 << 20
"""Bytes of a manifest and of a CAR's framing that an announced size may leave out, besides an eighth of it."""


class Origin(Protocol):
    """The member whose study it is, as `bridge.content.gateway_client.GatewayClient`."""

    def __call__(self, cid: bytes) -> bytes:
        """One verified block. Raises ContentMissing, ContentCorrupt, EngineFault."""

    def tree(self, root: bytes, file: BinaryIO, most: int) -> int:
        """Write the CAR of a tree. Raises ContentMissing, CarInvalid, EngineFault, OSError."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps: where its content and index are.

    `take` is step (4) at the index; `tree` looks a study tag's tree up; `index_blocks` tells the index where blocks
    lie; `require_room` raises StorageFull when the disk does not take so many bytes; `scratch` is where a temporary
    file goes.
    """

    content: ContentStore
    take: Callable[[AdoptedTree, Sequence[BlockPosition]], Future[Adopted]]
    tree: Callable[[bytes], Tree | None]
    index_blocks: Callable[[Sequence[BlockPosition]], None]
    require_room: Callable[[int], None]
    scratch: Path


class Asked(NamedTuple):
    """What is to be kept: study tag, root, the bytes that its blocks have, the root that is kept now (None: none)."""

    tag: bytes
    root: bytes
    octets: int
    former: bytes | None = None


def keep_replica(holder: Holder, origin: Origin, asked: Asked) -> Kept:
    """(1) to (5): how many blocks the tree has, their bytes, how many were new here.

    Raises RequestError when the tag is that of a study of this node's own, CarInvalid for what is no manifest of this
    study or more than announced, ContentMissing when the origin does not give it, EngineFault when it does not answer
    or the content engine is not there, StorageFull, StorageFault, Busy.
    """
    held = holder.tree(asked.tag)
    if held is not None and held.origin is None:
        raise RequestError("the study tag is that of a study of this node's own")
    most = asked.octets + asked.octets // 8 + _BESIDE
    holder.require_room(2 * asked.octets if held is None else asked.octets)
    with tempfile.TemporaryFile(dir=holder.scratch) as file:
        source: Source
        if held is None or held.root is None:
            origin.tree(asked.root, file, most)  # (1)
            source = Car(file, asked.root)
        else:
            source = _Gathered(asked.root, holder.content, origin, file, most)
        received = read_manifest(source)  # (2)
        if received.tag != asked.tag:
            raise CarInvalid("the tree is of another study than was assigned")
        kept, put = _put(holder, source, received)  # (3)
    tree = AdoptedTree(None, b"", received.tag, received.root, received.pages, received.links)
    holder.take(tree, put).result()  # (4)
    holder.content.pin(asked.root, asked.former if asked.former != asked.root else None)  # (5)
    return kept


def _put(holder: Holder, source: Source, received: Received) -> tuple[Kept, list[BlockPosition]]:
    """(3) All blocks; where those of the manifest lie, which are not indexed yet."""
    top = {received.root, *received.pages}
    put: list[BlockPosition] = []
    below = keep(holder.content, source, holder.index_blocks, (cid for cid in source.order() if cid not in top))
    above = keep(holder.content, source, put.extend, [cid for cid in source.order() if cid in top])
    return Kept(below.blocks + above.blocks, below.size + above.size, below.new + above.new), put


class _Gathered:
    """(1) A tree of which part is at hand: what is missing is fetched block by block, into a file."""

    def __init__(self, root: bytes, content: ContentStore, origin: Origin, file: BinaryIO, most: int) -> None:
        self.root = root
        self._content = content
        self._origin = origin
        self._file = file
        self._left = most
        self._places: dict[bytes, tuple[int, int]] = {}
        for cid, data in dag.order(root, self.get):
            if data is None and not content.has(cid):
                self.get(cid)

    def order(self) -> Iterator[bytes]:
        """The CIDs of the tree, depth first, each once."""
        return (cid for cid, _ in dag.order(self.root, self.get))

    def length(self, cid: bytes) -> int:
        """How many bytes a block has."""
        return len(self.get(cid))

    def get(self, cid: bytes) -> bytes:
        """The block, verified: of the file, of what is at hand, else of its origin."""
        if cid in self._places:
            offset, length = self._places[cid]
            self._file.seek(offset)
            return self._file.read(length)
        if self._content.has(cid):
            try:
                with at_hand_only():
                    return self._content.get(cid)
            except (ContentMissing, ContentCorrupt):
                pass  # damaged here: it is fetched, and so mended
        try:
            data = self._origin(cid)
        except IntegrityError as error:
            raise ContentMissing(f"block {cids.to_text(cid)} is not to be had: {error.detail}") from None
        self._left -= len(data)
        if self._left < 0:
            raise CarInvalid("the tree has more bytes than were announced")
        self._places[cid] = (self._file.seek(0, 2), len(data))
        self._file.write(data)
        return data
