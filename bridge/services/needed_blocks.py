"""Which blocks a tree still needs: all but the former pages and roots that newer ones have taken the place of.

Their rows stay, so that every byte of a pack belongs to something; but whoever lost one has lost nothing.
"""

from __future__ import annotations

import contextlib

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.errors import CairnError
from bridge.model import BlockPosition
from bridge.services.archive import Archive

__all__ = ["Needed"]


class Needed:
    """Whether blocks are missed when they go. Of one moment: what is learnt of adopted trees is kept."""

    def __init__(self, node: Archive) -> None:
        self._node = node
        self._adopted: set[bytes] | None = None

    def pack(self, number: int) -> bool:
        """Whether any block that the index knows in a pack is. Raises StorageFault."""
        return any(owned or self._is_needed(cid) for cid, owned in self._node.index.keeping.blocks(number))

    def position(self, place: BlockPosition) -> bool:
        """Whether the block at a place is; bytes that belong to no known block are. Raises StorageFault."""
        if not place.cid or cids.parse(place.cid).codec != cids.DAG_CBOR:
            return True
        return (place.cid, False) not in self._node.index.keeping.blocks(place.pack) or self._is_needed(place.cid)

    def _is_needed(self, cid: bytes) -> bool:
        """Of a block that is no instance's own: one of file content, a tree's root or page, or what they name.

        Reads the pages of all trees that came from other nodes, the first time it comes to that. Raises StorageFault.
        """
        if cids.parse(cid).codec != cids.DAG_CBOR or self._node.index.keeping.names(cid):
            return True
        if self._adopted is None:
            self._adopted = self._links_of_adopted()
        return cid in self._adopted

    def _links_of_adopted(self) -> set[bytes]:
        """The instance blocks of trees that may have no rows of their own in the table of instances."""
        links: set[bytes] = set()
        for tree in self._node.index.trees.every():
            if tree.origin is None:
                continue
            for page in self._node.index.study_tree(tree.tag).pages:
                with contextlib.suppress(CairnError):  # a page that cannot be read is told with its tree
                    links.update(manifest.decode_page(self._node.content.get(page)))
        return links
