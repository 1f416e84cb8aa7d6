"""The blocks that a Kubo holds by itself, read one by one and mended one by one, as `bridge.content.copies.Copy`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from bridge.content import cid as cids
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import NodeDamaged, Rpc
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.model import Block

__all__ = ["KuboCopy"]

log = logging.getLogger(__name__)


class KuboCopy:
    """What one Kubo holds of trees that it pins; safe to use from many threads.

    Parameters
    ----------
    rpc, control
        The Kubo.
    timeout_s
        Seconds after which Kubo is not waited for when it pins again, or looks for what pins a block.
    own
        Returns when it is the Kubo that it ought to be, else raises EngineFault: what another lacks is not missed.
    """

    name = "kubo"

    def __init__(self, rpc: Rpc, control: Control, timeout_s: float, own: Callable[[], None] = lambda: None) -> None:
        self._rpc = rpc
        self._own = own
        self._control = control
        self._timeout_s = timeout_s
        self._mending = threading.Lock()
        self._owed: set[bytes] = set()  # roots whose pins were taken away and are to be put back

    def holds(self, cid: bytes) -> bool:
        """As Copy: of a tree that is pinned, every block."""
        return True

    def where(self, cid: bytes) -> str:
        """As Copy."""
        return "Kubo's datastore"

    def read(self, cid: bytes) -> bytes:
        """As Copy; peers of the Kubo are not asked."""
        self._own()
        return self._rpc.block(cid)

    def mend(self, block: Block) -> None:
        """As Copy. Raises ContentCorrupt when the block is not whole there afterwards.

        Kubo writes nothing over a block that it has, and removes none that a pin keeps: for a damaged one the pins
        above it are taken away, and put back as soon as everything below them is whole. Killed in between, they are
        lost pins, which are brought again.
        """
        self._own()
        with self._mending:
            try:
                self._rpc.block(block.cid)
                return
            except ContentMissing:
                pass
            except ContentCorrupt:
                self._remove(block.cid)
            self._rpc.put(block)
            self._rpc.block(block.cid)
            self._pin_again()

    def refetch(self, cid: bytes, network_s: float) -> None:
        """Have a block that is missing or damaged here from a peer of the Kubo, which gets so many seconds for it.

        A damaged one is removed for it, for Kubo asks nobody for what it has; sealed, it opens for nobody any more.
        Nothing is touched where there is no peer. Raises ContentMissing when no peer has it, EngineFault.
        """
        if not self._control.peers():
            raise ContentMissing("Kubo has no peers that could be asked")
        with self._mending:
            try:
                self._rpc.block(cid)
                return
            except ContentMissing:
                pass
            except ContentCorrupt:
                self._remove(cid)
            self._rpc.block(cid, network_s)
            self._pin_again()

    def discard_damaged(self, cid: bytes) -> None:
        """Remove a block that is not whole, so that an import brings it anew. Raises EngineFault."""
        with self._mending:
            try:
                self._rpc.block(cid)
            except ContentMissing:
                pass
            except ContentCorrupt:
                self._remove(cid)

    def _remove(self, cid: bytes) -> None:
        try:
            self._unpin_above(cid)
        except NodeDamaged:  # Kubo cannot even tell what pins a block while a tree of its pins cannot be read
            for root in self._rpc.broken_pins(self._timeout_s):
                self._unpin(root)
            self._unpin_above(cid)

    def _unpin_above(self, cid: bytes) -> None:
        while (root := self._rpc.remove(cid, self._timeout_s)) is not None:
            self._unpin(root)

    def _unpin(self, root: str) -> None:
        self._owed.add(cids.from_text(root))
        self._control.unpin(cids.from_text(root))

    def _pin_again(self) -> None:
        for root in sorted(self._owed):
            try:
                if not self._rpc.lacks_nothing(root, self._timeout_s):
                    continue  # until that is mended too
                self._rpc.pin(root, self._timeout_s)
            except EngineFault as error:
                log.warning("a pin that was in the way of mending is not put back yet: %s", error.detail)
            else:
                self._owed.discard(root)
