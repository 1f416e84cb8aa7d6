"""Engines: what makes an order of entries final. One entry and proof format for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from ledger.entry import Entry
from ledger.source import ClosedBatch, Cursor


class Position(NamedTuple):
    """Where a node's chain stands: ledger and node id, the next sequence, the hash of the last envelope, the cursor."""

    ledger: bytes
    node: bytes
    sequence: int
    previous: bytes
    cursor: Cursor


@dataclass
class Sealed:
    """An entry with its encoding, the closed batch it is of (source epoch and batch id, its records), and how to sign.

    It is signed when its envelope is first asked for: an engine has the disk write before that.
    """

    entry: Entry
    payload: bytes
    batch: Cursor
    records: int
    sign: Callable[[bytes], bytes]

    @cached_property
    def envelope(self) -> bytes:
        """The signed envelope."""
        return self.sign(self.payload)


class Engine(Protocol):
    """Takes a node's entries in order. Raises OSError and StoreFault when the disk or database fails."""

    def position(self) -> Position:
        """Where this node's chain stands."""

    def append(self, entries: Sequence[Sealed], cursor: Cursor) -> None:
        """Take a contiguous run of this node's entries and move the cursor, atomically; durable when it returns.

        Raises ChainBroken when the run does not continue the node's chain.
        """

    def held(self, records_roots: Sequence[bytes], epoch: bytes) -> set[bytes]:
        """Those of the roots, of batches of this epoch, over whose records an entry was taken under another."""

    def unlinked(self) -> int:
        """How many entries of this node's are of a batch that the engine does not know: it was restored from others."""

    def link(self, batches: Sequence[ClosedBatch], epoch: bytes) -> int:
        """Take it that these batches are those of the entries over their records; how many of them there were."""

    def publish(self) -> None:
        """Let those who read files see what was appended."""

    def settle(self) -> bool:
        """Put in order what can wait until there is nothing else to do; False when something is left for later."""

    def close(self) -> None:
        """Settle and release what is held open."""
