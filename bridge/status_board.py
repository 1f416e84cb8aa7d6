"""What each process of a node last said of itself, in memory shared by a fork: a beat, and whether it accepts work.

One writer per slot and 8-byte aligned words, so that no lock is needed.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence

_SLOT = struct.Struct("=dq")
LATE_S = 15.0


class StatusBoard:
    """Slots by process name ("dimse-0", "web-0", "ledger-0"), made before the processes are."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._memory = mmap.mmap(-1, _SLOT.size * max(len(names), 1))

    def beat(self, name: str, accepting: bool) -> None:
        """Say that the process lives now, and whether it accepts."""
        _SLOT.pack_into(self._memory, self.names.index(name) * _SLOT.size, time.monotonic(), int(accepting))

    def clear(self, name: str) -> None:
        """Forget a process that has ended."""
        _SLOT.pack_into(self._memory, self.names.index(name) * _SLOT.size, 0.0, 0)

    def reasons(self) -> list[str]:
        """Why the node is not ready: one line for each process that is late or does not accept."""
        now = time.monotonic()
        reasons = []
        for index, name in enumerate(self.names):
            at, accepting = _SLOT.unpack_from(self._memory, index * _SLOT.size)
            if not at or now - at > LATE_S:
                reasons.append(f"{name} does not answer")
            elif not accepting:
                reasons.append(f"{name} does not accept yet")
        return reasons
