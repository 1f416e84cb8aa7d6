"""The blocks that a Kubo holds by itself, read one by one and mended one by one, as `bridge.content.copies.Copy`."""

from __future__ import annotations

from bridge.content import cid as cids
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import Rpc
from bridge.errors import CairnError, ContentCorrupt, ContentMissing
from bridge.model import Block

__all__ = ["KuboCopy"]


class KuboCopy:
    """What one Kubo holds of trees that it pins; safe to use from many threads.

    Parameters
    ----------
    rpc, control
        The Kubo.
    timeout_s
        Seconds after which Kubo is not waited for when it pins again, or looks for what pins a block.
    """

    name = "kubo"

    def __init__(self, rpc: Rpc, control: Control, timeout_s: float) -> None:
        self._rpc = rpc
        self._control = control
        self._timeout_s = timeout_s

    def holds(self, cid: bytes) -> bool:
        """As Copy: of a tree that is pinned, every block."""
        return True

    def where(self, cid: bytes) -> str:
        """As Copy."""
        return "Kubo's datastore"

    def read(self, cid: bytes) -> bytes:
        """As Copy; peers of the Kubo are not asked."""
        return self._rpc.block(cid)

    def mend(self, block: Block) -> None:
        """As Copy. Raises ContentCorrupt when the block is not whole there afterwards.

        Kubo writes nothing over a block that it has, and removes none that a pin keeps: for a damaged one the pins
        above it are taken away for this moment. Killed in between, they are lost pins, which are brought again.
        """
        try:
            self._rpc.block(block.cid)
            return
        except ContentMissing:
            freed: list[bytes] = []
        except ContentCorrupt:
            freed = self._removed(block.cid)
        try:
            self._rpc.put(block)
            self._rpc.block(block.cid)
        finally:
            self._pin_again(freed)

    def _removed(self, cid: bytes) -> list[bytes]:
        """Remove a block; the roots whose pins went for it."""
        freed: list[bytes] = []
        try:
            while (above := self._rpc.remove(cid, self._timeout_s)) is not None:
                freed.append(cids.from_text(above))
                self._control.unpin(freed[-1])
        except (CairnError, ValueError):
            self._pin_again(freed)
            raise
        return freed

    def _pin_again(self, roots: list[bytes]) -> None:
        for root in roots:
            self._rpc.pin(root, self._timeout_s)
