"""When a member is asked next: soon while something goes on with it, ever more seldom while nothing does. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["FIRST_US", "LONGEST_US", "Pace"]

FIRST_US: Final = 1_000_000
LONGEST_US: Final = 600 * 1_000_000


class Pace:
    """The next time for each member, by its node id; all times are in microseconds.

    Each question that brought nothing doubles the pause, from a second up to ten minutes.
    """

    def __init__(self) -> None:
        self._pause: dict[bytes, int] = {}
        self._next: dict[bytes, int] = {}

    def is_due(self, node: bytes, now: int) -> bool:
        """Whether a member may be asked; one that never was, at once."""
        return self._next.get(node, now) <= now

    def hurry(self, node: bytes) -> None:
        """Something goes on with a member: it may be asked at once, and soon again."""
        self._pause.pop(node, None)
        self._next.pop(node, None)

    def asked(self, node: bytes, now: int, *, news: bool) -> None:
        """A member was asked, and whether that brought anything new."""
        pause = FIRST_US if news or node not in self._pause else min(2 * self._pause[node], LONGEST_US)
        self._pause[node] = pause
        self._next[node] = now + pause
