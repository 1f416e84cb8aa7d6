"""Pages and roots of a study made again from the index: a further source for blocks that no copy has whole.

The index has the links of a tree's instances in order, so that whoever lost a page has lost nothing. What is made is
taken only when it hashes to the CID that is wanted: it is the block, or it is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, cast

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.copies import Copy
from bridge.content.tree_read import reading
from bridge.errors import IntegrityError
from bridge.model import Block, Tree
from bridge.services.archive import Archive

__all__ = ["pages_of", "root_of", "source"]

Get = Callable[[bytes], bytes]


class Refetching(Protocol):
    """An engine that has peers, as `bridge.services.keep_content.ContentEngine`."""

    @property
    def copy(self) -> Copy: ...

    def refetch(self, cid: bytes) -> None:
        """Have a block that it lost or damaged from a peer. Raises ContentMissing, ContentCorrupt, EngineFault."""


def source(node: Archive, tree: Tree) -> Get:
    """What gives a block of a tree from anywhere: the content store, then the index, then the peers of the engine.

    It raises as the store does when the index cannot make the block, and the engine has no peer to get it from.
    """
    engine = cast(Refetching, node.content) if hasattr(node.content, "refetch") else None

    def get(cid: bytes) -> bytes:
        try:
            with reading(tree.tag):
                return node.content.get(cid)
        except IntegrityError:
            if cids.parse(cid).codec == cids.DAG_CBOR:
                for block in _made(node, tree, cid):
                    if block.cid == cid:
                        return bytes(block.data)
            if engine is None:
                raise
            engine.refetch(cid)  # of what lies damaged in it, it asks nobody unless told to
            return engine.copy.read(cid)

    return get


def _made(node: Archive, tree: Tree, cid: bytes) -> Iterator[Block]:
    held = node.index.study_tree(tree.tag)
    if cid in held.pages:
        yield from pages_of(held.pages, held.instances)
    elif cid == held.root:
        yield from root_of(cid, tree.tag, held.pages, node.index.scrub.former_roots(tree.tag))


def pages_of(pages: Iterable[bytes], instances: tuple[bytes, ...]) -> Iterator[Block]:
    """Those of the pages that name the instances in order, a thousand each but the last."""
    for number, page in enumerate(pages):
        data = manifest.encode_page(instances[number * manifest.PAGE_LINKS : (number + 1) * manifest.PAGE_LINKS])
        if cids.verify(page, data):
            yield Block(page, data)


def root_of(root: bytes, tag: bytes, pages: tuple[bytes, ...], former: Iterable[bytes]) -> Iterator[Block]:
    """The root over these pages, if it followed one of the former roots or none."""
    for previous in (None, *former):
        data = manifest.encode_root(manifest.StudyRoot(tag, pages, previous))
        if cids.verify(root, data):
            yield Block(root, data)
            return
