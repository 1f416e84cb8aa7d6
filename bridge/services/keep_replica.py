"""A member's study kept for it without its key: fetched, verified, pinned. Nothing of it can be opened or found here.

    (1) what of the tree is not at hand is fetched: all at once, or block by block where part of it is held; of a tree
        that was lost nothing counts as held that cannot be read
    (2) its manifest, strictly: of the study tag that was assigned, with every block below it
    (3) the blocks put, synced and indexed; then those of the manifest, so that no pack ever names unknown instances
    (4) ONE transaction: the tree, its root and pages
    (5) the root pinned, and the former one let go

Nothing is written before (3) but a file of what came, so that what broke off goes on and what is
refused leaves nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bridge.content.car_transfer import Kept, keep
from bridge.content.incoming import Delivered, Incoming, Source
from bridge.errors import CarInvalid, RequestError
from bridge.model import Adopted, AdoptedTree, BlockPosition, Tree
from bridge.ports import ContentStore
from bridge.services.received_study import Received, read_manifest

__all__ = ["Asked", "Holder", "keep_replica"]

_BESIDE: Final = 4 << 20
"""Bytes of a manifest and of a CAR's framing that an announced size may leave out, besides an eighth of it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who keeps: where its content and index are.

    `take` is step (4) at the index; `tree` looks a study tag's tree up; `index_blocks` tells the index where blocks
    lie; `require_room` raises StorageFull when the disk does not take so many bytes; `incoming` is the directory of
    what is on its way.
    """

    content: ContentStore
    take: Callable[[AdoptedTree, Sequence[BlockPosition]], Future[Adopted]]
    tree: Callable[[bytes], Tree | None]
    index_blocks: Callable[[Sequence[BlockPosition]], None]
    require_room: Callable[[int], None]
    incoming: Path


class Asked(NamedTuple):
    """What is to be kept: study tag, root, the bytes that its blocks have, the root that is kept now (None: none)."""

    tag: bytes
    root: bytes
    octets: int
    former: bytes | None = None


def keep_replica(holder: Holder, origin: Source, asked: Asked) -> Kept:
    """(1) to (5): how many blocks came, their bytes, how many were new here.

    Raises RequestError when the tag is that of a study of this node's own, CarInvalid for what is no manifest of this
    study or more than announced, ContentMissing when the origin does not give it, EngineFault when it does not answer
    or the content engine is not there, StorageFull, StorageFault, Busy.
    """
    held = holder.tree(asked.tag)
    if held is not None and held.origin is None:
        raise RequestError("the study tag is that of a study of this node's own")
    directory = holder.incoming / asked.tag.hex()
    most = asked.octets + asked.octets // 8 + _BESIDE
    try:
        with Incoming(directory, asked.root, holder.content, most, holder.require_room) as incoming:
            begun = held is not None and held.root is not None
            incoming.fetch(origin, partly_held=begun, doubted=begun and asked.former is None)  # (1)
            source = Delivered(incoming.file, asked.root, holder.content)
            received = read_manifest(source)  # (2)
            if received.tag != asked.tag:
                raise CarInvalid("the tree is of another study than was assigned")
            kept, put = _put(holder, source, received)  # (3)
    except CarInvalid:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    tree = AdoptedTree(None, b"", received.tag, received.root, received.pages, received.links)
    holder.take(tree, put).result()  # (4)
    shutil.rmtree(directory, ignore_errors=True)
    holder.content.pin(asked.root, asked.former if asked.former != asked.root else None)  # (5)
    return kept


def _put(holder: Holder, source: Delivered, received: Received) -> tuple[Kept, list[BlockPosition]]:
    """(3) The blocks that came; where those of the manifest lie, which are not indexed yet."""
    top = {received.root, *received.pages}
    put: list[BlockPosition] = []
    come = [cid for cid in source.order() if source.has(cid)]
    below = keep(holder.content, source, holder.index_blocks, (cid for cid in come if cid not in top))
    above = keep(holder.content, source, put.extend, [cid for cid in come if cid in top])
    return Kept(below.blocks + above.blocks, below.size + above.size, below.new + above.new), put
