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
from bridge.content.upkeep import ENGINE, StepKind
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

    before, (brought, refused, lost) = upkeep.mended, _bring(upkeep, named, report)
    roots = [pin.root for pin in pins.all()]
    read_back = 0
    for number, root in enumerate(roots, 1):
        study = named(root)
        report(f"reading back {number} of {len(roots)}: {study}")
        try:
            upkeep.verify(root, _Progress(report))
            read_back += 1
        except ContentMissing as error:
            report(f"{study}: {error.detail}")
            lost.append({"study": study, "what": error.detail})
    waiting = len(upkeep.outlook.waiting)
    return {
        "brought": brought,
        "read_back": read_back,
        "mended": upkeep.mended - before,
        "waiting": waiting,
        "refused": refused,
        "lost": lost,
    }


def _bring(
    upkeep: Upkeep, named: Callable[[bytes], str], report: Callable[[str], None]
) -> tuple[int, list[dict[str, str]], list[dict[str, str]]]:
    """(1): how many roots were brought, which studies the engine did not take, and which lack a block to be brought."""
    upkeep.try_all_now()
    brought = 0
    refused: list[dict[str, str]] = []
    lost: list[dict[str, str]] = []
    while (step := upkeep.step()) is not None:
        outlook = upkeep.outlook
        if ENGINE in outlook.setbacks:
            raise EngineFault(outlook.setbacks[ENGINE].reason)
        if step.kind is StepKind.PIN and step.tree is not None:
            if (setback := outlook.setbacks.get(step.tree.root)) is not None:
                report(f"{named(step.tree.root)}: {setback.reason}")
                told = lost if upkeep.lacks(step.tree.root) else refused
                told.append({"study": named(step.tree.root), "what": setback.reason})
                continue
            brought += 1
            report(f"brought to the engine: {brought}, {len(outlook.waiting)} to go")
        elif step.kind is StepKind.TRIM:
            report(f"pack {step.pack:08d}.car looked at, whether it may go")
    return brought, refused, lost


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
