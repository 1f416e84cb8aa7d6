"""The embedded engine: the packs are all there is, and a pin is the promise that a whole tree lies in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from bridge import crash
from bridge.content import cid as cids
from bridge.content import dag
from bridge.content.packs import PackStore
from bridge.content.passed import PassedCids
from bridge.content.pins import PinTable
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault
from bridge.model import Block, BlockPosition, ContentStatus, PinReceipt

__all__ = ["EmbeddedStore"]


class EmbeddedStore:
    """`bridge.ports.ContentStore` over packs alone; safe to use from many threads.

    Parameters
    ----------
    packs
        The spool, closed with this store.
    pins
        The table of what is kept.
    clock
        Microseconds since the epoch.
    sources
        Where else blocks may be had that the packs lack or hold damaged, asked in turn.
    """

    def __init__(
        self,
        packs: PackStore,
        pins: PinTable,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        sources: Sequence[Callable[[bytes], bytes]] = (),
    ) -> None:
        self._packs = packs
        self._pins = pins
        self._clock = clock
        self._sources = sources
        self.put: Callable[[Sequence[Block]], Sequence[BlockPosition]] = packs.put
        self.sync: Callable[[], None] = packs.sync
        self.get: Callable[[bytes], bytes] = self._from_anywhere if sources else packs.get
        self.has: Callable[[bytes], bool] = packs.has
        self.close: Callable[[], None] = packs.close

    def _from_anywhere(self, cid: bytes) -> bytes:
        """The block of the packs, else of the first source that has it, verified. Raises as the packs do."""
        try:
            return self._packs.get(cid)
        except (ContentMissing, ContentCorrupt):
            for source in self._sources:
                with contextlib.suppress(ContentMissing, ContentCorrupt, EngineFault):
                    data = source(cid)
                    if cids.verify(cid, data):
                        return data
            raise

    def pin(self, root: bytes, replaces: bytes | None = None) -> PinReceipt:
        """Every block below the root is held, or ContentMissing names the first that is not; leaves are not read.

        What lies below `replaces`, when that is pinned, is not looked at again. Errors as the port says.
        """
        crash.step("pin.1")
        skip: set[bytes] = set()
        if replaces is not None and self._pins.of(replaces) is not None:
            skip = dag.shared(root, replaces, self._packs.get)
        for cid, data in dag.order(root, self._packs.get, skip.__contains__, PassedCids()):
            if data is None and not self._packs.has(cid):
                raise ContentMissing(f"block {cids.to_text(cid)} is not held")
        self._packs.sync()
        crash.step("pin.2")
        receipt = PinReceipt(root, 1, self._clock())
        self._pins.record(root, receipt, 1)
        crash.step("pin.3")
        if replaces is not None and replaces != root:
            self.unpin(replaces)
        return receipt

    def unpin(self, root: bytes) -> None:
        """Forget the pin; the blocks stay in their packs. Raises StorageFull, StorageFault."""
        crash.step("pin.4")
        self._pins.drop(root)

    def status(self, root: bytes | None = None) -> ContentStatus:
        """As the port says."""
        reasons = ("the packs refuse writing after an I/O error",) if self._packs.refuses else ()
        pin = self._pins.of(root) if root is not None else None
        return ContentStatus("embedded", reasons, pin.replicas if pin else None)
