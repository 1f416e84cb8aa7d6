"""`python -m tests.benchmarks.consortium_speed`: how fast a consortium of four is, beside CometBFT's own application.

`--quick` does everything with little in about a minute and writes nothing unless `--out` is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bridge.services.access import SLIDING_S
from tests.benchmarks import consortium_steps as steps
from tests.benchmarks.consortium_catch_up import catch_up
from tests.benchmarks.consortium_page import HOSPITALS, Measured, page
from tests.benchmarks.ledger_page import table
from tests.benchmarks.machine import describe
from tests.cometbft_node import COMETBFT

T = TypeVar("T", bound=tuple[Any, ...])
PAGE = Path("docs/performance-consortium.md")


@dataclass(frozen=True)
class Plan:
    """How much: single commits, entries in batches, idle seconds, entries of a snapshot, and of one that a whole member
    takes over, slices, shared studies, seconds after which viewing sessions have become entries."""

    commits: int
    entries: int
    idle_s: int
    synced: int
    taken_over: int
    slices: int
    rounds: int
    closed_s: float


WHOLE = Plan(
    commits=100,
    entries=8000,
    idle_s=30,
    synced=20_000,
    taken_over=40_000,
    slices=300,
    rounds=3,
    closed_s=SLIDING_S + 15,
)
QUICK = Plan(commits=12, entries=800, idle_s=3, synced=2000, taken_over=2000, slices=10, rounds=1, closed_s=0)


def measure(folder: Path, plan: Plan) -> Measured:
    """Everything."""
    ordered, growth, idle = _told(steps.ordering(folder, plan.commits, plan.entries, plan.idle_s))
    synced = steps.state_sync(folder, plan.synced)
    _told(([synced],))
    taken_over = catch_up(folder / "whole", plan.taken_over).figure(synced.ours)
    _told(([taken_over],))
    shared, of_study = _told(steps.sharing(folder, plan.slices, plan.rounds, plan.closed_s))
    figures = [*ordered, synced, taken_over, *shared]
    return Measured(figures, "; ".join(idle), plan.entries, growth, of_study, steps.large_state(HOSPITALS))


def _told(measured: T) -> T:
    """What was measured, its figures told as soon as they are there."""
    sys.stdout.write("".join(figure.line() + "\n" for figure in measured[0]))
    sys.stdout.flush()
    return measured


def main() -> int:
    """Measure, tell, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.consortium_speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every figure, with little, about a minute")
    parser.add_argument("--folder", type=Path, help="where everything lies (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help=f"the page to write (default: {PAGE}, with --quick none)")
    chosen = parser.parse_args()
    out = chosen.out or (None if chosen.quick else PAGE)
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="benchmark-") as name:
        machine = describe(Path(name))
        measured = measure(Path(name), QUICK if chosen.quick else WHOLE)
    sys.stdout.write(f"{measured.idle}\n\n" + "\n".join(table(measured.figures)) + "\n")
    if out is not None:
        version = subprocess.run([COMETBFT, "version"], capture_output=True, text=True, check=True).stdout.strip()
        out.write_text(page(measured, [*machine, f"CometBFT {version}"]), "utf-8")
        sys.stdout.write(f"\nwritten: {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
