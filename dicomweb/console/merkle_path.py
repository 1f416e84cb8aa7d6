"""An entry's way up to the signed root, from its proof: what to draw of it. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from dicomweb.console.html import Html, tag
from ledger import checkpoint
from ledger.errors import LedgerError
from ledger.merkle import node_hash

# Units of the drawing; a row is a box and the room for the edges below it.
_WIDTH: Final = 480
_ROW: Final = 60
_TOP: Final = 4
_BOX_WIDTH: Final = 184
_BOX_HEIGHT: Final = 32
_ASIDE: Final = 112


@dataclass(frozen=True, slots=True)
class Step:
    """One level: the hash that comes from below, its sibling from the proof, and on which side the sibling stands."""

    node: bytes
    sibling: bytes
    sibling_left: bool


@dataclass(frozen=True, slots=True)
class MerklePath:
    """The steps from the leaf up, the root they lead to, and the checkpoint that signs it (or another)."""

    index: int
    size: int
    leaf: bytes
    steps: tuple[Step, ...]
    root: bytes
    signed: bytes

    @property
    def holds(self) -> bool:
        """Whether the steps lead to the signed root."""
        return self.root == self.signed


def climb(leaf: bytes, proof: str) -> MerklePath | None:
    """The path of a leaf in a tlog-proof, by RFC 9162 section 2.1.3.2; None when the text is no such proof."""
    top, _, note = proof.partition("\n\n")
    lines = top.split("\n")
    try:
        head = checkpoint.parse(checkpoint.split_note(note)[0])
        place = next(number for number, line in enumerate(lines) if line.startswith("index "))
        index = int(lines[place].removeprefix("index "))
        hashes = [base64.b64decode(line, validate=True) for line in lines[place + 1 :]]
    except (LedgerError, StopIteration, ValueError, binascii.Error):
        return None
    steps = []
    position, last, current = index, head.size - 1, leaf
    for sibling in hashes:
        left = bool(position & 1) or position == last
        steps.append(Step(current, sibling, left))
        current = node_hash(sibling, current) if left else node_hash(current, sibling)
        while left and not position & 1 and position:
            position >>= 1
            last >>= 1
        position >>= 1
        last >>= 1
    return MerklePath(index, head.size, leaf, tuple(steps), current, head.root)


def draw(path: MerklePath) -> Html:
    """The path as a picture: the signed root above, the entry below, on each level the sibling that the proof gives.

    A sibling stands on the side where it is in the tree.
    """
    middle = _WIDTH / 2
    boxes = [_box(middle, _TOP, path.root, "root" if path.holds else "root broken", "root ")]
    edges = []
    above = middle
    for level, step in enumerate(reversed(path.steps), 1):
        y = level * _ROW + _TOP
        own = middle + _ASIDE if step.sibling_left else middle - _ASIDE
        for x, kind in ((_WIDTH - own, "edge"), (own, "edge way")):
            start, bend = y - _ROW + _BOX_HEIGHT, _ROW - _BOX_HEIGHT
            curve = f"M{above:g} {start} C{above:g} {start + bend} {x:g} {y - bend} {x:g} {y}"
            edges.append(tag("path", d=curve, class_=kind))
        boxes.append(_box(_WIDTH - own, y, step.sibling, "sibling"))
        last = level == len(path.steps)
        boxes.append(_box(own, y, step.node, "leaf" if last else "node", "entry " if last else ""))
        above = own
    name = (
        f"The way of entry {path.index} up a tree of {path.size}: {len(path.steps)} hashes from the proof lead to "
        + ("the signed root" if path.holds else "another root than the signed one")
    )
    height = len(path.steps) * _ROW + _BOX_HEIGHT + 2 * _TOP
    picture = (tag("title", name), edges, boxes)
    return tag("svg", picture, viewBox=f"0 0 {_WIDTH} {height}", class_="merkle", role="img", aria_label=name)


def _box(x: float, y: float, hash_: bytes, kind: str, name: str = "") -> Html:
    """A hash in its frame, its middle at x."""
    frame = tag("rect", x=x - _BOX_WIDTH / 2, y=y, width=_BOX_WIDTH, height=_BOX_HEIGHT, rx=6)
    digits = tag("text", name, hash_.hex()[: 16 - len(name)], "…", x=x, y=y + _BOX_HEIGHT / 2 + 5, text_anchor="middle")
    return tag("g", tag("title", hash_.hex()), frame, digits, class_=f"hash {kind}")
