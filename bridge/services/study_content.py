"""Where a study lies: its trees of blocks, counted by walking them; leaves are looked up, never read.

(1) the study's trees, and of each root and pages                                          Index, ContentStore
(2) instance blocks, some hundred at a time, and the file nodes of objects of many leaves
(3) where each block lies, and how long it is                                              Index
(4) pins, copies, faults, as the content process last wrote them down: no engine is asked anything
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from bridge.content import cid as cids
from bridge.content import manifest, unixfs
from bridge.errors import CairnError, NotFound
from bridge.model import (
    BLOCK_KINDS,
    BlockCount,
    BlockPosition,
    ManifestInstance,
    ManifestPage,
    PackShare,
    StudyContent,
    Tree,
    TreeContent,
)
from bridge.services.archive import ArchiveIndex

__all__ = ["study_content", "survey"]

Get = Callable[[bytes], bytes]
Place = Callable[[Iterable[bytes]], Mapping[bytes, BlockPosition]]
T = TypeVar("T")
_AT_ONCE: Final = 200
_TOLD: Final = 8
"""Instances of each page that are told one by one: the first, and in the last place that of most leaves."""


def study_content(index: ArchiveIndex, get: Get, engine: str, study: str, most: int | None = None) -> StudyContent:
    """The content of a study; at most `most` instances of each of its trees are looked at (None: all).

    Raises NotFound when it is not held, StorageFault. A block that cannot be read is counted as such.
    """
    trees = index.trees.of_study(study)
    if not trees:
        raise NotFound("no such study is held")
    trimmed = index.content_state.trimmed()

    found = []
    for tree in trees:
        walk = survey(tree, get, index.positions_of, most)
        shares = sorted(walk.packs.items())
        packs = tuple(PackShare(number, blocks, octets, number in trimmed) for number, (blocks, octets) in shares)
        pin = index.pins.of(tree.root) if tree.root is not None else None
        found.append(
            TreeContent(
                tree,
                {kind: BlockCount(*walk.kinds[kind]) for kind in BLOCK_KINDS},
                tuple(walk.pages),
                packs,
                walk.instances,
                walk.unread,
                *((pin.pinned, pin.verified, pin.replicas, pin.wanted) if pin else ()),
            )
        )
    faults = tuple(fault.reason for fault in index.content_state.faults())
    return StudyContent(study, engine, faults, tuple(found))


class _Survey:
    """What a walk has counted so far."""

    def __init__(self, get: Get, place: Place) -> None:
        self._get, self._place = get, place
        self._placed: dict[bytes, BlockPosition] = {}
        self.kinds: dict[str, list[int]] = {kind: [0, 0] for kind in BLOCK_KINDS}
        self.packs: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.pages: list[ManifestPage] = []
        self.instances = self.unread = 0

    def look_up(self, blocks: Iterable[bytes]) -> None:
        """(3) Have these positions at hand, and no others."""
        self._placed = dict(self._place(blocks))

    def count(self, kind: str, cid: bytes) -> int:
        """Count a block of a kind that was looked up; the bytes in it."""
        position = self._placed.get(cid)
        if position is None:
            self.unread += 1
            return 0
        for tally in (self.kinds[kind], self.packs[position.pack]):
            tally[0] += 1
            tally[1] += position.length
        return position.length

    def read(self, cid: bytes, decode: Callable[[bytes], T]) -> T | None:
        """What a block with links says; None when it cannot be had, or is none of ours."""
        try:
            return decode(self._get(cid))
        except (CairnError, ValueError):
            self.unread += 1
            return None


def survey(tree: Tree, get: Get, place: Place, most: int | None = None) -> _Survey:
    """(1) to (3): the blocks of a tree by kind and pack, its pages, some instances of each.

    `get` gives a verified block and `place` the positions of many. Raises StorageFault.
    """
    walk = _Survey(get, place)
    if tree.root is None:
        return walk
    walk.look_up([tree.root])
    walk.count("root", tree.root)
    root = walk.read(tree.root, manifest.decode_root)
    for page in root.pages if root else ():
        walk.look_up([page])
        walk.count("page", page)
        links = walk.read(page, manifest.decode_page) or ()
        some: list[ManifestInstance] = []
        for at in range(0, len(links), _AT_ONCE):
            if most is not None and walk.instances >= most:
                break
            told = _instances(walk, links[at : at + _AT_ONCE])
            some += told[: _TOLD - len(some)]
            largest = max([*some[-1:], *told], key=lambda one: one.leaves, default=None)
            if largest is not None and largest not in some and largest.leaves > 1:
                some[-1] = largest
        walk.pages.append(ManifestPage(page, len(links), tuple(some)))
    return walk


def _instances(walk: _Survey, links: Sequence[bytes]) -> list[ManifestInstance]:
    """(2) Instances with their sealed objects and metadata."""
    walk.look_up(links)
    sizes = {link: walk.count("instance", link) for link in links}
    blocks = {link: block for link in links if (block := walk.read(link, manifest.decode_instance)) is not None}
    walk.instances += len(links)
    walk.look_up([cid for block in blocks.values() for cid in (block.object, block.metadata)])
    large: dict[bytes, str] = {}
    leaves = dict.fromkeys(blocks, 1)
    for link, block in blocks.items():
        for cid, kind in ((block.object, "leaf"), (block.metadata, "metadata")):
            raw = cids.parse(cid).codec == cids.RAW
            sizes[link] += walk.count(kind if raw or kind == "metadata" else "node", cid)
            if not raw:
                large[cid] = kind
    for link, block in blocks.items():
        for cid in (block.object, block.metadata):
            if cid in large:
                count, octets = _file(walk, cid, large[cid])
                sizes[link] += octets
                leaves[link] = count if large[cid] == "leaf" else leaves[link]
    return [ManifestInstance(link, block.object, leaves[link], sizes[link]) for link, block in blocks.items()]


def _file(walk: _Survey, root: bytes, kind: str) -> tuple[int, int]:
    """(2) What lies below the node of a file of many leaves: how many leaves, and the bytes of all."""
    found = octets = 0
    nodes = [root]
    while nodes:
        node = walk.read(nodes.pop(), unixfs.decode_node) or ()
        below = [child.cid for child in node]
        walk.look_up(below)
        for cid in below:
            raw = cids.parse(cid).codec == cids.RAW
            octets += walk.count(kind if raw or kind == "metadata" else "node", cid)
            found += raw
            if not raw:
                nodes.append(cid)
    return found, octets
