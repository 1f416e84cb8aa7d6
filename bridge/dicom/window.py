"""The stretch of a data set that is in memory: bytes come in at one end and are dropped behind the reader.

A reader is a generator that yields how many bytes it needs from its position on, and is resumed when they are there.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from bridge.dicom import limits
from bridge.errors import Unreadable

Steps = Generator[int, None, None]
_CHUNK: Final = 1 << 16
"""Bytes taken at a time, so that of a chunk of pixel data little is copied before it is known to be that."""


class Window:
    """Bytes and a position in them.

    `data[position:]` is what lies ahead; `base` is the offset of `data[0]` in the data set; `passed` counts the bytes
    that `skip` passed over. A position beyond `data` means that bytes still to come are passed over.
    """

    __slots__ = ("_need", "_pending", "_to_drop", "base", "data", "length", "limit", "passed", "position")

    def __init__(self) -> None:
        self.data = b""
        self.position = 0
        self.base = 0
        self.passed = 0
        self.length = 0
        self.limit = limits.HEADER_BYTES
        self._pending = bytearray()
        self._to_drop = 0
        self._need = 0

    @property
    def offset(self) -> int:
        """The position's offset in the data set."""
        return self.base + self.position

    @property
    def read(self) -> int:
        """Bytes that were read and not passed over."""
        return self.base + self.position - self.passed

    @property
    def rest(self) -> bytes:
        """What has come and is not read."""
        return bytes(self._pending)

    @property
    def awaits_skipped(self) -> bool:
        """Whether bytes that are to be passed over have not come yet."""
        return self._to_drop > 0

    def skip(self, count: int) -> None:
        """Pass over the next bytes, whether or not they have come."""
        self.position += count
        self.passed += count

    def feed(self, steps: Steps, data: bytes | memoryview) -> None:
        """Add bytes of any number and let the reader go on as far as they reach.

        Raises Unreadable when more than `limit` bytes are read, and whatever the reader raises.
        """
        view = memoryview(data)
        self.length += len(view)
        at, size = 0, len(view)
        while at < size:
            if self._to_drop:
                dropped = min(self._to_drop, size - at)
                self._to_drop -= dropped
                at += dropped
                continue
            taken = view[at : at + _CHUNK]
            at += len(taken)
            self._pending += taken
            if len(self._pending) >= self._need:
                self._advance(steps)

    def _advance(self, steps: Steps) -> None:
        self.data = bytes(self._pending)
        self._need = next(steps)
        self._to_drop = max(0, self.position - len(self.data))
        del self._pending[: self.position]
        self.base += self.position
        self.position = 0
        self.data = b""
        if self.base - self.passed > self.limit:
            raise Unreadable("the header of the data set is too long")
