"""The background scrub's plan: everything once in a period, evenly, through restarts and absences."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bridge.services.scrub_plan import DAY_US, Pass, after_tree, next_at, weight

PERIOD = 30 * DAY_US
SIZES = st.lists(st.integers(0, 2000), min_size=1, max_size=40)


def passed(sizes: Sequence[int], begun: int = 0, start: int = 0, *, restarts: bool = False) -> list[int]:
    """When each tree of a pass is read, by the plan alone; `restarts`: it is asked a day before each turn too."""
    state, now, read = Pass(begun), start, []
    for tree, covered in enumerate(sizes, 1):
        left = sum(weight(size) for size in sizes[tree - 1 :])
        if restarts:
            next_at(state, left, PERIOD, max(now, next_at(state, left, PERIOD, now) - DAY_US))
        now = max(now, next_at(state, left, PERIOD, now))
        read.append(now)
        state = after_tree(state, tree, covered, now, blocks=2, octets=3, wrong=1, mended=0)
    assert (state.trees, state.blocks, state.octets, state.wrong) == (
        len(sizes),
        2 * len(sizes),
        3 * len(sizes),
        len(sizes),
    )
    return read


@given(SIZES, st.booleans())
def test_every_tree_is_read_once_before_the_period_ends(sizes: list[int], restarts: bool) -> None:
    read = passed(sizes, restarts=restarts)
    assert read == sorted(read) and read[0] == 0 and read[-1] < PERIOD


@given(SIZES)
def test_a_tree_is_rested_upon_for_as_long_as_it_weighs(sizes: list[int]) -> None:
    read = [*passed(sizes), PERIOD]
    total = sum(map(weight, sizes))
    for size, began, after in zip(sizes, read, read[1:], strict=False):
        assert abs((after - began) - PERIOD * weight(size) / total) < len(sizes) + 2


def test_the_next_pass_begins_when_the_period_is_over() -> None:
    state = after_tree(Pass(5), 1, 10, 5, blocks=1, octets=1, wrong=0, mended=0)
    assert next_at(state, 0, PERIOD, 5) == 5 + PERIOD
    assert next_at(Pass(5), 0, PERIOD, 5) == 5 + PERIOD


def test_what_is_stored_meanwhile_is_read_in_the_same_pass() -> None:
    state = after_tree(Pass(0), 1, 9, 0, blocks=1, octets=1, wrong=0, mended=0)
    came = 20 * DAY_US
    due = next_at(state, weight(0), PERIOD, came)
    assert came < due < PERIOD


@given(SIZES, st.integers(0, 400))
def test_a_pass_that_is_late_is_caught_up_within_a_tenth_of_a_period(sizes: list[int], days: int) -> None:
    start = PERIOD + days * DAY_US
    read = passed(sizes, start=start)
    assert read[0] == start and read[-1] < start + PERIOD // 10 + 1
    assert not len(sizes) > 1 or read[-1] > start
