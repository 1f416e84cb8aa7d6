"""Which blocks lie below a root: a set of CIDs in few bytes, made by walking the tree once."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from bridge.content import cid as cids
from bridge.content import dag, manifest
from bridge.errors import ContentCorrupt, ContentMissing

__all__ = ["CidSet", "Membership"]

_KEPT: Final = 16
"""Bytes kept of each digest, its last: to be taken for another block one must agree with it in 128 bits of a hash."""
MOST_BYTES: Final = 64 << 20
MOST_FORMER: Final = 64


class CidSet:
    """An immutable set of CIDs, 16 bytes each."""

    __slots__ = ("_sorted",)

    def __init__(self, members: Iterable[bytes], more: CidSet | None = None) -> None:
        kept = {cid[-_KEPT:] for cid in members}
        self._sorted = b"".join(sorted(kept.union(more or ())))

    def __contains__(self, cid: object) -> bool:
        if not isinstance(cid, bytes):
            return False
        wanted = cid[-_KEPT:]
        place = bisect_left(range(len(self)), wanted, key=self._at)
        return place < len(self) and self._at(place) == wanted

    def __len__(self) -> int:
        return len(self._sorted) // _KEPT

    def __iter__(self) -> Iterator[bytes]:
        return (self._at(place) for place in range(len(self)))

    def _at(self, place: int) -> bytes:
        return self._sorted[place * _KEPT : (place + 1) * _KEPT]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self._sorted)


class Membership:
    """What lies below roots, of those asked about last. Thread-safe; one tree is walked at a time.

    Parameters
    ----------
    get
        The verified block of a CID. Leaves are not read.
    most_bytes
        What is kept in memory at most, in bytes; the least used sets go first.
    """

    def __init__(self, get: dag.Get, most_bytes: int = MOST_BYTES) -> None:
        self._get = get
        self._most = most_bytes
        self._lock = threading.Lock()
        self._walking = threading.Lock()
        self._sets: OrderedDict[bytes, CidSet] = OrderedDict()
        self._bytes = 0

    def below(self, root: bytes) -> CidSet:
        """The root and everything below it and below its last 64 former states, which a reader may still be at.

        A tree that has grown costs what is new in it while its former state is kept here. Raises ContentMissing,
        ContentCorrupt.
        """
        found = self._kept(root)
        if found is not None:
            return found
        with self._walking:
            found = self._kept(root)
            if found is None:
                found = self._walked(root)
                self._keep(root, found)
            return found

    def _walked(self, root: bytes) -> CidSet:
        former = self._previous(root)
        base = self._kept(former) if former is not None else None
        if base is not None:
            return CidSet((cid for cid, _ in dag.order(root, self._get, base.__contains__)), base)
        members = {cid for cid, _ in dag.order(root, self._get)}
        for _ in range(MOST_FORMER):
            if former is None:
                break
            try:
                members |= {cid for cid, _ in dag.order(former, self._get, members.__contains__)}
            except ContentMissing:  # a tree of another node comes without its former states
                break
            former = self._previous(former)
        return CidSet(members)

    def _previous(self, root: bytes) -> bytes | None:
        if cids.parse(root).codec != cids.DAG_CBOR:
            return None
        try:
            return manifest.decode_root(self._get(root)).previous
        except ContentCorrupt:  # no StudyRoot: it has no former state
            return None

    def _kept(self, root: bytes) -> CidSet | None:
        with self._lock:
            found = self._sets.get(root)
            if found is not None:
                self._sets.move_to_end(root)
            return found

    def _keep(self, root: bytes, found: CidSet) -> None:
        with self._lock:
            self._sets[root] = found
            self._bytes += found.size
            while self._bytes > self._most and len(self._sets) > 1:
                self._bytes -= self._sets.popitem(last=False)[1].size
