"""`cairn fsck`: everything that was acknowledged is there, whole, and can be opened. Names the place of what is not.

(1) the index database is sound
(2) every pack is read from end to end; every block the index names hashes to its CID
(3) every block that a tree needs lies in a pack that exists, or that was trimmed when the content engine had its blocks
(4) every instance: its key is held, its sealed metadata opens and says what the index says
(5) every batch: its records give the root that was closed
(6) every page of a study's manifest: the index knows the instances it names
(7) every tree: its root and pages can be read and name what the index says
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.pack_format import pack_number, packs_in, write_header
from bridge.content.scan import scan
from bridge.content.sealed_metadata import SealedMetadata, inflate
from bridge.errors import CairnError, ContentCorrupt, IntegrityError, StorageFault
from bridge.model import BlockPosition, StoredInstance
from bridge.node import COMMAND, Node
from bridge.services.metadata import open_metadata
from bridge.services.needed_blocks import Needed
from ledger import merkle

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not hold: where, and what."""

    place: str
    what: str


def fsck(node: Node, report: Report, *, repair: bool = False) -> list[Finding]:
    """Every finding, in the order of the recipe.

    `repair` flags damaged instances, so that a re-send heals them, writes a pack's damaged header anew, and lets go of
    damaged pages and roots that newer ones have taken the place of, and of bytes that belong to nothing.
    """
    findings: list[Finding] = []
    for title, check in (
        ("index", _index),
        ("packs", lambda n: _packs(n, report, repair)),
        ("instances", lambda n: _instances(n, repair)),
        ("records", _records),
        ("trees", _trees),
    ):
        report(f"checking {title}")
        for finding in check(node):
            report(f"{finding.place}: {finding.what}")
            findings.append(finding)
    return findings


def _index(node: Node) -> Iterator[Finding]:
    """(1)"""
    for problem in node.index.check():
        yield Finding("index.db", problem)


def _packs(node: Node, report: Report, repair: bool) -> Iterator[Finding]:
    """(2), (3)"""
    needed, known = Needed(node), Known(node)
    present = node.index.content_state.trimmed()
    for path in packs_in(node.settings.home / "packs"):
        present.add(pack_number(path))
        report(f"reading pack {path.name} ({path.stat().st_size >> 20} MiB)")
        try:
            yield from _pack(node, path, needed, known, repair)
        except StorageFault as error:
            yield Finding(f"pack {path.name}", f"it cannot be read: {error.detail}")
    for number in node.index.packs():
        if number not in present and needed.pack(number):
            yield Finding(f"pack {number:08d}.car", "is named by the index and does not exist")


def _pack(node: Node, path: Path, needed: Needed, known: Known, repair: bool) -> Iterator[Finding]:
    """(2) What does not read well in one pack. Raises StorageFault when it cannot be read."""
    number = pack_number(path)
    superseded, useless = node.index.superseded(number), node.index.scrub.useless(number)
    for position, whole in scan(path, node.index.positions(number)):
        if whole:
            yield from _page(known, path, position)
        elif not (
            position[2:] in useless
            or position.offset in superseded | _replaced(node, position)
            or _being_written(node, position)
        ):
            what, mend = _damage(node, path, position, needed)
            yield Finding(f"pack {path.name} at byte {position.offset}", what)
            if repair:
                mend()


def _damage(node: Node, path: Path, position: BlockPosition, needed: Needed) -> tuple[str, Callable[[], object]]:
    """What is damaged, and what `repair` does about it in the pack: nothing, when something needs the block."""
    size = f"damaged ({position.length} bytes)"
    if position.offset == 0:
        return f"its header is {size}", partial(_write_header, path)
    if not position.cid or position.cid not in node.index.positions_of([position.cid]):
        # An image that only its sender knows may have lain there: that it is gone is said once, by whoever repairs.
        return f"bytes that belong to no block that the index knows {size}", partial(
            node.index.scrub.note_useless, position
        )
    block = f"block {cids.to_text(position.cid)} {size}"
    if needed.position(position):
        return block, lambda: None
    return f"{block}; a page or root that no study needs any more", partial(node.index.scrub.let_go, position)


def _write_header(path: Path) -> None:
    try:
        write_header(path)
    except OSError as error:
        raise StorageFault(f"its header cannot be written: {os.strerror(error.errno or 0)}") from error


