"""Which members are likely to have a block: those that keep the study that it is of, or whose study it is, and who
else keeps what is kept here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.content.tree_read import tree_read
from bridge.index.grants import Grants
from bridge.index.index import SqlIndex
from bridge.member_sources import Likely
from bridge.model import Tree

__all__ = ["ReplicaPlaces"]


class ReplicaPlaces:
    """Looks members up by block. Thread-safe; may raise StorageFault."""

    def __init__(self, index: SqlIndex) -> None:
        self._index = index
        self._grants = Grants(index.database)

    def likely(self, cid: bytes) -> Sequence[Likely]:
        """The members that keep the study of a block, or have it kept here, those with receipts first."""
        return [likely for tree in self._trees(cid) for likely in self._of(tree)]

    def _trees(self, cid: bytes) -> Sequence[Tree]:
        """The trees that the block may be of: of an instance's, those of its study; of a root, its own.

        Of any other block, the one that this thread says it is reading.
        """
        of = self._grants.tree_of_block(cid)
        if of is not None:
            return self._index.trees.of_study(of[0])
        tree, tag = self._index.trees.by_root(cid), tree_read()
        if tree is None and tag is not None:
            tree = self._index.trees.by_tag(tag)
        return [tree] if tree is not None else []

    def _of(self, tree: Tree) -> Iterator[Likely]:
        if tree.root is None:
            return
        held = self._index.replicas_out.held(tree.tag)
        for row in sorted(held, key=lambda row: row.kept != tree.root):
            if row.kept is not None:
                yield Likely(row.node, row.kept)
        for kept in self._index.replicas_in.of_tag(tree.tag):
            yield Likely(kept.node, kept.root)
            for beside in self._index.replicas_beside.of_tree(kept.node, kept.tag):
                if beside.kept:
                    yield Likely(beside.holder, kept.root)
