"""How long the console waits for a page, its facets and its histogram: `python -m tests.benchmarks.audit_search`.

One archive of 1,000,000 events over two years (20,000 studies, 8,000 patients, 440 actors) is made once below `--home`.
Each kind of question is then asked with values drawn anew; a page is 100 events, resolved in full: study by its key,
patient by the index, reason by opening its record.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ledger.event import EventQuery
from tests.benchmarks.audit_archive import FIRST_US, PATIENTS, YEAR_US, Archive

DAY_US = 86_400_000_000


def questions(archive: Archive, events: int, chance: random.Random) -> dict[str, Callable[[], EventQuery]]:
    """Makers of queries by what they restrict."""

    def span(days: float) -> dict[str, int]:
        since = FIRST_US + int(chance.random() * (2 * YEAR_US - days * DAY_US))
        return {"since_us": since, "until_us": since + int(days * DAY_US)}

    return {
        "nothing": EventQuery,
        "nothing, deep": lambda: EventQuery(before=chance.randrange(events)),
        "a type": lambda: EventQuery(types=(chance.choice(["study.access", "study.store", "admin.token"]),)),
        "a type, deep": lambda: EventQuery(types=("admin.token",), before=chance.randrange(events)),
        "an actor": lambda: EventQuery(actors=(chance.choice(archive.people),)),
        "an actor and a type, deep": lambda: EventQuery(
            actors=(chance.choice(archive.people),), types=("study.export",), before=chance.randrange(events)
        ),
        "role and purpose": lambda: EventQuery(roles=("viewer",), purposes=("ETREAT",)),
        "role and purpose, deep": lambda: EventQuery(
            roles=("viewer",), purposes=("ETREAT",), before=chance.randrange(events)
        ),
        "what never happens": lambda: EventQuery(types=("study.store",), roles=("clinician",)),
        "a patient": lambda: EventQuery(patient=f"P{chance.randrange(PATIENTS)}"),
        "a study": lambda: EventQuery(studies=(chance.choice(archive.studies),)),
        "a patient's accesses": lambda: EventQuery(patient=f"P{chance.randrange(PATIENTS)}", types=("study.access",)),
        "an hour": lambda: EventQuery(**span(1 / 24)),
        "a day": lambda: EventQuery(**span(1)),
        "half a year": lambda: EventQuery(**span(182)),
        "a month and an actor": lambda: EventQuery(**span(30), actors=(chance.choice(archive.people),)),
        "a year, type and purpose": lambda: EventQuery(**span(365), types=("study.access",), purposes=("ETREAT",)),
        "refusals of half a year": lambda: EventQuery(**span(182), outcomes=(4, 8, 12)),
    }


def timed(ask: Callable[[EventQuery], object], make: Callable[[], EventQuery], times: int) -> list[float]:
    """Milliseconds of each answer."""
    taken = []
    for _ in range(times):
        query = make()
        began = time.perf_counter()
        ask(query)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def percentile(taken: list[float], part: float) -> float:
    """The value that this part of all is not above."""
    return sorted(taken)[min(len(taken) - 1, int(len(taken) * part))]


def main(argv: list[str]) -> None:
    """Print a line for each kind of question, and one over all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("/tmp/cairn-audit-benchmark"))
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=30)
    given = parser.parse_args(argv)

    def say(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    home = given.home / str(given.events)
    with closing(Archive(home, given.events, say)) as archive, closing(archive.trail()) as trail:
        size = (home / "audit.db").stat().st_size
        say(f"{given.events} events, audit.db of {size >> 20} MiB; milliseconds, p50 and p95 of {given.times}")
        say(f"{'restricted to':28} {'page of 100':>15} {'facets':>15} {'histogram, 60':>15}")
        asks: list[Callable[[EventQuery], object]] = [
            trail.search,
            trail.facets,
            lambda query: trail.histogram(query, 60),
        ]
        everything: list[list[float]] = [[] for _ in asks]
        for name, make in questions(archive, given.events, random.Random(7)).items():
            columns = []
            for ask, total in zip(asks, everything, strict=True):
                taken = timed(ask, make, given.times)
                total += taken
                columns.append(f"{statistics.median(taken):6.1f} {percentile(taken, 0.95):8.1f}")
            say(f"{name:28} {'  '.join(columns)}")
        columns = [f"{statistics.median(taken):6.1f} {percentile(taken, 0.95):8.1f}" for taken in everything]
        say(f"{'all of these':28} {'  '.join(columns)}")


if __name__ == "__main__":
    main(sys.argv[1:])
