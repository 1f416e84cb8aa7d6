"""What this node has itself: a content store that lacks a block asks other members for it, and at times must not.

Who serves others asks nobody, or members that lack a block would ask each other in a circle. Who judges what is held
here must not take what another member holds for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["asks_nobody", "at_hand_only"]

_thread = threading.local()


@contextmanager
def at_hand_only() -> Iterator[None]:
    """Within the block no gateway is asked by this thread: each has nothing to give."""
    before = asks_nobody()
    _thread.asks_nobody = True
    try:
        yield
    finally:
        _thread.asks_nobody = before


def asks_nobody() -> bool:
    """Whether this thread is in such a block."""
    return getattr(_thread, "asks_nobody", False)
