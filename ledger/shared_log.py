"""The shared log as a member's programs read it: entries in order, each with the block that made it final.

Read-only. What is read is final: it was committed with its block, and nothing is ever taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ledger import entry
from ledger.block import FinalEntry
from ledger.block_store import BlockStore, Proved
from ledger.members import State
from ledger.store import SEGMENT, SEGMENTS

_BLOCK: Final = "FROM block WHERE size > idx ORDER BY size, height LIMIT 1"
_FOUND: Final = f"idx, leaf, envelope, (SELECT height {_BLOCK}), (SELECT time {_BLOCK})"


class SharedLog:
    """The database of the shared log at `path`, read-only. Thread-safe. Every method may raise StoreFault."""

    def __init__(self, path: Path) -> None:
        self._store = _Reader(path, readonly=True)

    def close(self) -> None:
        """Close the connection."""
        with self._store.mutex:
            self._store.close()

    def size(self) -> int:
        """How many entries there are."""
        with self._store.mutex:
            return self._store.size()

    def state(self) -> tuple[int, State | None]:
        """Height and state after the last block that left something; 0 and None before the first."""
        found = self._store.consensus()
        return found.height, found.state()

    def changed(self) -> bool:
        """Whether something was committed since this was asked last."""
        with self._store.mutex:
            return self._store.changed()

    def follow(self, after: int, types: Sequence[str], limit: int) -> tuple[list[FinalEntry], int]:
        """The first entries of these types behind an index (-1: from the start), and up to which index was looked.

        At most `limit` are given; what was looked through and is of no such type need not be looked through again.
        """
        with self._store.mutex, self._store.snapshot():
            found = [_final(*row) for row in self._store.of_types(after, types, limit)]
            seen = found[-1].index if len(found) == limit else self._store.size() - 1
        return found, max(after, seen)

    def entry(self, id: bytes) -> FinalEntry | None:
        """The entry of this id; None when it is not final."""
        with self._store.mutex:
            found = self._store.of_leaf(id)
        return None if found is None else _final(*found)

    def evidence(self) -> list[Proved]:
        """All that was proved against members, in order."""
        return self._store.evidence()

    def made(self, node: bytes, root: bytes, final: bool) -> bytes | None:
        """The id of a node's own entry over this records root; one that waits for its block only when not `final`."""
        with self._store.mutex:
            found = self._store.of_root(node, root)
            if found is None and not final:
                waiting = self._store.waiting_at(root=root)
                found = None if waiting is None else waiting.leaf
        return found


class _Reader(BlockStore):
    """What is read besides; under `mutex`."""

    def of_types(self, after: int, types: Sequence[str], limit: int) -> list[Any]:
        marks = ", ".join("?" * len(types))
        sql = f"SELECT {_FOUND} FROM entries WHERE idx > ? AND type IN ({marks}) ORDER BY idx LIMIT ?"
        return self._all(sql, after, *types, limit)

    def of_leaf(self, leaf: bytes) -> Any:
        return self._one(
            f"{SEGMENTS} SELECT {_FOUND} FROM segment CROSS JOIN entries ON {SEGMENT} = number AND leaf = ?", leaf
        )

    def of_root(self, node: bytes, root: bytes) -> bytes | None:
        """Roots are chosen by whoever signs: another member's may be over the same one."""
        sql = f"""{SEGMENTS} SELECT leaf FROM segment
                  CROSS JOIN entries ON {SEGMENT} = number AND root = ? AND node = ? LIMIT 1"""
        found = self._one(sql, root, node)
        return None if found is None else bytes(found[0])


def _final(index: int, leaf: bytes, envelope: bytes, height: int, time_ns: int) -> FinalEntry:
    return FinalEntry(index, leaf, envelope, entry.read(envelope), height, time_ns // 1000)
