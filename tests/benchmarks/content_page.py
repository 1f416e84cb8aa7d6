"""The page of the content engines' figures."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.ledger_page import Figure, table

_PAGE = """# Performance of the content engines

<!-- Written by `python -m tests.benchmarks.content_speed`; do not edit. -->

Each figure stands beside its raw step, measured in the same run on the same machine, the two taking turns. Trust the
ratios, not the absolute numbers. Repeat it with `python -m tests.benchmarks.content_speed` (some minutes, 20 GB of
disk; with `--quick` a minute, with small studies).

{table}

## What was measured

- Each Kubo is a real {kubo}, alone in a private swarm on loopback, with blocks made durable (flatfs, `sync: true`);
  each measurement begins with an empty repository.
- *Sealed and pinned*: made-up instances of 0.5 MB are sealed, cut into blocks, put into the packs and made durable,
  the manifest made, and its root pinned in Kubo. Studies follow one another; while one is pinned the next is sealed,
  as in a node. The way in over DICOM and the index are not in it.
- *Bare `dag/import`*: the same studies as finished CAR files, each root pinned, and nothing else.
- *`ipfs add`*: the same ciphertext as files, with the same layout and hash, pinned; Kubo makes the blocks itself.
- *Acknowledged*: instances a second that DCMTK's `storescu` had answered by a node with Kubo, beside a node with the
  embedded engine; *while studies are pinned*: several series one after another, without waiting for Kubo.
- *A frame of a multiframe held only by Kubo*: 512 x 512 pixels of 16 bit, from packs that are empty and with nothing
  cached; opened and verified. *Cold*: by a reader that knows nothing yet. *Its node known*: the node above the leaves
  was read for another frame before, as when a viewer scrolls. The raw step gets the same blocks by `block/get`, one
  after another, neither verified nor opened nor kept.
- *Memory*: the largest resident set of a process that does nothing but pin, or import, a study, beside one that does
  the same with a tenth of it.

## Machine, versions

{machine}
"""


def page(figures: Sequence[Figure], machine: Sequence[str], kubo: str) -> str:
    """The whole page, which says how to read and how to repeat it."""
    return _PAGE.format(table="\n".join(table(figures)), machine="\n".join(f"- {line}" for line in machine), kubo=kubo)
