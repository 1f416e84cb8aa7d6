"""Deflated data sets (PS3.5 A.5): a raw deflate stream (RFC 1951), inflated piece by piece and bounded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from bridge.dicom import limits
from bridge.errors import Unreadable

_PIECE: Final = 1 << 18


class Inflater:
    """Inflates what it is fed; holds at most one piece."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = 0
        self._given = 0

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """The inflated pieces of the next bytes. What follows the end of the stream (a padding byte) is dropped.

        Raises
        ------
        Unreadable
            Not a deflate stream, or one that grows beyond `limits.INFLATED_BYTES` or `limits.INFLATED_RATIO`.
        """
        self._taken += len(data)
        rest: bytes | memoryview = data
        piece = b""
        while (rest or len(piece) == _PIECE) and not self._stream.eof:  # a full piece may leave output behind
            try:
                piece = self._stream.decompress(rest, _PIECE)
            except zlib.error as error:
                raise Unreadable("the deflated data set is not a deflate stream (RFC 1951)") from error
            rest = self._stream.unconsumed_tail
            self._given += len(piece)
            self._bound()
            yield piece

    def finish(self) -> None:
        """Raises Unreadable when the stream has not come to its end."""
        if not self._stream.eof:
            raise Unreadable("the deflated data set is truncated")

    def _bound(self) -> None:
        if self._given > limits.INFLATED_BYTES:
            raise Unreadable(f"the data set inflates beyond {limits.INFLATED_BYTES} bytes")
        if self._given > limits.INFLATED_FREE and self._given > self._taken * limits.INFLATED_RATIO:
            raise Unreadable(f"the data set inflates more than {limits.INFLATED_RATIO} times")
