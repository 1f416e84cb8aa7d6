"""The page of results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.benchmarks.rows import Row


@dataclass
class Measured:
    """One server's values of one row, and its processor milliseconds for each instance (0: not counted)."""

    values: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, value: float, cpu: float) -> None:
        self.values.append(value)
        self.cpu.append(cpu)

    def shown(self, higher: bool) -> str:
        """Median, and the worst and best of all rounds."""
        worst, best = sorted((min(self.values), max(self.values)), reverse=not higher)
        return f"{_number(statistics.median(self.values))} ({_number(worst)} to {_number(best)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(row: Row, cairn: Measured, orthanc: Measured) -> float:
    """How many times faster Cairn is, the median of all rounds; below 1 it is slower.

    The two are measured right after each other in each round, so that what disturbs the machine disturbs both.
    """
    rounds = zip(cairn.values, orthanc.values, strict=True)
    return statistics.median(ours / theirs if row.higher else theirs / ours for ours, theirs in rounds)


def table(measured: Mapping[Row, Mapping[str, Measured]]) -> list[str]:
    """Markdown lines, one row each, in the order measured."""
    lines = [
        "| what | unit | Cairn | Orthanc | Cairn is faster by | CPU ms each: Cairn | Orthanc |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, by_server in measured.items():
        cairn, orthanc = by_server["Cairn"], by_server["Orthanc"]
        cpu = [_number(statistics.median(m.cpu)) if row.instances else "" for m in (cairn, orthanc)]
        lines.append(
            f"| {row.name} | {row.unit} | {cairn.shown(row.higher)} | {orthanc.shown(row.higher)} "
            f"| {ratio(row, cairn, orthanc):.2f} | {cpu[0]} | {cpu[1]} |"
        )
    return lines


def taken_table(measured: Mapping[Row, Mapping[str, Measured]], taken: Mapping[Row, Measured]) -> list[str]:
    """Markdown lines: what the acceptor alone takes, and its share of Cairn's CPU for an instance."""
    lines = [
        "| what | unit | taken and dropped | CPU ms each | of Cairn's |",
        "|---|---|---|---|---|",
    ]
    for row, alone in taken.items():
        cpu, all_of_it = (statistics.median(one.cpu) for one in (alone, measured[row]["Cairn"]))
        share = f"{cpu / all_of_it:.0%}" if all_of_it else ""
        lines.append(f"| {row.name} | {row.unit} | {alone.shown(row.higher)} | {_number(cpu)} | {share} |")
    return lines


_PAGE = """# Performance, beside Orthanc

<!-- Written by `make bench`; do not edit. -->

Both servers ran on one machine at the same time, one idle while the other was measured, on the same files, in the same
run, taking turns. Trust the ratios, not the absolute numbers: senders and readers run on the same cores. Repeat it with
`make bench` (or `python -m tests.benchmarks --quick`, about two minutes).

{table}

Medians of {rounds} rounds, worst and best in brackets; *faster by* is the median of the rounds' ratios; CPU is what
all of a server's processes used for each instance or frame. Filling the archive is one round.

## What the acceptor costs

{taken}

The same senders to Cairn's acceptor alone (pynetdicom's upper layer, in a loop of ours that reads what has come), which
drops what it has taken: that is as many as it allows, and its share of what Cairn spends on an instance.

## What was measured

- C-STORE: a CT series of {slices} slices of 0.5 MB (random pixels, Explicit VR Little Endian), sent by DCMTK's
  `storescu`. *Stock* is as it is installed: Nagle's algorithm on. *TCP_NODELAY=1* is its environment variable.
- *Tiny studies* fill the archive: each is one small instance that begins a study, to Cairn with keys, a manifest and a
  signed entry of its own.
- STOW-RS, searches and retrieval: one HTTP client for both (httpx), connections kept alive.
- Frames: `transfer-syntax=*`, one request for each, as OHIF asks. A whole series: as stored, in one answer.
- A page of studies: `limit`, `offset` and the fields of OHIF's work list, at nine places of the archive.

## What the two promise when they answer

- **Cairn**: encrypted blocks, index rows and the provenance record are on stable storage (fdatasync, SQLite
  `synchronous=FULL`) before 0x0000 or 200; it checks a token on each request and records each access.
- **Orthanc**: Debian's package with its stock durability: each file is synchronised (`SyncStorageArea`), the SQLite
  index is `synchronous=NORMAL`, so the row of an acknowledged instance may be lost with the power; no encryption, no
  provenance, no authentication. Set apart from the defaults, for its good: `KeepAlive` on, and `TCP_NODELAY=1` in its
  environment (DCMTK, on which it is built, leaves Nagle's algorithm on, so that its answers wait for the sender's
  delayed acknowledgement). Rows marked *as installed* are a third server without that variable.

## Machine, versions

{machine}
- Memory when all was done (PSS of all processes): {memory}
"""


def render(
    measured: Mapping[Row, Mapping[str, Measured]],
    taken: Mapping[Row, Measured],
    machine: Sequence[str],
    memory: Mapping[str, float],
    rounds: int,
    slices: int,
) -> str:
    """The whole page, which says how to read and how to repeat it."""
    return _PAGE.format(
        table="\n".join(table(measured)),
        taken="\n".join(taken_table(measured, taken)),
        rounds=rounds,
        slices=slices,
        machine="\n".join(f"- {line}" for line in machine),
        memory=", ".join(f"{name} {mib:.0f} MiB" for name, mib in memory.items()),
    )
