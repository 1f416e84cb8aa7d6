"""Solids cut into spans of pixels, so that plain Python paints a volume in a fraction of a second. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, cos, floor, radians, sin, sqrt
from typing import NamedTuple


class Ellipsoid(NamedTuple):
    """Centre and half axes in millimetres (x to the patient's left, y to the back, z to the head), value inside.

    `turn` is an angle in degrees about the z axis.
    """

    x: float
    y: float
    z: float
    a: float
    b: float
    c: float
    turn: float
    value: int


class Span(NamedTuple):
    """Pixels `first` (inclusive) to `last` (exclusive) of a row."""

    row: int
    first: int
    last: int


def spans(solid: Ellipsoid, z: float, rows: int, columns: int, spacing: float) -> Iterator[Span]:
    """The spans of the plane at `z` that lie inside; the image's centre is x = y = 0, `spacing` mm between pixels."""
    rest = 1 - ((z - solid.z) / solid.c) ** 2
    if rest <= 0:
        return
    a, b = solid.a * sqrt(rest), solid.b * sqrt(rest)
    cosine, sine = cos(radians(solid.turn)), sin(radians(solid.turn))
    # Points (u, v) about the centre lie inside where p u^2 + 2 q u v + r v^2 <= 1.
    p = (cosine / a) ** 2 + (sine / b) ** 2
    q = cosine * sine * (1 / a**2 - 1 / b**2)
    r = (sine / a) ** 2 + (cosine / b) ** 2
    for row in range(rows):
        v = (row - (rows - 1) / 2) * spacing - solid.y
        under = (q * v) ** 2 - p * (r * v * v - 1)
        if under <= 0:
            continue
        middle, half = solid.x - q * v / p, sqrt(under) / p
        first = max(0, ceil((middle - half) / spacing + (columns - 1) / 2))
        last = min(columns, floor((middle + half) / spacing + (columns - 1) / 2) + 1)
        if first < last:
            yield Span(row, first, last)
