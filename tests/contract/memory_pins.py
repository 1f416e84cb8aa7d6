"""A pin table that is gone with its process, for stores without an index."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.content.pins import Pin
from bridge.model import PinReceipt


class MemoryPins:
    """As `bridge.content.pins.PinTable`."""

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
