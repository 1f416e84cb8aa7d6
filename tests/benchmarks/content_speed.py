"""`python -m tests.benchmarks.content_speed`: how fast the content engines are, each figure beside its raw step.

`--quick` does everything with small studies in about a minute and writes nothing unless `--out` is given.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import content_steps as steps
from tests.benchmarks.content_page import page
from tests.benchmarks.ledger_page import Figure, table
from tests.benchmarks.machine import describe
from tests.kubo_daemon import IPFS

PAGE = Path("docs/performance-content.md")


@dataclass(frozen=True)
class Plan:
    """How much: studies and their instances, slices of a series, frames of the multiframe, bytes of the large study."""

    studies: int
    instances: int
    rounds: int
    slices: int
    frames: int
    times: int
    large: int


WHOLE = Plan(studies=8, instances=128, rounds=3, slices=200, frames=1000, times=50, large=4 * 10**9)
QUICK = Plan(studies=4, instances=32, rounds=1, slices=40, frames=100, times=20, large=10**8)


def measure(folder: Path, plan: Plan) -> Iterator[Figure]:
    """Every figure, as it is there."""
    yield from steps.pinning(folder, plan.studies, plan.instances, plan.rounds)
    yield from steps.frames(folder, plan.frames, plan.times)
    yield from steps.acknowledging(folder, plan.slices, plan.rounds)
    yield from steps.memory(folder, plan.large)


def main() -> int:
    """Measure, tell, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.content_speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="every figure, small studies, about a minute")
    parser.add_argument("--folder", type=Path, help="where everything lies (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help=f"the page to write (default: {PAGE}, with --quick none)")
    chosen = parser.parse_args()
    out = chosen.out or (None if chosen.quick else PAGE)
    figures = []
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="benchmark-") as name:
        machine = describe(Path(name))
        for figure in measure(Path(name), QUICK if chosen.quick else WHOLE):
            figures.append(figure)
            sys.stdout.write(figure.line() + "\n")
            sys.stdout.flush()
    sys.stdout.write("\n" + "\n".join(table(figures)) + "\n")
    if out is not None:
        version = subprocess.run([IPFS, "version"], capture_output=True, text=True, check=True).stdout
        out.write_text(page(figures, machine, f"Kubo {version.split()[-1]}"), "utf-8")
        sys.stdout.write(f"\nwritten: {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
