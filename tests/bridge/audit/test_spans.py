"""Spans of time cover a range exactly, and are as long as they must be for the bins that were asked for."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.audit.spans import DAY, HOUR, LEVELS, cover, span_for

moments = st.integers(0, 2_000_000_000_000_000)


@given(moments, moments)
def test_stretches_cover_a_range_once_and_without_gaps(since, until):
    stretches = list(cover(since, until))
    ends = [since, *(stretch.end for stretch in stretches)]
    assert [stretch.start for stretch in stretches] == ends[:-1]
    assert ends[-1] == max(since, until) if since < until else not stretches


@given(moments, moments)
def test_a_stretch_consists_of_whole_spans(since, until):
    for length, start, end in cover(since, until):
        assert start < end
        if length:
            assert start % length == end % length == 0


@given(moments, st.integers(0, 200 * DAY))
def test_few_spans_are_read_for_any_range(since, length):
    _, *others = LEVELS
    for stretch in cover(since, since + length):
        if stretch.length in others:
            following = LEVELS[LEVELS.index(stretch.length) - 1]
            assert (stretch.end - stretch.start) < 2 * following
        elif not stretch.length:
            assert stretch.end - stretch.start < 2 * HOUR


def test_the_days_of_a_long_histogram_are_counted_by_few_spans():
    for power in range(12):
        span = DAY << power
        assert span // next(length for length in LEVELS if span % length == 0) <= max(2, span // LEVELS[0])


@given(moments, st.integers(0, 10**15), st.integers(1, 200))
def test_at_most_so_many_spans_hold_both_moments(first, length, bins):
    span = span_for(first, first + length, bins)
    assert (first + length) // span - first // span < bins


@given(moments, st.integers(0, 10**12), st.integers(1, 200))
def test_a_span_is_not_longer_than_it_must_be(first, length, bins):
    span = span_for(first, first + length, bins)
    shorter = [step for step in (1, 2, 5, 10, 100, 10_000, 60_000_000, HOUR, DAY, 2 * DAY) if step < span]
    assert all((first + length) // step - first // step >= bins for step in shorter)
