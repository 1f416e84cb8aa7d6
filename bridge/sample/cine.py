"""A colour cine loop as an ultrasound scanner makes it: a sector, a chamber that beats, coloured flow."""

from __future__ import annotations

from math import cos, pi, sin

from bridge.sample.shapes import Ellipsoid, spans

FRAMES = 16
ROWS, COLUMNS = 240, 320
FRAME_TIME = 62.5
"""Milliseconds between frames: one heart beat a second."""

_BLACK = b"\0\0\0"


def frame_pixels(number: int) -> bytes:
    """One frame: `ROWS` x `COLUMNS` RGB bytes, colour by pixel (Planar Configuration 0)."""
    image = bytearray(_BLACK * (ROWS * COLUMNS))
    _sector(image)
    phase = 2 * pi * number / FRAMES
    beat = 1 + 0.22 * sin(phase)
    _fill(image, Ellipsoid(0, 12, 0, 62 * beat, 74 * beat, 1, 12, 0), b"\x78\x72\x68")  # the wall
    _fill(image, Ellipsoid(0, 12, 0, 46 * beat, 58 * beat, 1, 12, 0), b"\x10\x0e\x0e")  # the chamber
    flow = sin(phase)
    colour = bytes((int(200 * flow), 30, 20)) if flow > 0 else bytes((20, 40, int(-220 * flow)))
    _fill(image, Ellipsoid(4 * cos(phase), 0, 0, 15, 34, 1, 12, 0), colour)
    return bytes(image)


def _sector(image: bytearray) -> None:
    """Grey speckle of the scanned sector, whose tip is at the top; the same for every frame."""
    for row in range(8, ROWS - 8):
        half = min(COLUMNS // 2 - 8, int(12 + row * 0.62))
        first = COLUMNS // 2 - half
        line = bytearray()
        for column in range(first, first + 2 * half, 4):
            grey = 34 + ((row // 3 * 7919 + column * 104729) >> 3) % 29
            line += bytes((grey, grey, grey)) * 4
        at = (row * COLUMNS + first) * 3
        image[at : at + 6 * half] = line[: 6 * half]


def _fill(image: bytearray, shape: Ellipsoid, colour: bytes) -> None:
    for row, first, last in spans(shape, 0, ROWS, COLUMNS, 1):
        at = row * COLUMNS
        image[3 * (at + first) : 3 * (at + last)] = colour * (last - first)
