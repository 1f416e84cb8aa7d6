"""A head phantom in the manner of Shepp and Logan (IEEE Trans. Nucl. Sci. 21, 1974), in Hounsfield units.

Its tissues are painted one over the other, not added. Between the ventricles stands a cairn of three stones.
"""

from __future__ import annotations

import sys
from array import array

from bridge.sample.shapes import Ellipsoid, spans

SLICES = 60
ROWS = COLUMNS = 256
PIXEL_SPACING = 0.9375
"""Millimetres: a field of view of 240 mm."""
SLICE_SPACING = 3.0
INTERCEPT = -1024
"""Stored value 0 is -1024 HU; values are unsigned, 12 bits stored."""

AIR = -1000
_HEAD = (
    Ellipsoid(0, 0, 0, 88, 106, 96, 0, 60),  # scalp
    Ellipsoid(0, 0, 0, 84, 102, 92, 0, 900),  # skull
    Ellipsoid(0, 0, 0, 78, 96, 86, 0, 38),  # grey matter
    Ellipsoid(-32, 4, 6, 34, 62, 58, 8, 28),  # white matter
    Ellipsoid(32, 4, 6, 34, 62, 58, -8, 28),
    Ellipsoid(-18, 0, 10, 9, 34, 26, 18, 5),  # lateral ventricles
    Ellipsoid(18, 0, 10, 11, 32, 26, -18, 5),
    Ellipsoid(0, 42, -34, 30, 24, 22, 0, 42),  # cerebellum
    Ellipsoid(0, 40, -34, 5, 8, 9, 0, 6),  # fourth ventricle
    Ellipsoid(-30, -84, -28, 13, 13, 13, 0, 12),  # eyes
    Ellipsoid(30, -84, -28, 13, 13, 13, 0, 12),
    Ellipsoid(0, -78, -46, 14, 20, 16, 0, AIR),  # nasal cavity
    Ellipsoid(44, 38, 30, 9, 12, 10, 30, 72),  # a haemorrhage
    Ellipsoid(-46, -30, 24, 11, 8, 9, -20, 18),  # an infarct
    Ellipsoid(-8, 52, 22, 2, 2, 3, 0, 400),  # a calcification
    Ellipsoid(0, -22, 4, 13, 9, 7, 0, 250),  # the cairn
    Ellipsoid(1, -22, 16, 9, 7, 6, 12, 310),
    Ellipsoid(-1, -22, 26, 6, 5, 5, -15, 370),
)


def slice_position(number: int) -> float:
    """z of a slice in millimetres, counted from 0 at the feet."""
    return (number - (SLICES - 1) / 2) * SLICE_SPACING


def slice_pixels(number: int) -> bytes:
    """Stored values of a slice: `ROWS` x `COLUMNS` unsigned 16-bit little endian, rows from front to back."""
    image = array("H", [AIR - INTERCEPT]) * (ROWS * COLUMNS)
    z = slice_position(number)
    for solid in _HEAD:
        fill = array("H", [solid.value - INTERCEPT]) * COLUMNS
        for row, first, last in spans(solid, z, ROWS, COLUMNS, PIXEL_SPACING):
            image[row * COLUMNS + first : row * COLUMNS + last] = fill[: last - first]
    if sys.byteorder == "big":
        image.byteswap()
    return image.tobytes()
