"""Fixity: that what is stored is still what was stored. What all checks of it have in common, and `fsck --content`.

(1) every tree, or of each a sample of its instances chosen at random, is read from every copy
(2) what is damaged or missing is mended from another copy or source                    services.check_content
(3) an instance of which a block is lost is flagged, so that the same bytes sent again heal it
(4) a tree that was read whole is noted as verified, one that is not whole no longer is
(5) what was found is recorded on the ledger
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.content import cid as cids
from bridge.content.copies import Copy, PackCopy
from bridge.model import OPERATOR, Tree
from bridge.services.archive import Archive
from bridge.services.check_content import Checked, ContentFinding, check_tree
from bridge.services.provenance import now_us
from bridge.services.remake_manifest import source

SCRUB: Final = "content.scrub"
RECORDED, LISTED = 50, 10_000
"""Findings told one by one in a record, and by a command; all of them are counted."""
LONGEST: Final = 100
"""Characters of what was wrong in a record, which has at most 16 KiB."""
INSTANCES: Final = 2
"""The depth of instance blocks below a StudyRoot."""
TELLING: Final = 10_000
"""Progress is told after so many blocks of one study."""


@dataclass(slots=True)
class Tally:
    """What a check has found so far; `findings` are the first, at most `most`, of those that are counted in `wrong`.

    `replaced` blocks are lost and no finding: a copy that was sent again is there in their place, and the tree's next
    root, in some seconds, no longer names them.
    """

    trees: int = 0
    blocks: int = 0
    octets: int = 0
    wrong: int = 0
    mended: int = 0
    most: int = RECORDED
    findings: list[ContentFinding] = field(default_factory=list)
    replaced: int = 0

    def take(self, checked: Checked) -> None:
        """Count one block."""
        self.blocks += 1
        self.octets += checked.octets
        self.wrong += len(checked.findings)
        self.mended += sum(bool(finding.mended) for finding in checked.findings)
        self.findings += checked.findings[: self.most - len(self.findings)]

    def add(self, other: Tally) -> None:
        """Count what another has found."""
        for name in ("trees", "blocks", "octets", "wrong", "mended"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.findings += other.findings[: self.most - len(self.findings)]

    @property
    def outcome(self) -> int:
        """EventOutcomeIndicator: 0 when all was whole, 4 when all that was not is mended, 8 otherwise."""
        return 0 if not self.wrong else 4 if self.wrong == self.mended else 8

    def body(self, did: str) -> dict[str, object]:
        """The record of it (docs/audit.md). CIDs are those of sealed blocks; nobody is named."""
        told_ones = {"findings": [_briefly(finding) for finding in self.findings[:RECORDED]]} if self.findings else {}
        return {**self._counts, "did": did, **told_ones}

    def answer(self) -> dict[str, object]:
        """What a command answers: the counts, `findings` that were not mended, and those that were `repaired`."""
        found = [told(finding) for finding in self.findings]
        return self._counts | {
            "findings": [finding for finding in found if not finding["mended"]],
            "repaired": [finding for finding in found if finding["mended"]],
        }

    @property
    def _counts(self) -> dict[str, object]:
        counts = {"trees": self.trees, "blocks": self.blocks, "bytes": self.octets}
        return {"what": self.words, **counts, "wrong": self.wrong, "mended": self.mended}

    @property
    def words(self) -> str:
        """The check in a sentence."""
        found = f"{self.wrong:,} not whole, of them {self.mended:,} mended" if self.wrong else "all whole"
        return f"{self.blocks:,} blocks checked by reading {self.octets:,} bytes: {found}"


def told(finding: ContentFinding) -> dict[str, str]:
    """A finding as records and commands tell it."""
    text = cids.to_text(finding.block)
    return {"block": text, "place": finding.place, "what": finding.what, "mended": finding.mended}


def _briefly(finding: ContentFinding) -> dict[str, str]:
    return {name: text[:LONGEST] for name, text in told(finding).items()}


def take(node: Archive, tally: Tally, checked: Checked) -> Checked:
    """(3) Count one block, and flag the instance of one that is lost; without its findings when nobody misses it."""
    if checked.lost and node.index.scrub.replaced(checked.cid):
        checked = checked._replace(findings=(), lost=False)
        tally.replaced += 1
    tally.take(checked)
    if checked.lost:
        node.index.scrub.flag(checked.cid)
    return checked


def copies_of(node: Archive, tree: Tree) -> Sequence[Copy]:
    """The copies that ought to hold a tree: the packs, and an engine beside them once it has said that it holds it."""
    index = node.index
    packs = PackCopy(node.packs, node.settings.home / "packs", index.content_state.trimmed, index.scrub.move)
    beside: Copy | None = getattr(node.content, "copy", None)  # as services.keep_content.ContentEngine
    if beside is None or tree.root is None or index.pins.of(tree.root) is None:
        return [packs]
    return [packs, beside]


def is_held(node: Archive, tree: int, root: bytes) -> bool:
    """Whether a tree is held, with this root: one that was let go, or has grown, may miss blocks of what it was."""
    held = node.index.trees.by_id(tree)
    return held is not None and held.root == root


def note_verified(node: Archive, root: bytes, tree: int) -> None:
    """(4); the embedded engine pins a root that nobody has pinned yet, by looking at what lies below it."""
    pins = node.index.pins
    if pins.of(root) is None and node.settings.content.engine == "embedded":
        former = pins.of_tree(tree)
        node.content.pin(root, former[-1].root if former else None)
    pins.verified(root, now_us())
    node.index.scrub.note(tree, lost=False)


def note_broken(node: Archive, root: bytes, tree: int) -> None:
    """(4) for a tree that is not whole, and could not be mended."""
    node.index.pins.verified(root, None)
    node.index.scrub.note(tree, lost=True)


def check_all(node: Archive, report: Callable[[str], None], sample: float = 100.0) -> Tally:
    """(1) to (5), now; `sample` is the percentage of instances that are read, each whole: roots and pages are, always.

    Raises EngineFault when the engine cannot be asked; what was found until then is recorded all the same.
    """
    whole = sample >= 100
    tally = Tally(most=LISTED)
    chance = random.SystemRandom()

    def wanted(cid: bytes, depth: int) -> bool:
        return whole or depth != INSTANCES or chance.random() * 100 < sample

    try:
        for tree in node.index.trees.every():
            found: Tree | None = tree
            while found is not None and not _is_checked(node, tally, found, wanted, report, whole=whole):
                found = node.index.trees.by_id(found.id)
    finally:
        did = "all" if whole else f"a sample of {sample:g} percent"
        node.access.administered(SCRUB, OPERATOR, tally.body(did), outcome=tally.outcome)
    return tally


def _is_checked(
    node: Archive,
    tally: Tally,
    tree: Tree,
    wanted: Callable[[bytes, int], bool],
    report: Callable[[str], None],
    *,
    whole: bool,
) -> bool:
    """One tree; False when it was let go, or has grown, while it was read: what was missed of it is no finding then."""
    if tree.root is None:
        return True
    report(f"reading study {tree.study or tree.tag.hex()} ({tree.covered} instances)")
    part = Tally(most=LISTED)
    try:
        for checked in check_tree(tree.root, copies_of(node, tree), source(node, tree), wanted):
            _take(node, part, checked, report)
    finally:
        stands = not part.wrong or is_held(node, tree.id, tree.root)
        if stands:
            tally.add(part)
    if not stands:
        report("it was let go, or has grown, while it was read: that was no finding")
        return False
    tally.trees += 1
    if part.wrong > part.mended:
        note_broken(node, tree.root, tree.id)
    elif whole and not part.replaced:
        note_verified(node, tree.root, tree.id)
    return True


def _take(node: Archive, tally: Tally, checked: Checked, report: Callable[[str], None]) -> None:
    checked = take(node, tally, checked)
    for finding in checked.findings:
        end = f"mended from {finding.mended}" if finding.mended else "NOT mended"
        report(f"{finding.place}: block {cids.to_text(finding.block)} {finding.what}; {end}")
    if not tally.blocks % TELLING:
        report(tally.words)
