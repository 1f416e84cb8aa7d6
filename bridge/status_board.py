"""What each process of a node last said of itself, in memory shared by a fork: a beat, whether it accepts, its load.

One writer per slot and 8-byte aligned words, so that no lock is needed.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence

_SLOT = struct.Struct("=dq")
_LOAD = struct.Struct("=qq")
_SIZE = _SLOT.size + _LOAD.size
LATE_S = 15.0


class StatusBoard:
    """Slots by process name ("dimse-0", "web-0", "ledger-0"), made before the processes are.

    The node is ready without those that are `spared`: what they do not do now is done later.
    """

    def __init__(self, names: Sequence[str], spared: Sequence[str] = ()) -> None:
        self.names = (*names, *spared)
        self._needed = tuple(names)
        self._memory = mmap.mmap(-1, _SIZE * max(len(self.names), 1))

    def beat(self, name: str, accepting: bool) -> None:
        """Say that the process lives now, and whether it accepts."""
        _SLOT.pack_into(self._memory, self.names.index(name) * _SIZE, time.monotonic(), int(accepting))

    def clear(self, name: str) -> None:
        """Forget a process that has ended."""
        _SLOT.pack_into(self._memory, self.names.index(name) * _SIZE, 0.0, 0)
        self.load(name, 0, 0)

    def load(self, name: str, connections: int, admitted: int) -> None:
        """Say how many connections the process holds, and how many of them are admitted."""
        _LOAD.pack_into(self._memory, self.names.index(name) * _SIZE + _SLOT.size, connections, admitted)

    def loads(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """What each of these processes said of its load."""
        at = (self.names.index(name) * _SIZE + _SLOT.size for name in names)
        return [_LOAD.unpack_from(self._memory, offset) for offset in at]

    def reasons(self) -> list[str]:
        """Why the node is not ready: one line for each process that is late or does not accept."""
        return self._late(self._needed)

    def spared(self) -> list[str]:
        """The same of the processes without which the node is ready."""
        return self._late(self.names[len(self._needed) :])

    def _late(self, names: Sequence[str]) -> list[str]:
        now = time.monotonic()
        reasons = []
        for name in names:
            at, accepting = _SLOT.unpack_from(self._memory, self.names.index(name) * _SIZE)
            if not at or now - at > LATE_S:
                reasons.append(f"{name} does not answer")
            elif not accepting:
                reasons.append(f"{name} does not accept yet")
        return reasons
