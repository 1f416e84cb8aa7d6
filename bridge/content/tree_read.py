"""Which tree a thread is reading: of a block that is kept without a key nothing else tells whose it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["reading", "tree_read"]

_now = threading.local()


@contextmanager
def reading(tag: bytes) -> Iterator[None]:
    """Within the block this thread reads the tree of a study tag."""
    before = tree_read()
    _now.tag = tag
    try:
        yield
    finally:
        _now.tag = before


def tree_read() -> bytes | None:
    """The tag of the tree that this thread is reading, if it said so."""
    return getattr(_now, "tag", None)
