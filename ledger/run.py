"""A run of the log read by itself: what can be said of some entries without those before them.

Runs are read apart, by different processes, and put together in order by `ledger.verify.LogCheck.sound`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ledger import merkle
from ledger.tiles import ENTRIES, HEIGHT, WIDTH, Tile, bundle_bytes, subtree_root
from ledger.verify import LogCheck, Sound, Trust, Visitor


class Run(NamedTuple):
    """Some entries: the index of the first, the hash of the envelope before it, the envelopes, the leaves they are said
    to have, and the stored (size, checkpoint) of the sizes that they lead through, ascending.

    The index is a multiple of a power of two that is not less than the number of envelopes.
    """

    first: int
    previous: bytes
    envelopes: Sequence[bytes]
    leaves: Sequence[bytes]
    checkpoints: Sequence[tuple[int, str]]


def begun(run: Run, trust: Trust, signatures: bool) -> LogCheck:
    """The check of a run of a log that one key signs."""
    check = LogCheck(trust, signatures)
    check.sequence, check.previous = run.first, run.previous
    return check


def read_run(run: Run, check: LogCheck, signatures: bool = True, visit: Visitor | None = None) -> Sound | None:
    """Steps 1 to 3 of `ledger.verify`, leaves, and of step 5 the checkpoints' signatures; None if any finds anything.

    Whoever gets None reads the run entry by entry, to say what it is. `check` stands where the run begins. Without
    `signatures`, envelopes are only hashed.
    """
    roots = []
    if signatures:
        for index, envelope in enumerate(run.envelopes, run.first):
            said = check.opened(index, envelope)
            if said is not None:
                roots.append(check.root(said))
            if visit:
                visit(index, envelope, said)
    heads = [check.head(size, note) for size, note in run.checkpoints]
    leaves = [hashlib.sha256(b"\x00" + envelope).digest() for envelope in run.envelopes]
    if check.report.findings or leaves != run.leaves:
        return None
    tree = _Tree(run.first, leaves)
    within = tuple((head, tree.grown(head.size - run.first)) for head in heads if head is not None)
    return Sound(
        run.first,
        run.previous,
        check.previous,
        len(leaves),
        tree.grown(len(leaves)),
        within,
        tuple(tree.nodes),
        tuple(roots),
        frozenset(check.report.erased),
        tuple(_full_tiles(run, leaves)),
        tuple(check.steps),
    )


class _Tree:
    """The tree over the leaves of a run alone, and the subtrees in it that are in tiles above level 0."""

    def __init__(self, first: int, leaves: Sequence[bytes]) -> None:
        self._first, self._leaves = first, leaves
        self._frontier = merkle.Frontier()
        self.nodes: list[tuple[int, int, bytes]] = []

    def grown(self, size: int) -> tuple[bytes, ...]:
        """Its frontier at a size that is not less than the one asked for before."""
        frontier, leaves = self._frontier, self._leaves
        while (at := frontier.size) < size:
            if at % WIDTH == 0 and at + WIDTH <= size:
                frontier.join(HEIGHT, subtree_root(b"".join(leaves[at : at + WIDTH])), self._keep)
            else:
                frontier.append(leaves[at], self._keep)
        return frontier.hashes

    def _keep(self, level: int, index: int, value: bytes) -> None:
        if level and level % HEIGHT == 0:
            self.nodes.append((level, (self._first >> level) + index, value))


def _full_tiles(run: Run, leaves: Sequence[bytes]) -> Iterator[tuple[Tile, bytes]]:
    if run.first % WIDTH == 0:
        for at in range(0, len(leaves) - WIDTH + 1, WIDTH):
            number = (run.first + at) // WIDTH
            bundle = bundle_bytes(run.envelopes[at : at + WIDTH])
            yield Tile(ENTRIES, number, WIDTH), hashlib.sha256(bundle).digest()
            yield Tile(0, number, WIDTH), hashlib.sha256(b"".join(leaves[at : at + WIDTH])).digest()
