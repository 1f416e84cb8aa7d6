"""`cairn rebuild-index`: a new index from packs, keys and what the content engine keeps.

    (1) the old index is set aside, never overwritten (`bridge.index.aside`, before the node is opened)
    (2) every pack is read; every whole block's position enters the new index
    (3) roots that the engine keeps are read too: their blocks may have left the packs
    (4) of each study, this node's own or another's, the newest root is taken, and every instance whose key is held is
        opened and its rows made again from the sealed metadata: first those that the root names, in its order; blocks
        that lie in no pack are written down as those of a pack that was trimmed, so that a backup has them brought
    (5) the root is named again, as it was, so that its CID stays

Of a study that was erased nothing is made again: its blocks are known as ones that nobody misses.

What lies only in the index does not come back: tokens, sessions, assignments, whose sealed blocks are kept without a
key, and the sealed details of past records (the ledger's entries stay, with their hashes). `cairn backup` keeps these.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, runtime_checkable

from bridge.content import cid as cids
from bridge.content import dag, manifest
from bridge.content.manifest import InstanceBlock, StudyRoot
from bridge.content.pack_format import pack_number, packs_in
from bridge.content.scan import rebuild
from bridge.content.sealed_metadata import inflate
from bridge.dicom import attributes
from bridge.errors import CairnError, ContentCorrupt, ContentMissing, IntegrityError
from bridge.model import AdoptedTree, BlockPosition, Outcome
from bridge.node import Node
from bridge.services.metadata import open_metadata
from bridge.services.provenance import now_us

Report = Callable[[str], None]
_AT_ONCE: Final = 1000


@runtime_checkable
class Keeping(Protocol):
    """A content engine that keeps trees outside of the packs."""

    def pinned(self) -> Collection[bytes]:
        """Every root that it keeps. Raises EngineFault."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A root whose pages can be read: its CID, the pages' CIDs, and the instance blocks that they name, in order."""

    root: bytes
    pages: tuple[bytes, ...] = ()
    links: tuple[bytes, ...] = ()


class Trimmed:
    """(4) The number under which blocks are written down that are in the engine alone: of a pack that is gone.

    It is one below the newest pack's, for the next pack gets the number after that; None when none is free.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        held = {pack_number(path) for path in packs_in(node.settings.home / "packs")}
        self.number = next((number for number in range(max(held, default=0)) if number not in held), None)
        self._end = 0

    def place(self, cid: bytes, length: int) -> BlockPosition | None:
        """Where a block that no pack holds lay, as far as anybody has to know. Raises StorageFault."""
        if self.number is None:
            return None
        if not self._end:
            self._node.index.content_state.trim(self.number, now_us())
        position = BlockPosition(cid, self.number, self._end, length)
        self._end += length + 1  # no two lie in one place, be they empty
        return position


@dataclass(slots=True)
class Study:
    """What was found of one study tag: its roots, the newest of them, and its instance blocks as they were met.

    `foreign`: another node's, or nobody knows. `received` is when its first instance came, in microseconds since the
    epoch; 0 when that cannot be told.
    """

    roots: dict[bytes, StudyRoot] = field(default_factory=dict)
    links: list[bytes] = field(default_factory=list)
    newest: Manifest | None = None
    foreign: bool = True
    received: int = 0


def rebuild_index(node: Node, report: Report) -> dict[str, int]:
    """(2) to (5) Fill an empty index.

    Counts of "blocks" in packs, "instances" placed, "studies" whose root was named again, and of what could not be
    opened: "not_opened" instances. Raises EngineFault when the engine cannot be asked what it keeps.
    """
    kept = sorted(node.content.pinned()) if isinstance(node.content, Keeping) else []
    studies: dict[bytes, Study] = {}
    counts = {"blocks": _read_packs(node, studies, report), "instances": 0, "studies": 0, "not_opened": 0}
    for root in kept:
        _note_root(node, root, studies, report)
    for tag, study in studies.items():
        _complete(node, tag, study)
    trimmed = Trimmed(node)
    # This node's own first: an instance of both is in its tree. Then by arrival, as rows are (bridge.index.overview).
    for tag, study in sorted(studies.items(), key=lambda item: (item[1].foreign, item[1].received)):
        _place_study(node, tag, study, trimmed, counts, report)
    return counts


def _complete(node: Node, tag: bytes, study: Study) -> None:
    """Find the newest root, put what it names before everything else, and learn whose it is and since when."""
    study.newest = newest_manifest(node, study.roots)
    if study.newest is not None:
        named = set(study.newest.links)
        study.links = [*study.newest.links, *(link for link in study.links if link not in named)]
    with contextlib.suppress(CairnError):  # which is told when the instance is placed
        study.foreign = node.keys.origin_of(tag) is not None
        study.received = open_metadata(node.content, node.keys, study.links[0]).received if study.links else 0


def _place_study(
    node: Node, tag: bytes, study: Study, trimmed: Trimmed, counts: dict[str, int], report: Report
) -> None:
    """(4), (5)"""
    try:
        origin, uid = node.keys.origin_of(tag), node.keys.study_of(tag)
    except ContentMissing as error:
        if node.erasures.is_gone(tag):
            report(f"{len(study.links)} instances of a study that was erased stay closed")
            node.index.erasures.let_go(_blocks(node, study))
            return
        report(f"{len(study.links)} instances: {error.detail}")
        counts["not_opened"] += len(study.links)
        return
    for link in study.links:
        try:
            counts["instances"] += _place(node, link, origin, trimmed)
        except CairnError as error:
            counts["not_opened"] += 1
            report(f"{cids.to_text(link)}: {error.detail}")
    if study.newest is not None:
        newest = study.newest
        node.index.add_blocks(list(_positions(node, (newest.root, *newest.pages), trimmed)))
        node.index.adopt(AdoptedTree(uid, origin, tag, newest.root, newest.pages, newest.links)).result()
        counts["studies"] += 1


def _blocks(node: Node, study: Study) -> list[bytes]:
    """The blocks of a study's instances, roots and pages, as far as they are there."""
    found = {cid: None for root, said in study.roots.items() for cid in (root, *said.pages)}
    for link in study.links:
        with contextlib.suppress(CairnError):
            found |= {cid: None for cid, _ in dag.order(link, node.content.get)}
    return list(found)


