"""The page of the ledger's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.ledger_steps import ProofCost


@dataclass(frozen=True)
class Figure:
    """One measured value beside its raw step's, and what it should be.

    `at_most` and `at_least` bound ours divided by the raw step's; `limit` ours alone from above, `floor` from below.
    """

    name: str
    unit: str
    ours: float
    raw_name: str
    raw: float
    at_most: float | None = None
    at_least: float | None = None
    limit: float | None = None
    floor: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float:
        """Ours divided by the raw step's."""
        return self.ours / self.raw

    @property
    def reached(self) -> bool:
        """Whether it is as it should be."""
        return (
            (self.at_most is None or self.ratio <= self.at_most)
            and (self.at_least is None or self.ratio >= self.at_least)
            and (self.limit is None or self.ours <= self.limit)
            and (self.floor is None or self.ours >= self.floor)
        )

    @property
    def target(self) -> str:
        """What it should be, in words."""
        bounds = (
            (self.at_most, "at most {:g} times the raw step"),
            (self.at_least, "at least {:.0%} of the raw step"),
            (self.limit, f"at most {{:g}} {self.unit}"),
            (self.floor, f"at least {{:,.0f}} {self.unit}"),
        )
        return " and ".join(text.format(bound) for bound, text in bounds if bound is not None)

    @property
    def verdict(self) -> str:
        """Whether the target is reached; nothing where there is none."""
        return ("yes" if self.reached else "**no**") if self.target else ""

    def line(self) -> str:
        """For reading while it runs."""
        verdict = f"; {self.target}: {'reached' if self.reached else 'NOT reached'}" if self.target else ""
        return (
            f"{self.name:52} {number(self.ours):>9} {self.unit:10} {self.raw_name}: {number(self.raw)} "
            f"(ratio {self.ratio:.2f}{verdict}) {self.note}"
        )


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(figures: Sequence[Figure]) -> list[str]:
    """Markdown lines, one figure each."""
    lines = [
        "| what | unit | Cairn | raw step | its value | ratio | target | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        ours = number(figure.ours) + (f" ({figure.note})" if figure.note else "")
        lines.append(
            f"| {figure.name} | {figure.unit} | {ours} | {figure.raw_name} | {number(figure.raw)} "
            f"| {figure.ratio:.2f} | {figure.target} | {figure.verdict} |"
        )
    return lines


_PAGE = """# Performance of the ledger

<!-- Written by `python -m tests.benchmarks.ledger_speed`; do not edit. -->

Each figure stands beside its raw step, measured in the same run on the same machine, the two taking turns where they
can. Trust the ratios, not the absolute numbers. Repeat it with `python -m tests.benchmarks.ledger_speed` (some
minutes; with `--quick` one, with a small log).

{table}

## Proofs

![Proof size and time against the size of the log](images/proof-size.svg)

| entries in the log | characters of a proof | ms to make | ms to verify |
|---|---|---|---|
{costs}

Both grow with the logarithm of the log: a proof holds one hash of 45 characters more for each doubling.

## What was measured

- A *durable append*: one closed batch becomes an entry that is on stable storage when it returns, in a journal written
  in place, and is signed while the disk writes ([ADR 0017](adr/0017-a-journal-in-front-of-the-ledger.md)). Database,
  signed checkpoint, tiles and the `checkpoint` file follow; after a loss of power they are made from the journal, whose
  entries are signed the same once more, and the database. 200 appends and 5,000 batched entries go before, unmeasured.
- *Entries in batches*: closed batches wait in memory; the time holds signing, the database, tiles and bundles of the
  whole log on stable storage, page digests, and moving the write-ahead log into the database. Signing alone is one
  thread: each entry names the hash of the entry before it, signature included, so that one node's entries cannot be
  signed in parallel.
- *A proof made*: the entry looked up by its id, its path read from the tile files, the proof written out.
- *OpenSSL, libsodium*: the ledger signs and verifies by libsodium, in half the time of OpenSSL; both stand beside it.
- *Verified whole*: everything that `cairn ledger verify` does but for the records behind the entries: page digests,
  SQLite's structure, envelopes and signatures, chain, tree, every checkpoint, columns, every tile and bundle. Its raw
  step runs in as many processes at once, since cores of one machine slow each other down.
- *Hashes alone* (`cairn ledger verify --hashes`): page digests, every envelope's leaf, the tree, every signed
  checkpoint, every tile and bundle; no entry's own signature, no column, not SQLite's structure.

## Machine, versions

{machine}
- The log had {entries:,} entries.
"""


def page(figures: Sequence[Figure], costs: Sequence[ProofCost], machine: Sequence[str], entries: int) -> str:
    """The whole page, which says how to read and how to repeat it."""
    return _PAGE.format(
        table="\n".join(table(figures)),
        costs="\n".join(
            f"| {cost.size:,} | {cost.characters:,} | {cost.make_ms:.2f} | {cost.verify_ms:.2f} |" for cost in costs
        ),
        machine="\n".join(f"- {line}" for line in machine),
        entries=entries,
    )
