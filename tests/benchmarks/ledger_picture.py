"""The picture of what a proof costs: size and time over the size of the log, on a logarithmic scale, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.benchmarks.ledger_steps import ProofCost

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 690, 50, 340
_SIZE, _MAKE, _CHECK = "#1f6feb", "#b35900", "#1a7f37"


def draw(costs: Sequence[ProofCost]) -> str:
    """An SVG: characters of a proof on the left scale, milliseconds to make and to verify on the right one."""
    most = max(costs[-1].size, 10)
    characters = _round_up(max(cost.characters for cost in costs))
    milliseconds = _round_up(max(max(cost.make_ms, cost.verify_ms) for cost in costs))

    def x(size: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log10(size) / math.log10(most)

    def points(value: Callable[[ProofCost], float], top: float) -> list[tuple[float, float]]:
        return [(x(cost.size), _BOTTOM - (_BOTTOM - _TOP) * value(cost) / top) for cost in costs]

    title = "Proof size and time against the size of the log"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{title}</title>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        _text(_WIDTH / 2, 26, title, "middle", "#1f2328", 16),
        *_scale(x, most),
        *_levels(characters, milliseconds),
        _curve(points(lambda cost: cost.characters, characters), _SIZE, ""),
        _curve(points(lambda cost: cost.make_ms, milliseconds), _MAKE, "7 4"),
        _curve(points(lambda cost: cost.verify_ms, milliseconds), _CHECK, "2 4"),
        _text(_WIDTH / 2, 382, "entries in the log (logarithmic)", "middle", "#1f2328"),
        *_legend(),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _round_up(value: float) -> float:
    """The next 1, 2, 2.5, 4, 5 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value)


def _scale(x: Callable[[float], float], most: int) -> list[str]:
    """The powers of ten below."""
    parts = []
    for power in range(int(math.log10(most)) + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{_BOTTOM}" stroke="#eaeef2"/>')
        parts.append(_text(at, _BOTTOM + 20, f"{10**power:,}", "middle"))
    return parts


def _levels(characters: float, milliseconds: float) -> list[str]:
    """The scales on both sides, in five steps."""
    parts = []
    for step in range(6):
        y = _BOTTOM - (_BOTTOM - _TOP) * step / 5
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{characters * step / 5:,.0f}", "end", _SIZE))
        parts.append(_text(_RIGHT + 8, y + 4, f"{milliseconds * step / 5:.2g} ms", "start", _MAKE))
    return parts


def _curve(points: Sequence[tuple[float, float]], colour: str, dashes: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>'
    return line + dots


def _legend() -> list[str]:
    parts = []
    at = 130.0
    for words, colour, dashes in (
        ("characters of a proof", _SIZE, ""),
        ("ms to make", _MAKE, "7 4"),
        ("ms to verify", _CHECK, "2 4"),
    ):
        line = f'<line x1="{at}" y1="404" x2="{at + 30}" y2="404" stroke="{colour}" stroke-width="2"'
        parts.append(f'{line} stroke-dasharray="{dashes}"/>')
        parts.append(_text(at + 38, 408, words, "start", "#1f2328"))
        at += 200
    return parts


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#59636e", size: int = 13) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">'
        f"{escape(words)}</text>"
    )