def _read_packs(node: Node, studies: dict[bytes, Study], report: Report) -> int:
    """(2) The positions of all blocks, and what the manifests' blocks among them are; how many blocks there are."""
    blocks = 0
    for path in packs_in(node.settings.home / "packs"):
        report(f"reading pack {path.name}")
        waiting: list[BlockPosition] = []
        for position in rebuild(path):
            waiting.append(position)
            if len(waiting) == _AT_ONCE:
                blocks += _add(node, waiting, studies)
                waiting = []
        blocks += _add(node, waiting, studies)
    return blocks


def _add(node: Node, positions: list[BlockPosition], studies: dict[bytes, Study]) -> int:
    node.index.add_blocks(positions)
    for cid, *_ in positions:
        if cids.parse(cid).codec != cids.DAG_CBOR:
            continue
        block = _manifest_block(node.content.get(cid))
        if isinstance(block, InstanceBlock):
            studies.setdefault(block.study, Study()).links.append(cid)
        elif block is not None:
            studies.setdefault(block.study, Study()).roots[cid] = block
    return len(positions)


def _manifest_block(data: bytes) -> InstanceBlock | StudyRoot | None:
    """An instance block or a root; None for a page."""
    for decode in (manifest.decode_instance, manifest.decode_root):
        try:
            return decode(data)
        except ContentCorrupt:
            continue
    return None


def _note_root(node: Node, root: bytes, studies: dict[bytes, Study], report: Report) -> None:
    """(3) A root that the engine keeps; what else may be pinned there is nobody's concern here."""
    if cids.parse(root).codec != cids.DAG_CBOR:
        return
    try:
        block = _manifest_block(node.content.get(root))
    except IntegrityError as error:
        report(f"{cids.to_text(root)} is pinned: {error.detail}")
        return
    if isinstance(block, StudyRoot):
        studies.setdefault(block.study, Study()).roots[root] = block


def newest_manifest(node: Node, roots: Mapping[bytes, StudyRoot]) -> Manifest | None:
    """(4) The last of a study's states whose pages can be read: one that no other follows, and that names the most."""
    former = {root.previous for root in roots.values()}
    for group in ([cid for cid in roots if cid not in former], [cid for cid in roots if cid in former]):
        read = [found for cid in group if (found := _read_manifest(node, cid, roots[cid])) is not None]
        if read:
            return max(read, key=lambda found: len(found.links))
    return None


def _read_manifest(node: Node, cid: bytes, root: StudyRoot) -> Manifest | None:
    try:
        links = [link for page in root.pages for link in manifest.decode_page(node.content.get(page))]
    except IntegrityError:
        return None
    return Manifest(cid, root.pages, tuple(links))


def _place(node: Node, link: bytes, origin: bytes | None, trimmed: Trimmed) -> bool:
    """(4) Place one instance; whether it was not there yet. Of two copies of the same bytes the whole one stays."""
    block = manifest.decode_instance(node.content.get(link))
    metadata = open_metadata(node.content, node.keys, link)
    found = attributes.extract(json.loads(inflate(metadata.json)))
    add = partial(node.index.add_instance, metadata, block, link, found)
    below = (cid for cid, _ in dag.order(link, node.content.get))
    blocks = tuple(_positions(node, below, trimmed))
    row, outcome = add(origin=origin, blocks=blocks)
    if outcome is Outcome.AGAIN and not _is_whole(node, row):
        add(origin=origin, blocks=blocks, replace=True)
    return outcome is not Outcome.AGAIN


def _positions(node: Node, blocks: Iterable[bytes], trimmed: Trimmed) -> Iterator[BlockPosition]:
    """Where blocks lie: in packs, or in the engine alone."""
    for cid in blocks:
        position = node.index.locate_block(cid) or trimmed.place(cid, len(node.content.get(cid)))
        if position is not None:
            yield position


def _is_whole(node: Node, row: int) -> bool:
    try:
        node.retrieve.verify(node.index.instance(row))
    except IntegrityError:
        return False
    return True