def _replaced(node: Node, position: BlockPosition) -> set[int]:
    """The offset, when the index names another place of the block: damage here loses nothing, that one is read too."""
    known = node.index.positions_of([position.cid]).get(position.cid) if position.cid else None
    return set() if known is None or known[1:3] == position[1:3] else {position.offset}


def _being_written(node: Node, position: BlockPosition) -> bool:
    """Whether what does not read well is the end of a pack that a running node is writing to just now."""
    return node.owner != COMMAND and position.offset >= node.index.committed_end(position.pack)


class Known:
    """Which instance blocks the index knows: by its table of blocks, or by its instances, once their packs are gone."""

    def __init__(self, node: Node) -> None:
        self._index = node.index
        self._links: set[bytes] | None = None

    def has(self, link: bytes) -> bool:
        """Whether the index knows the instance block, or has forgotten it with a share that ended.

        Reads all instances the first time that a block is not there.
        """
        if self._index.locate_block(link) is not None or self._index.shares.was_forgotten(link):
            return True
        if self._links is None:
            self._links = {link for _, link in self._index.instances()}
        return link in self._links


def _page(known: Known, path: Path, position: BlockPosition) -> Iterator[Finding]:
    """(6) A page names committed instances only, so the index must know each."""
    if cids.parse(position.cid).codec != cids.DAG_CBOR:
        return
    with path.open("rb") as pack:
        pack.seek(position.offset)
        data = pack.read(position.length)
    try:
        links = manifest.decode_page(data)
    except ContentCorrupt:
        return  # an instance block or a root
    lost = sum(not known.has(link) for link in links)
    if lost:
        place = f"page {cids.to_text(position.cid)} in pack {path.name}"
        yield Finding(place, f"the index does not know {lost} of its {len(links)} instances; run cairn rebuild-index")


def _instances(node: Node, repair: bool) -> Iterator[Finding]:
    """(4)"""
    for instance, link in node.index.instances():
        place = f"instance {instance.key.sop}"
        try:
            wrong = _differences(node, instance, open_metadata(node.content, node.keys, link))
            if wrong:
                yield Finding(place, f"the index says otherwise than its sealed metadata: {', '.join(wrong)}")
            node.retrieve.verify(instance)
        except CairnError as error:
            yield Finding(place, error.detail)
            if repair and isinstance(error, IntegrityError):  # an engine that does not answer has lost nothing
                node.index.mark_damaged(instance)


def _differences(node: Node, instance: StoredInstance, metadata: SealedMetadata) -> list[str]:
    """What the index's row says differently."""
    pairs = {
        "UIDs": (tuple(instance.key), (metadata.study, metadata.series, metadata.sop)),
        "SOP Class": (instance.sop_class, metadata.sop_class),
        "transfer syntax": (instance.transfer_syntax, metadata.transfer_syntax),
        "digest": (instance.digest, metadata.digest),
        "frames": (instance.frames, metadata.frames),
        "bulk values": (instance.bulk, metadata.bulk),
        "data set": (instance.data_set, metadata.data_set),
        "object": ((instance.object.header, instance.object.length), (metadata.header, metadata.length)),
        "JSON": (node.index.json(instance), inflate(metadata.json)),
    }
    return [name for name, (here, sealed) in pairs.items() if here != sealed]


def _records(node: Node) -> Iterator[Finding]:
    """(5)"""
    for batch, root, leaves in node.index.closed_records():
        if merkle.root(leaves) != root:
            yield Finding(f"batch {batch}", "its records do not give the root that was closed")


def _trees(node: Node) -> Iterator[Finding]:
    """(7) A tree adopted from another node may name instances that are held in another tree too."""
    for tree in node.index.trees.every():
        if tree.root is None:
            continue
        place = f"tree of study {tree.tag.hex()}"
        try:
            held = node.index.study_tree(tree.tag)
            root = manifest.decode_root(node.content.get(held.root or tree.root))
            named = [link for page in held.pages for link in manifest.decode_page(node.content.get(page))]
        except CairnError as error:
            yield Finding(place, error.detail)
            continue
        # A healed instance's page, and those behind it, are made anew when its batch closes.
        same_pages = root.study == tree.tag and root.pages[: len(held.pages)] == held.pages
        if not same_pages or len(named) != held.covered:
            yield Finding(place, "its root names other pages than the index")
        elif held.own and tuple(named) != held.instances[: held.covered]:
            yield Finding(place, "its pages name other instances than the index")
