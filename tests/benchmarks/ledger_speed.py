"""`python -m tests.benchmarks.ledger_speed`: how fast the ledger is, each figure beside its raw step in the same run.

Ours and the raw step take turns, so that both see the same machine. `--quick` does everything with a small log in about
two minutes and writes nothing unless `--out` is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import ledger_steps as steps
from tests.benchmarks.ledger_page import Figure, page, table
from tests.benchmarks.ledger_picture import draw
from tests.benchmarks.machine import describe

PAGE, PICTURE = Path("docs/performance-ledger.md"), Path("docs/images/proof-size.svg")


def measure(folder: Path, entries: int, rounds: int) -> tuple[list[Figure], list[steps.ProofCost]]:
    """Every figure, and what a proof costs at growing sizes of the log; the log of `entries` is made below `folder`."""
    figures: list[Figure] = []

    def tell(figure: Figure) -> None:
        figures.append(figure)
        sys.stdout.write(figure.line() + "\n")
        sys.stdout.flush()

    steps.warm_up(folder / "warm")
    tell(steps.single_appends(folder / "single", 600 * rounds))
    log = steps.Log(folder / "log")
    try:
        for figure in steps.batched_appends(log, min(20_000, entries // 2), "an empty log"):
            tell(figure)
        steps.grow(log, entries - min(20_000, entries // 2))
        for figure in steps.batched_appends(log, min(20_000, entries // 2), f"a log of {entries:,}"):
            tell(figure)
        tell(steps.single_appends_to(log, 600 * rounds, f"a log of {entries:,}"))
    finally:
        log.close()
    costs = steps.proof_costs(log, rounds)
    for figure in steps.proofs(costs[-1]):
        tell(figure)
    for figure in steps.verification(log):
        tell(figure)
    return figures, costs


def main() -> int:
    """Measure, tell, and write page and picture."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ledger_speed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a log of 20,000 entries instead of a million")
    parser.add_argument("--entries", type=int, help="how many entries the log has")
    parser.add_argument("--folder", type=Path, help="where the log is made (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help=f"the page to write (default: {PAGE}, with --quick none)")
    chosen = parser.parse_args()
    entries = chosen.entries or (20_000 if chosen.quick else 1_000_000)
    rounds = 1 if chosen.quick else 5
    out = chosen.out or (None if chosen.quick else PAGE)
    with tempfile.TemporaryDirectory(dir=chosen.folder, prefix="benchmark-") as name:
        machine = describe(Path(name))
        figures, costs = measure(Path(name), entries, rounds)
    sys.stdout.write("\n" + "\n".join(table(figures)) + "\n")
    if out is not None:
        picture = out.parent / "images" / PICTURE.name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(draw(costs), "utf-8")
        out.write_text(page(figures, costs, machine, entries), "utf-8")
        sys.stdout.write(f"\nwritten: {out}, {picture}\n")
    return 0


# Verification starts processes that import this module anew.
if __name__ == "__main__":
    sys.exit(main())
