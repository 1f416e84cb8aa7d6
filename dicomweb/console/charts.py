"""Drawings as SVG, without script and without inline style: density of events, days, lanes of a story. Pure.

Colours come from the style sheet by class. Every drawing has a text that says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from dicomweb.console.html import Content, Html, tag
from dicomweb.console.words import GROUPS, count, moment

WIDTH: Final = 1000
_LANE: Final = 28
_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND


def drawing(name: str, height: int, *content: Content, class_: str = "chart") -> Html:
    """An SVG picture that is stretched to the page's width; `name` is what it says to who cannot see it."""
    return tag(
        "svg",
        tag("title", name),
        content,
        viewBox=f"0 0 {WIDTH} {height}",
        class_=class_,
        role="group" if class_ == "chart links" else "img",
        aria_label=name,
        preserveAspectRatio="none",
    )


def histogram(bins: Sequence[tuple[int, int]], step: int, address: Callable[[int, int], str]) -> Html:
    """Events by time: one bar for each span of `step` microseconds, each leading to that stretch of time.

    Heights grow with the square root of the count, so that one busy hour does not hide all others.
    """
    most = max((number for _, number in bins), default=0)
    total = sum(number for _, number in bins)
    height, base = 120, 116
    wide = WIDTH / max(len(bins), 1)
    bars = []
    for place, (start, number) in enumerate(bins):
        if not number:
            continue
        tall = max(4.0, math.sqrt(number / most) * (base - 6))
        words = f"{count(number, 'event')}, {_between(start, start + step)}"
        whole = tag("rect", x=place * wide, y=0, width=wide, height=height, class_="hit")
        bar = tag(
            "rect", x=place * wide + wide * 0.08, y=base - tall, width=wide * 0.84, height=tall, rx=2, class_="bar"
        )
        bars.append(tag("a", tag("title", words), whole, bar, href=address(start, start + step), aria_label=words))
    line = tag("line", x1=0, y1=base + 1, x2=WIDTH, y2=base + 1, class_="base")
    name = f"{count(total, 'event')} by time, in {count(len(bins), 'bar')}; each narrows the time to its own"
    return tag(
        "div",
        drawing(name, height, line, bars, class_="chart links"),
        axis(bins[0][0], bins[-1][0] + step),
        class_="histogram",
    )


def axis(start: int, end: int, marks: int = 5) -> Html:
    """Moments below a drawing at equal distances, as text of the page: it must not be stretched with the picture."""
    step = (end - start) / (marks - 1)
    form = _form(end - start)
    places = [tag("li", form(moment(round(start + step * number)))) for number in range(marks)]
    return tag("ol", places, class_="axis", aria_hidden="true")


def days(counts: Sequence[tuple[datetime, int]], unit: str) -> Html:
    """A bar for each day, oldest first."""
    most = max((number for _, number in counts), default=0) or 1
    height, base = 120, 116
    wide = WIDTH / max(len(counts), 1)
    bars = []
    for place, (when, number) in enumerate(counts):
        tall = number / most * (base - 6)
        words = tag("title", f"{when.day} {when:%B %Y}: {count(number, unit)}")
        hit = tag("rect", x=place * wide, y=0, width=wide, height=height, class_="hit")
        bar = tag("rect", x=place * wide + wide * 0.1, y=base - tall, width=wide * 0.8, height=tall, rx=2, class_="bar")
        bars.append(tag("g", words, hit, bar if number else None))
    line = tag("line", x1=0, y1=base + 1, x2=WIDTH, y2=base + 1, class_="base")
    total = sum(number for _, number in counts)
    name = f"{count(total, unit)} in {count(len(counts), 'day')}, at most {most:,} in one"
    labels = [counts[round(place * (len(counts) - 1) / 4)][0] for place in range(5)] if counts else []
    below = [tag("li", f"{when.day} {when:%b}") for when in labels]
    return tag("div", drawing(name, height, line, bars), tag("ol", below, class_="axis", aria_hidden="true"))


def lanes(moments: Mapping[str, Sequence[int]], start: int, end: int) -> Html:
    """A story: a lane for each kind of event (keys of GROUPS) with a dot for each moment between start and end.

    Dots are lines of no length with round ends, which stay round however the picture is stretched.
    """
    reach = max(end - start, 1)
    left, right, middle = 8, WIDTH - 8, _LANE / 2
    rows = []
    for kind, times in moments.items():
        seen = sorted({round(left + (time - start) / reach * (right - left), 1) for time in times})
        line = tag("line", x1=0, y1=middle, x2=WIDTH, y2=middle, class_="lane")
        dots = [tag("line", x1=x, y1=middle, x2=x, y2=middle, class_=f"dot {kind}") for x in seen]
        name = f"{GROUPS[kind]}: {count(len(times), 'time')}"
        rows.append(tag("div", tag("dt", GROUPS[kind]), tag("dd", drawing(name, _LANE, line, dots))))
    return tag(
        "div", tag("dl", rows, class_="lanes"), tag("div", axis(start, end), class_="under-lanes"), class_="story"
    )


def share(part: int, whole: int, name: str) -> Html:
    """A bar of which a part is filled, such as a disk."""
    filled = max(0.0, min(1.0, part / whole)) * WIDTH if whole else 0.0
    back = tag("rect", x=0, y=0, width=WIDTH, height=14, class_="track")
    bar = tag("rect", x=0, y=0, width=filled, height=14, class_="bar")
    return drawing(name, 14, back, bar)


def _form(reach: int) -> Callable[[datetime], str]:
    """How moments are written on an axis that spans so many microseconds."""
    if reach < 8 * _SECOND:
        return lambda when: f"{when:%H:%M:%S}.{when.microsecond // 100_000}"
    if reach < 10 * 60 * _SECOND:
        return lambda when: f"{when:%H:%M:%S}"
    if reach < 2 * _DAY:
        return lambda when: f"{when.day} {when:%b %H:%M}"
    if reach < 300 * _DAY:
        return lambda when: f"{when.day} {when:%b}"
    return lambda when: f"{when:%b %Y}"


def _between(start: int, end: int) -> str:
    first, last = moment(start), moment(end)
    if end - start >= _DAY:
        return f"from {first.day} {first:%B %Y} to {last.day} {last:%B %Y}"
    if end - start < _SECOND:
        return f"{first.day} {first:%B %Y, %H:%M:%S}.{first.microsecond // 1000:03d}"
    return f"{first.day} {first:%B %Y, %H:%M:%S} to {last:%H:%M:%S}"
