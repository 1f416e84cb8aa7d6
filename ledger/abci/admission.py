"""How much of one node's enters this member's mempool: no member fills everybody's, and keeps empty blocks coming.

An honest node has two transactions under way at most (`ledger.engine.cometbft`), of which the second is ahead; where
another member is a block behind, one more is ahead there for a moment; where a node lost its disk, it may sign another
one for the same place. So two of each are enough:

 1. at most two of a node's transactions that could be executed, and two that are ahead, lie here at a time
 2. a node whose transaction was ahead even in the block that it came into may have none ahead here, until one of its
    transactions was taken: an honest node's is so only when it overtook the one before it, and is sent again

Nothing that is decided depends on it: it is about this member's mempool alone, and forgotten with the process.
"""

from __future__ import annotations

import threading
from typing import Final

AT_ONCE: Final = 2
"""Transactions of one node that lie here at a time: of those that could be executed, and of those that are ahead."""


class Admission:
    """What lies in the mempool, by node. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here: dict[tuple[bytes, bool], set[bytes]] = {}
        self._strayed: set[bytes] = set()

    def admit(self, node: bytes, id: bytes, ahead: bool) -> bool:
        """Whether a node's transaction, by its hash, may enter the mempool, or stay there: its signatures verified."""
        with self._lock:
            if ahead and node in self._strayed:  # (2)
                return False
            here = self._here.setdefault((node, ahead), set())
            if id not in here and len(here) >= AT_ONCE:  # (1)
                return False
            here.add(id)
            return True

    def executed(self, node: bytes, ahead: bool) -> None:
        """A node's transaction came in a block: it was taken, or it was ahead."""
        with self._lock:
            (self._strayed.add if ahead else self._strayed.discard)(node)

    def committed(self) -> None:
        """CometBFT asks again about what still lies in its mempool (`recheck`), before anything new."""
        with self._lock:
            self._here.clear()
