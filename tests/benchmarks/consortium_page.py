"""The page of the consortium's figures, and what they come to with a thousand hospitals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmarks.consortium_steps import Growth
from tests.benchmarks.ledger_page import Figure, table

HOSPITALS = 1000
STUDIES_A_YEAR = 100_000
YEAR_S = 365 * 86_400
_VOTE_BYTES, _CHECK_MS = 110, 0.139

_PAGE = """# Performance of a consortium

<!-- Written by `python -m tests.benchmarks.consortium_speed`; do not edit. -->

Four hospitals on one machine, beside CometBFT's own example application on four CometBFTs with the same configuration,
in the same run and, where they can, in turns. Trust the ratios, not the absolute numbers: eight CometBFTs and four
members share these cores. Repeat it with `python -m tests.benchmarks.consortium_speed` (some minutes; with `--quick`
about one).

{table}

While nothing happened: {idle}.

## What was measured

- *Sealed and final*: from the sealing of a batch at one member until its own replica has it in a block: signature,
  outbox, mempool, consensus of four, and the application's commit. *kvstore*: `broadcast_tx_commit` of as many bytes to
  CometBFT's `persistent_kvstore`, in turns.
- *In batches*: {entries:,} entries, a fourth at each of four members, from the first sealing until the last is final at
  whose it is. Every entry is verified by each of four applications on these cores. *The same bytes*: transactions of
  200 kB to kvstore, which looks at none of them, as so many entries of 443 bytes.
- *A snapshot taken in*: by the application of a new member, chunk by chunk, every entry, block and the tree checked;
  the network is left out. *Read and hashed*: the chunks alone.
- *Taken over by a whole member*: four whole hospitals run, with a CometBFT each; one has lost its ledger and its blocks
  and is started again. From the offer of the state, which CometBFT's light client has verified through the other
  members' listeners, until it is on disk, its root that of the others: chunks asked of three CometBFTs, verified, kept.
  Beside it the seconds from the start of its process; before the offer lie the start of the node and the five seconds
  in which CometBFT gathers offers, which it takes at least, however long the log is. Three members that serve chunks
  and one that takes them in share these cores.
- *In the receiver's QIDO*: from the start of the command `cairn share grant` until the other hospital answers a search
  with all instances: entry, consensus, delivery of the key, transfer, verification, index. Four whole hospitals run.
- *From one member to another*: a study's CAR of 0.5 MB instances over mutual TLS, authorised and recorded, read by a
  client that counts its bytes. *Plain TLS*: the finished file, sent by a process that does nothing else. Each of three
  studies five times, in turns; the median.

## Growth

| per 1,000 studies stored, shared once and received | |
|---|---|
| entries in the shared log | {per_thousand:,} |
| the ledger's files at each member (database, tiles) | {ledger_mb:,.1f} MB |
| CometBFT's files at each member | {comet_mb:,.1f} MB |
| time to order them, as measured above | {order_s:,.0f} s |

On paper, {hospitals:,} hospitals with {studies:,} studies a year each come to {rate:,.0f} entries a second on average,
{ledger_tb:,.1f} TB a year of ledger and {comet_tb:,.1f} TB of CometBFT's blocks at every member. What would break
first, in this order:

1. **Cosignatures.** Each member asks every other for its line of the newest checkpoint, at most once a second:
   {asks:,} requests a second among all, {each_asks:,} at each. The answer: ask a sample that makes up the quorum, or
   pass lines on, so that each asks a few.
2. **Votes.** With all as validators a commit has {commit_kb:,.0f} kB, and to check it takes {check_ms:,.0f} ms at each
   member for every block; CometBFT's own tests saturate with 200 validators at some 400 transactions a second. The
   answer is there: a member need not be a validator (`cairn consortium propose power`); fifty that the others vote for
   bear it.
3. **Disk.** Every member keeps every entry. The answer: CometBFT forgets its blocks (`ledger.cometbft.keep_blocks`;
   the log has its own tiles and block records, which say all that is to be proved), and hospitals that never share need
   not be in one consortium: one for a region, and between regions witnesses.
4. **State.** That of {hospitals:,} members has {state_kb:,.0f} kB; a block hashes and writes what it changes of it, in
   {state_ms:.1f} ms (measured). It does not break.
5. **The machine.** {rate:,.0f} entries a second on average are {share:.1%} of what four members on {cores} reached
   together.

## Machine, versions

{machine}
"""


@dataclass(frozen=True)
class Measured:
    """Everything that the page tells: figures, the idle seconds in words, growth, entries of a study, a large state."""

    figures: Sequence[Figure]
    idle: str
    entries: int
    growth: Growth
    of_study: int
    state: tuple[int, float]


def page(measured: Measured, machine: Sequence[str]) -> str:
    """The whole page, which says how to read and how to repeat it."""
    growth, rate = measured.growth, measured.figures[1].ours
    ledger, comet = growth.ledger / growth.entries, growth.cometbft / growth.entries
    yearly = HOSPITALS * STUDIES_A_YEAR * measured.of_study
    a_second = yearly / YEAR_S
    return _PAGE.format(
        table="\n".join(table(measured.figures)),
        idle=measured.idle,
        entries=measured.entries,
        per_thousand=1000 * measured.of_study,
        ledger_mb=1000 * measured.of_study * ledger / 1e6,
        comet_mb=1000 * measured.of_study * comet / 1e6,
        order_s=1000 * measured.of_study / rate,
        hospitals=HOSPITALS,
        studies=STUDIES_A_YEAR,
        rate=a_second,
        ledger_tb=yearly * ledger / 1e12,
        comet_tb=yearly * comet / 1e12,
        asks=HOSPITALS * (HOSPITALS - 1),
        each_asks=HOSPITALS - 1,
        commit_kb=HOSPITALS * _VOTE_BYTES / 1000,
        check_ms=HOSPITALS * _CHECK_MS,
        state_kb=measured.state[0] / 1000,
        state_ms=measured.state[1],
        share=a_second / rate,
        cores=machine[0].split(", ")[1] if machine else "this machine",
        machine="\n".join(f"- {line}" for line in machine),
    )
