"""What the background scrub reads next, and when, so that everything is read once in a period. Pure.

A *pass* takes the trees by ascending id; one that appears meanwhile comes behind the others and is read in the same
pass. Trees weigh what they hold. A tree is read in one go and then rested upon for as long as it weighs:

    pass |--tree 1--|-tree 2-|------tree 3------| ... left ... | end = begun + period
         read        read     read                             the next pass begins

so the mean load is what has to be read, divided by the time there is, however the trees differ. What a pass needs to go
on after a restart is four numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["CATCH_UP", "DAY_US", "Pass", "after_tree", "next_at", "weight"]

DAY_US: Final = 86_400_000_000
CATCH_UP: Final = 10
"""A pass that is late, as when the node was off for weeks, gets so many parts of a period more, not all at once."""


@dataclass(frozen=True, slots=True)
class Pass:
    """How far a pass is: times in microseconds since the epoch.

    `begun` is when it began, `after` the id of the last tree read (0: none yet), `last` when that was, `rested` its
    weight. What was found so far: `trees`, `blocks` and `octets` read, blocks found `wrong`, of them `mended`.
    """

    begun: int
    after: int = 0
    last: int = 0
    rested: int = 0
    trees: int = 0
    blocks: int = 0
    octets: int = 0
    wrong: int = 0
    mended: int = 0


def weight(covered: int) -> int:
    """What a tree of so many instances weighs: a tree with none has a root to be read too."""
    return covered + 1


def next_at(pass_: Pass, left: int, period: int, now: int) -> int:
    """When the next tree of a pass is to be read, or the next pass to begin when nothing is left.

    Parameters
    ----------
    left
        The weight of all trees that this pass has not read yet.
    period
        The length of a pass in microseconds.
    now
        For a pass that is late: its end is then put off by tenths of a period until it lies ahead.

    The tree read last is rested upon for its share of what was to be read when it was begun: with L left and W rested,
    W / (L + W) of the time from then to the end. Each tree so has the end of its share before the pass's end.
    """
    if not left:
        return pass_.begun + period
    end, more = pass_.begun + period, max(1, period // CATCH_UP)
    if now >= end:
        end += ((now - end) // more + 1) * more
    return pass_.last + (end - pass_.last) * pass_.rested // (left + pass_.rested) if pass_.rested else now


def after_tree(
    pass_: Pass, tree: int, covered: int, now: int, *, blocks: int, octets: int, wrong: int, mended: int
) -> Pass:
    """The pass when one more tree was read, and what was found in it."""
    return replace(
        pass_,
        after=tree,
        last=now,
        rested=weight(covered),
        trees=pass_.trees + 1,
        blocks=pass_.blocks + blocks,
        octets=pass_.octets + octets,
        wrong=pass_.wrong + wrong,
        mended=pass_.mended + mended,
    )
