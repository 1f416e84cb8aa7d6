"""`cairn content repair`: everything is brought to the engine now, read back from it, and mended where it is not whole.

(1) what was set back is tried again: pins that the engine lost, roots that wait for it
(2) every root is read back as a whole; a block that the engine lost or damaged it is given again
(3) what could not be brought or mended is told, and the others go on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bridge.content import cid as cids
from bridge.content.pins import PinTable
from bridge.content.upkeep import StepKind
from bridge.errors import ContentMissing, EngineFault
from bridge.services.check_content import Checked
from bridge.services.keep_content import Upkeep

__all__ = ["repair"]

TOLD_EVERY: Final = 256 << 20
"""Bytes of one study read back, after which progress is told."""


def repair(
    upkeep: Upkeep, pins: PinTable, study_of: Callable[[bytes], str | None], report: Callable[[str], None]
) -> dict[str, object]:
    """(1) to (3): how many roots were brought and read back, how many blocks mended, which studies the engine did not
    take, and which are not whole.

    `study_of` tells the study of a root, None when that is not known here. Raises EngineFault when the engine does not
    do as asked, StorageFault.
    """
    if upkeep.busy:
        upkeep.ask_engine()  # a step waits for an engine that hangs until its own time is over, which may be minutes
        report("waiting for what is being done now")

    def named(root: bytes) -> str:
        return study_of(root) or "a study kept for others"

    before, brought = upkeep.mended, _bring(upkeep, named, report)
    roots = [pin.root for pin in pins.all()]
    refused: dict[bytes, str] = {}
    lost: dict[bytes, str] = {}
    for number, root in enumerate(roots, 1):
        study = named(root)
        report(f"reading back {number} of {len(roots)}: {study}")
        try:
            upkeep.verify(root, _Progress(report))
        except ContentMissing as error:
            report(f"{study}: {error.detail}")
            lost[root] = error.detail
    read_back = len(roots) - len(lost)
    # The node's own upkeep works beside this one: what it tried, and had to set aside, is not tried here again.
    for root, reason in upkeep.held_back().items():
        (lost if upkeep.lacks(root) else refused).setdefault(root, reason)
    return {
        "brought": brought,
        "read_back": read_back,
        "mended": upkeep.mended - before,
        "waiting": len(upkeep.outlook.waiting),
        "refused": [{"study": named(root), "what": what} for root, what in refused.items()],
        "lost": [{"study": named(root), "what": what} for root, what in lost.items()],
    }


def _bring(upkeep: Upkeep, named: Callable[[bytes], str], report: Callable[[str], None]) -> int:
    """(1): how many roots were brought. Raises EngineFault when the engine, not one root, is what fails."""
    upkeep.try_all_now()
    brought = 0
    while (step := upkeep.step()) is not None:
        if upkeep.set_aside is not None:
            break
        outlook = upkeep.outlook
        if step.kind is StepKind.PIN and step.tree is not None:
            if (setback := outlook.setbacks.get(step.tree.root)) is not None:
                report(f"{named(step.tree.root)}: {setback.reason}")
                continue
            brought += 1
            report(f"brought to the engine: {brought}, {len(outlook.waiting)} to go")
        elif step.kind is StepKind.TRIM:
            report(f"pack {step.pack:08d}.car looked at, whether it may go")
    if (reason := upkeep.set_aside) is not None:
        raise EngineFault(reason)
    return brought


class _Progress:
    """Tells how much of a large study was read back, and what was found."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._octets = 0

    def __call__(self, checked: Checked) -> None:
        before, self._octets = self._octets, self._octets + checked.octets
        if self._octets // TOLD_EVERY > before // TOLD_EVERY:
            self._report(f"{self._octets >> 20} MiB read back")
        for finding in checked.findings:
            end = f"mended from {finding.mended}" if finding.mended else "NOT mended"
            self._report(f"{finding.place}: {cids.to_text(finding.block)} {finding.what}; {end}")
