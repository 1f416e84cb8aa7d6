"""How long the console waits for a page, its facets and its histogram: `python -m tests.benchmarks.audit_search`.

One archive of 1,000,000 events over two years (20,000 studies, 8,000 patients, 440 actors) is made once below `--home`.
Each kind of question is then asked with values drawn anew; a page is 100 events, resolved in full: study by its key,
patient by the index, reason by opening its record.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
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


@dataclass
class Taken:
    """Milliseconds of each answer: waited for, and of the processor's time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def ask(self, ask: Callable[[EventQuery], object], query: EventQuery) -> None:
        """Time one more."""
        began, cpu = time.perf_counter(), time.thread_time()
        ask(query)
        self.wall.append((time.perf_counter() - began) * 1000)
        self.cpu.append((time.thread_time() - cpu) * 1000)

    def __str__(self) -> str:
        return (
            f"{statistics.median(self.wall):6.1f} {percentile(self.wall, 0.95):6.1f} {percentile(self.cpu, 0.95):6.1f}"
        )


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
        load = os.getloadavg()[0]
        say(f"{given.events} events, audit.db of {size >> 20} MiB; load {load:.1f}, {os.cpu_count()} cores")
        say(f"milliseconds of {given.times} answers each: p50, p95, p95 of processor time alone")
        say(f"{'restricted to':28} {'page of 100':>20}   {'facets':>20}   {'histogram, 60 bins':>20}")
        asks: list[Callable[[EventQuery], object]] = [
            trail.search,
            trail.facets,
            lambda query: trail.histogram(query, 60),
        ]
        everything = [Taken() for _ in asks]
        for name, make in questions(archive, given.events, random.Random(7)).items():
            these = [Taken() for _ in asks]
            for _ in range(given.times):
                query = make()
                for ask, taken, total in zip(asks, these, everything, strict=True):
                    taken.ask(ask, query)
                    total.wall.append(taken.wall[-1])
                    total.cpu.append(taken.cpu[-1])
            say(f"{name:28} {'   '.join(map(str, these))}")
        say(f"{'all of these':28} {'   '.join(map(str, everything))}")


if __name__ == "__main__":
    main(sys.argv[1:])
