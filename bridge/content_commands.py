"""`cairn content status|repair`: how the archive stands with its content engine, and mending it now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge import control
from bridge.content.pack_format import packs_in
from bridge.content_process import SOCKET, repaired, upkeep_of
from bridge.errors import ConfigError, EngineFault
from bridge.node import COMMAND, Node
from bridge.services.provenance import iso

Report = Callable[[str], None]


def status(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The engine as it answers now, full disks, what is wrong and since when, how many studies are where, the spool."""
    index, settings = node.index, node.settings.content
    counts = index.keeping.counts()
    oldest = counts.pop("verified_before")
    files = [path.stat().st_size for path in packs_in(node.settings.home / "packs")]
    engine = node.content.status()
    return {
        "engine": engine.engine,
        "answers": list(engine.reasons),
        "disks": list(node.overview.full()),
        "findings": _findings(node),
        "faults": [
            {"name": fault.name, "since": iso(fault.since), "reason": fault.reason}
            for fault in index.content_state.faults()
        ],
        "studies": counts,
        "verified_before": iso(oldest) if oldest is not None else None,
        "spool": {
            "packs": len(files),
            "bytes": sum(files),
            "most_bytes": settings.spool_bytes if settings.engine != "embedded" else None,
            "trimmed": len(index.content_state.trimmed()),
        },
    }


def _findings(node: Node) -> list[dict[str, str]]:
    """What is dangerous in the configuration of a Kubo, with the command that mends it; [] while none answers."""
    admission = getattr(node.content, "admission", None)
    try:
        return [finding._asdict() for finding in admission.findings()] if admission is not None else []
    except EngineFault:  # which `answers` tells
        return []


def repair(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Bring everything to the engine and mend what it lost, by the content process where a node runs.

    Raises ConfigError with the embedded engine, EngineFault when the engine, or the process, does not do as asked.
    """
    upkeep = upkeep_of(node)
    if upkeep is None:
        raise ConfigError("the embedded engine keeps blocks in the packs alone: see cairn fsck --content")
    if node.owner == COMMAND:
        return repaired(node, upkeep, report)
    try:
        return control.ask(node.settings.home / "run" / SOCKET, "repair", {}, report)
    except control.Failed as failed:
        raise EngineFault(failed.detail) from failed
    except OSError as error:
        raise EngineFault("the content process is just starting; try again in a moment") from error
