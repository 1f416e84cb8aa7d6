"""CIDs that were passed on the way through a tree: few in memory, many in a temporary file."""

from __future__ import annotations

import sqlite3
from typing import Final

_IN_MEMORY: Final = 8192  # CIDs of about 36 bytes


class PassedCids:
    """`bridge.content.dag.Passed` whose memory stays the same, about a megabyte, whatever the tree's size."""

    def __init__(self) -> None:
        self._few: set[bytes] = set()
        self._many: sqlite3.Connection | None = None

    def add(self, cid: bytes) -> None:
        """Remember a CID that is not there yet."""
        self._few.add(cid)
        if len(self._few) < _IN_MEMORY:
            return
        if self._many is None:
            self._many = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # goes with the connection
            self._many.execute("CREATE TABLE passed (cid BLOB PRIMARY KEY) WITHOUT ROWID")
            self._many.execute("BEGIN")
        self._many.executemany("INSERT INTO passed VALUES (?)", ((each,) for each in self._few))
        self._few.clear()

    def __contains__(self, cid: bytes) -> bool:
        if cid in self._few or self._many is None:
            return cid in self._few
        return self._many.execute("SELECT 1 FROM passed WHERE cid = ?", (cid,)).fetchone() is not None
