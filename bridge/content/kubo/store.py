"""The Kubo engine: the packs are the spool, Kubo keeps what is pinned, and reads go where a block is.

    (1) the node's own packs        (2) the cache of blocks read before
    (3) Kubo: what it holds itself, then what its peers in the private swarm give      (4) other sources, in turn

Every block is verified against its CID wherever it comes from. Putting never waits for Kubo.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from bridge import crash
from bridge.content import cid as cids
from bridge.content import dag, pack_car
from bridge.content.cache import DiskCache
from bridge.content.kubo import configuration
from bridge.content.kubo.admission import IDENTITY, Admission
from bridge.content.kubo.control import Control
from bridge.content.kubo.copy import KuboCopy
from bridge.content.kubo.rpc import ChildMissing, ImportRefused, NodeDamaged, Rpc
from bridge.content.packs import PackStore
from bridge.content.pins import PinTable
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault, IntegrityError
from bridge.model import Block, BlockPosition, ContentStatus, PinReceipt

__all__ = ["KuboStore", "Source"]

log = logging.getLogger(__name__)
NETWORK_S: Final = 5.0
REST_S: Final = 5.0
AHEAD: Final = 2
"""Blocks of one reader that are on their way at once, the one that it waits for among them."""
READERS: Final = 8
Source = Callable[[bytes], bytes]
"""The block of a CID from somewhere else. Raises ContentMissing, ContentCorrupt, EngineFault."""


class KuboStore:
    """`bridge.ports.ContentStore` over the packs and one Kubo; safe to use from many threads. Closes the packs.

    Parameters
    ----------
    packs, pins, cache
        The spool, the table of what is kept, the cache of what was read elsewhere.
    rpc, control
        The Kubo.
    timeout_s
        Seconds after which Kubo is not waited for when it takes and pins a tree.
    sources
        Where else blocks may be had, asked in turn.
    clock
        Microseconds since the epoch.
    own
        As `Admission`.
    """

    engine = "kubo"

    def __init__(
        self,
        packs: PackStore,
        pins: PinTable,
        cache: DiskCache,
        rpc: Rpc,
        control: Control,
        timeout_s: float,
        sources: Sequence[Source] = (),
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        own: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._packs = packs
        self._pins = pins
        self._cache = cache
        self._rpc = rpc
        self._control = control
        self._timeout_s = timeout_s
        self._sources = sources
        self.admission = Admission(rpc.configuration, control.version, own)
        self.copy = KuboCopy(rpc, control, timeout_s, partial(self.admission.check, IDENTITY))
        self._clock = clock
        self._resting: tuple[float, str] = (0.0, "")  # until when Kubo is not asked for blocks, and why
        self._known: bytes | None = None  # a root that Kubo holds, to see whether it reads
        self._readers = ThreadPoolExecutor(READERS, "blocks")  # which starts threads when they are needed
        self.put: Callable[[Sequence[Block]], Sequence[BlockPosition]] = packs.put
        self.sync: Callable[[], None] = packs.sync

    def get(self, cid: bytes) -> bytes:
        """The block, verified. Raises ContentMissing when nobody has it, ContentCorrupt when the only copies are not
        whole, EngineFault when it is not here and somebody who may have it does not answer."""
        try:
            return self._packs.get(cid)
        except IntegrityError as error:
            here = error
        data = self._cache.get(cid)
        if data is None:
            data = self._from_elsewhere(cid, here)
            self._cache.put(cid, data)
        if isinstance(here, ContentCorrupt):
            log.warning("a block of the packs is damaged; it was read from elsewhere")
        return data

    def each(self, wanted: Iterable[bytes]) -> Iterator[bytes]:
        """The blocks in order, as `get`; what the packs do not give is fetched while the one before it is used."""
        coming: deque[Callable[[], bytes]] = deque()
        for cid in wanted:
            coming.append(self._begun(cid))
            if len(coming) == AHEAD:
                yield coming.popleft()()
        while coming:
            yield coming.popleft()()

    def _begun(self, cid: bytes) -> Callable[[], bytes]:
        try:
            data = self._packs.get(cid)
        except IntegrityError:
            return self._readers.submit(self.get, cid).result
        return lambda: data

    def has(self, cid: bytes) -> bool:
        """Whether the block is held by this node, be it in Kubo; False too when only Kubo could tell and does not."""
        if self._packs.has(cid) or self._cache.has(cid):
            return True
        try:
            self._raise_resting()
            return self._rpc.holds(cid)
        except EngineFault:
            return False

    def pin(self, root: bytes, replaces: bytes | None = None) -> PinReceipt:
        """As the port says: one CAR to Kubo, of what is not below `replaces` when Kubo holds all of that, else of
        everything; its root pinned by the same request. Nothing is sent of a tree that Kubo holds and lost the pin of.
        A ContentCorrupt or ContentMissing names the block.
        """
        crash.step("pin.1")
        former = None if replaces == root else replaces
        self.admission.check()
        self._packs.sync()
        if not self._was_there(root) and not self._brought_beside(root, former):
            self._bring_all(root, former)
        self._known = root
        crash.step("pin.2")
        receipt, wanted = self._keep(root, former)
        self._pins.record(root, receipt, wanted)
        crash.step("pin.3")
        if former is not None and receipt.replicas >= min(wanted, self._copies(former)):
            self.unpin(former)
        return receipt

    def unpin(self, root: bytes) -> None:
        """As the port says; Kubo keeps the blocks until its garbage is collected, which is for an operator to do."""
        if self._known == root:
            self._known = None
        self._let_go(root)
        crash.step("pin.4")
        self._pins.drop(root)

    def status(self, root: bytes | None = None) -> ContentStatus:
        """As the port says. Of a root, what the table says stands while Kubo does not answer."""
        reasons = []
        pin = self._pins.of(root) if root is not None else None
        replicas = pin.replicas if pin else None
        if self._packs.refuses:
            reasons.append("the packs refuse writing after an I/O error")
        try:
            self._control.version()
            self.admission.check()
            self._read_something()
            if root is not None:
                replicas = 1 if self._control.pinned(root) else None
        except (EngineFault, IntegrityError) as error:
            reasons.append(error.detail)
        return ContentStatus(self.engine, tuple(reasons), replicas, 1)

    def close(self) -> None:
        """As the port says; then the connections."""
        self._readers.shutdown(cancel_futures=True)
        try:
            self._packs.close()
        finally:
            self._rpc.close()
            self._control.close()

    # what can be asked of Kubo alone

    def pinned(self) -> set[bytes]:
        """Every root that Kubo pins recursively. Raises EngineFault."""
        self.admission.check(IDENTITY)  # what another does not pin is not lost
        return self._control.pins()

    def refetch(self, cid: bytes) -> None:
        """Have a block that Kubo lost or damaged from a peer. Raises ContentMissing when none has it; EngineFault."""
        self.admission.check()  # a public network is not to hear what is looked for
        self.copy.refetch(cid, NETWORK_S)

    def unsafe(self) -> str | None:
        """Why a power cut may lose what Kubo took; None when its datastore is known to fsync. Raises EngineFault."""
        if configuration.fsyncs(self._rpc.configuration()):
            return None
        return "Kubo's datastore does not fsync what it writes (Datastore.Spec: sync)"

    # for engines that keep more than one copy

    def _keep(self, root: bytes, replaces: bytes | None) -> tuple[PinReceipt, int]:
        """What holds now that Kubo has the tree, and how many copies were wanted."""
        return PinReceipt(root, 1, self._clock()), 1

    def _copies(self, root: bytes) -> int:
        """How many copies the table says there are: a root with fewer does not take the place of one with more."""
        pin = self._pins.of(root)
        return pin.replicas if pin is not None else 0

    def _let_go(self, root: bytes) -> None:
        self._control.unpin(root)

    def _was_there(self, root: bytes) -> bool:
        """Whether the tree is pinned after nothing was sent: of a new one Kubo says at once that it lacks the root."""
        try:
            if not self._rpc.lacks_nothing(root, self._timeout_s):
                return False
            self._rpc.pin(root, self._timeout_s)
        except (ChildMissing, NodeDamaged):
            return False
        return True

    def _brought_beside(self, root: bytes, former: bytes | None) -> bool:
        """Whether the tree is pinned after only what is not below the former root was sent."""
        if former is None or self._pins.of(former) is None:
            return False
        try:
            if not self._control.pinned(former) or not self._rpc.lacks_nothing(former, self._timeout_s):
                return False
            self._bring(root, dag.shared(root, former, self.get).__contains__)
        except (ChildMissing, IntegrityError):  # what is wrong, sending everything will tell
            return False
        return True

    def _bring(self, root: bytes, skip: Callable[[bytes], bool]) -> None:
        try:
            self._send(root, skip)
        except NodeDamaged:
            self._look_through(root)
            self._send(root, lambda cid: False)

    def _bring_all(self, root: bytes, former: bytes | None) -> None:
        """Everything, where Kubo lost what it had: it writes no block that it remembers to have until a read fails.

        Looked through first where parts ought to be there, for else the import waits for these until its time is over.
        """
        if (former is not None and self._pins.of(former) is not None) or self._rpc.holds(root):
            self._look_through(root)
        try:
            self._bring(root, lambda cid: False)
        except ChildMissing:
            if not self._look_through(root):
                raise
            self._send(root, lambda cid: False)

    def _look_through(self, root: bytes) -> int:
        """Have Kubo read every block, and remove damaged ones with links; how many it does not have."""
        missing = 0
        for cid, data in dag.order(root, self.get):
            if data is not None:
                self.copy.discard_damaged(cid)
            missing += not self._rpc.holds(cid)
        return missing

    def _send(self, root: bytes, skip: Callable[[bytes], bool]) -> None:
        try:
            self._rpc.import_car(root, pack_car.pieces(root, self._packs, self.get, skip), self._timeout_s)
        except ImportRefused:
            # The packs' bytes were sent as they lie. Read verified, each block comes from where it is whole.
            verified = pack_car.pieces(root, self._packs, self.get, skip, verified=True)
            self._rpc.import_car(root, verified, self._timeout_s)

    def _from_elsewhere(self, cid: bytes, here: IntegrityError) -> bytes:
        """(3), (4) The block from Kubo or another source; `here` is why the packs do not give it."""
        damaged = here if isinstance(here, ContentCorrupt) else None
        silent: EngineFault | None = None
        for source in (self._from_kubo, *self._sources):
            try:
                data = source(cid)
                if cids.verify(cid, data):
                    return data
                damaged = damaged or ContentCorrupt(f"block {cids.to_text(cid)} is damaged where it comes from")
            except ContentMissing:
                continue
            except ContentCorrupt as error:
                damaged = damaged or error
            except EngineFault as error:
                silent = silent or error
        if silent is not None:
            raise silent
        raise damaged or ContentMissing(f"block {cids.to_text(cid)} is not held, and nobody gives it")

    def _from_kubo(self, cid: bytes) -> bytes:
        """(3) After a Kubo that does not answer no request waits for it again for some seconds."""
        self._raise_resting()
        try:
            try:
                return self._rpc.block(cid)
            except IntegrityError:
                if not self._control.peers():
                    raise
                self.admission.check()  # a public network is not to hear what is looked for
                return self._rpc.block(cid, NETWORK_S)
        except EngineFault as error:
            self._resting = (time.monotonic() + REST_S, error.detail)
            raise

    def _raise_resting(self) -> None:
        until, reason = self._resting
        if time.monotonic() < until:
            raise EngineFault(reason)

    def _read_something(self) -> None:
        """Read a root that Kubo is known to hold: a Kubo that only answers is half dead."""
        if self._known is None:
            self._known = next((pin.root for pin in self._pins.all()), None)
        if self._known is not None:
            self._rpc.block(self._known)
