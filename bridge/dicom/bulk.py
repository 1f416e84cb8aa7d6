"""Where the values lie that metadata names by BulkDataURI (PS3.18 10.4.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Self

import cbor2


class BulkValue(NamedTuple):
    """One value field: its VR, and its offset and length in bytes from the first byte of the (inflated) data set.

    Of encapsulated pixel data it is everything from the Basic Offset Table's item to the sequence delimiter.
    """

    vr: str
    offset: int
    length: int


class BulkTable(Mapping[str, BulkValue]):
    """Bulk values by path: "00420011", in sequences "00400275.0.00091002" (tag, item counted from 0, tag)."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, BulkValue]) -> None:
        self._values = dict(values)

    def __getitem__(self, path: str) -> BulkValue:
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def encode(self) -> bytes:
        """As CBOR (RFC 8949): a map of path to [VR, offset, length]."""
        return cbor2.dumps({path: list(value) for path, value in self._values.items()})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What `encode` made."""
        return cls({path: BulkValue(*value) for path, value in cbor2.loads(data).items()})
