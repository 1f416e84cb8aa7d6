"""Spans of time: the bins of a histogram, and how a range is put together from hours and days counted before.

All times are microseconds since the epoch; a span of a length begins at a multiple of it. Pure; thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Final, NamedTuple

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
LEVELS: Final = (64 * DAY, 16 * DAY, 4 * DAY, DAY, HOUR)
"""The lengths that events are counted by, longest first; each is a multiple of the next."""

_BELOW_A_DAY: Final = (
    *(step * 10**power for power in range(6) for step in (1, 2, 5)),
    *(seconds * SECOND for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * HOUR for hours in (1, 2, 3, 6, 12)),
)


class Stretch(NamedTuple):
    """[start, end), to be read from what was counted by `length`; 0: from the events themselves."""

    length: int
    start: int
    end: int


def span_for(first: int, last: int, bins: int) -> int:
    """The shortest round length of which at most `bins` (at least 1) spans hold both moments and all between."""
    lengths: Iterator[int] = chain(_BELOW_A_DAY, (DAY << power for power in count()))
    return next(span for span in lengths if last // span - first // span < max(bins, 1))


def cover(since: int, until: int, lengths: Sequence[int] = LEVELS) -> Iterator[Stretch]:
    """The stretches that make up [since, until), each read from the longest of `lengths` that fits into it."""
    if since >= until:
        return
    if not lengths:
        yield Stretch(0, since, until)
        return
    length, *shorter = lengths
    start, end = -(-since // length) * length, until // length * length
    if start >= end:
        yield from cover(since, until, shorter)
        return
    yield from cover(since, start, shorter)
    yield Stretch(length, start, end)
    yield from cover(end, until, shorter)
