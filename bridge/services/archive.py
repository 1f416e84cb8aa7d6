"""What the checks of stored content ask of a node, as Protocols: `bridge.node.Node` is one.

Every method may raise StorageFault; those that write, as `bridge.ports.Index.commit`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from bridge.config import Settings
from bridge.content.packs import PackStore
from bridge.content.pins import Pin
from bridge.model import BlockPosition, StudyTree, Tree
from bridge.ports import ContentStore
from bridge.services.access import Access

__all__ = ["Archive", "ArchiveIndex"]


class Trees(Protocol):
    def every(self) -> Iterator[Tree]:
        """All trees by ascending id."""

    def by_id(self, row: int) -> Tree | None:
        """The tree of a row."""

    def of_study(self, study: str) -> Sequence[Tree]:
        """The trees of a study, this node's own first; none when it is not held."""


class Pins(Protocol):
    def of(self, root: bytes) -> Pin | None:
        """The pin of a root, if it is kept."""

    def of_tree(self, tree: int) -> Sequence[Pin]:
        """The pins of a tree's roots, oldest first."""

    def verified(self, root: bytes, at: int | None) -> None:
        """Write down that everything below a root was read back whole at `at` (microseconds); None: it is not whole."""


class Fault(Protocol):
    @property
    def reason(self) -> str: ...


class ContentState(Protocol):
    def trimmed(self) -> Collection[int]:
        """The packs whose file is gone, or about to go."""

    def faults(self) -> Sequence[Fault]:
        """What is wrong now, oldest first."""


class Keeping(Protocol):
    def blocks(self, pack: int) -> Iterator[tuple[bytes, bool]]:
        """Every CID in the pack but those of superseded copies; False: a dag-cbor block of no instance's own."""

    def names(self, cid: bytes) -> bool:
        """Whether a tree has this block for its root or one of its pages."""


class ScrubState(Protocol):
    def load(self) -> Mapping[str, int]:
        """The numbers of the pass, as they were saved; none when there are none."""

    def save(self, numbers: dict[str, int]) -> None:
        """Keep the numbers of the pass, durably."""

    def next_tree(self, after: int) -> int | None:
        """The least id beyond `after` of a tree that has a root."""

    def left(self, after: int) -> int:
        """The weight of all trees with a root and an id beyond `after`."""

    def lost(self) -> Sequence[int]:
        """The trees that were not whole when they were last read back, by id."""

    def note(self, tree: int, *, lost: bool) -> None:
        """Write down whether a tree that was just read back is whole."""

    def former_roots(self, tag: bytes) -> Sequence[bytes]:
        """The roots that closed batches of a study tag made, newest first."""

    def move(self, position: BlockPosition) -> None:
        """The block lies elsewhere in the packs now."""

    def replaced(self, cid: bytes) -> bool:
        """Whether another copy took the place of the one that a block belongs to: its tree's next root names it not."""

    def flag(self, cid: bytes) -> None:
        """Flag the instance that a lost block belongs to: the same bytes sent again then heal it."""


class ArchiveIndex(Protocol):
    """The index, as far as trees and blocks go."""

    @property
    def trees(self) -> Trees: ...
    @property
    def pins(self) -> Pins: ...
    @property
    def content_state(self) -> ContentState: ...
    @property
    def keeping(self) -> Keeping: ...
    @property
    def scrub(self) -> ScrubState: ...

    def study_tree(self, tag: bytes) -> StudyTree:
        """The manifest of a study tag, and every instance block of it, in order. Raises NotFound."""

    def positions_of(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        """Where those of many blocks lie that the index knows."""


class Archive(Protocol):
    """A node, as far as its content goes."""

    @property
    def settings(self) -> Settings: ...
    @property
    def index(self) -> ArchiveIndex: ...
    @property
    def packs(self) -> PackStore: ...
    @property
    def content(self) -> ContentStore: ...
    @property
    def access(self) -> Access: ...
