"""What a content engine keeps: one row for each root that is pinned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bridge.model import PinReceipt

__all__ = ["MemoryPins", "Pin", "PinTable"]


class Pin(NamedTuple):
    """A root that is kept: its CID, since when, when it was last read back or scrubbed whole, copies held and asked.

    Times are microseconds since the epoch; `verified` is None while nobody has read it back.
    """

    root: bytes
    pinned: int
    verified: int | None
    replicas: int
    wanted: int


class PinTable(Protocol):
    """The rows, durable when a method returns. Each may raise StorageFull, StorageFault."""

    def record(self, root: bytes, receipt: PinReceipt, wanted: int) -> None:
        """Write the row of a root, or replace what it said; a `verified` that is there stays."""

    def drop(self, root: bytes) -> None:
        """Remove the row of a root; without effect when there is none."""

    def of(self, root: bytes) -> Pin | None:
        """The row of a root, or None."""

    def all(self) -> Sequence[Pin]:
        """Every row, the oldest first."""


class MemoryPins:
    """A pin table that is gone with its process, for stores without an index."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Pin] = {}

    def record(self, root: bytes, receipt: PinReceipt, wanted: int) -> None:
        """As PinTable."""
        old = self._rows.pop(root, None)
        self._rows[root] = Pin(root, receipt.at, old.verified if old else None, receipt.replicas, wanted)

    def drop(self, root: bytes) -> None:
        """As PinTable."""
        self._rows.pop(root, None)

    def of(self, root: bytes) -> Pin | None:
        """As PinTable."""
        return self._rows.get(root)

    def all(self) -> Sequence[Pin]:
        """As PinTable."""
        return sorted(self._rows.values(), key=lambda pin: pin.pinned)
