"""The cluster engine: everything that the Kubo engine does, and then as many copies as the policy asks.

    (1) the tree goes to this node's own Kubo and is pinned there     (2) IPFS Cluster is asked for N pins, ours first
    (3) it is asked again and again until N Kubos say pinned          (4) only then is the former root let go everywhere

How many copies there are is written to the pin table whenever it changes, so that it can be watched. A root that has
fewer than were wanted when the patience is over is kept with those it has; each `status` of it asks for the others.

A peer of the cluster may say that it holds what it does not: a copy that counts for more than availability is read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

from bridge.content import cid as cids
from bridge.content.cache import DiskCache
from bridge.content.cluster.replication import Need, Standing, needs
from bridge.content.cluster.rest import ClusterApi, NoAnswer, NotEnoughPeers
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import Rpc
from bridge.content.kubo.store import KuboStore, Source
from bridge.content.packs import PackStore
from bridge.content.pins import PinTable
from bridge.errors import EngineFault
from bridge.model import ContentStatus, PinReceipt

__all__ = ["ClusterStore"]

log = logging.getLogger(__name__)
PATIENCE_S: Final = 60.0
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 1.0
ASK_AGAIN_S: Final = 2.0
STANDING_S: Final = 5.0
MOMENT_S: Final = 1.0
MOST_CHANGES: Final = 1000  # to the table, each time the pins are compared


class ClusterStore(KuboStore):
    """`bridge.ports.ContentStore` over the packs, one Kubo and the cluster that it belongs to; thread-safe.

    Parameters
    ----------
    cluster
        The REST API of the peer that stands beside this node's Kubo.
    wanted
        Copies asked for of each root, this node's own among them.
    patience_s
        Seconds without another copy after which `pin` returns with those there are; at once while peers are missing.

    The others are `KuboStore`'s.
    """

    engine = "cluster"

    def __init__(
        self,
        packs: PackStore,
        pins: PinTable,
        cache: DiskCache,
        rpc: Rpc,
        control: Control,
        timeout_s: float,
        cluster: ClusterApi,
        wanted: int,
        sources: Sequence[Source] = (),
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        own: Callable[[], str | None] = lambda: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(packs, pins, cache, rpc, control, timeout_s, sources, clock, own)
        self._cluster = cluster
        self._wanted = wanted
        self._patience_s = patience_s
        self._closing = threading.Event()

    def status(self, root: bytes | None = None) -> ContentStatus:
        """As the port says. Copies of the root that are missing are asked for, and waited for a moment."""
        own = super().status(root)
        reasons, replicas = list(own.reasons), own.replicas
        try:
            alive = self._cluster.alive()
            if len(alive) < self._wanted:
                there = f"{len(alive)} of IPFS Cluster's peers can hold a copy"
                reasons.append(f"{there}, and {self._wanted} copies are wanted")
            if root is not None and replicas is not None and not own.reasons:
                replicas = min(max(1, self._copies(root)), max(1, len(alive)))
                replicas = self._counted(root, alive, replicas)
        except EngineFault as error:
            reasons.append(error.detail)
        return ContentStatus(self.engine, tuple(reasons), replicas, self._wanted)

    def pinned(self) -> set[bytes]:
        """Every root that Kubo pins. Raises EngineFault.

        Copies that were counted and are gone (with their peer, from its Kubo, or with the cluster's state) are taken
        off the table, so that `status` asks for others.
        """
        held = super().pinned()
        rows = [pin for pin in self._pins.all() if pin.root in held]
        if not rows or self._wanted == 1:
            return held
        alive, allocated, lost = self._cluster.alive(), dict(self._cluster.allocations()), self._lost()
        changes = 0
        for pin in rows:
            text = cids.to_text(pin.root)
            there = max(1, len(allocated.get(text, frozenset()) & alive) - lost.get(text, 0))
            found = PinReceipt(pin.root, min(pin.replicas, there), pin.pinned)
            if (found.replicas, self._wanted) != (pin.replicas, pin.wanted) and changes < MOST_CHANGES:
                self._pins.record(pin.root, found, self._wanted)
                changes += 1
        return held

    def _lost(self) -> dict[str, int]:
        """How many peers have lost which pin; none known while one of them hangs."""
        try:
            return dict(self._cluster.lost(STANDING_S))
        except NoAnswer:
            return {}

    def close(self) -> None:
        """As the port says; a `pin` that waits for copies ends with those there are."""
        self._closing.set()
        try:
            super().close()
        finally:
            self._cluster.close()

    def _keep(self, root: bytes, replaces: bytes | None) -> tuple[PinReceipt, int]:
        """(2), (3) Own copy first, so that the cluster does not take it from our Kubo. Raises EngineFault."""
        receipt = PinReceipt(root, 1, self._clock())
        began, look_s, asked = time.monotonic(), FIRST_LOOK_S, False
        while True:
            alive = self._cluster.alive()
            standing = self._standing(root)
            copies = max(1, standing.replicas) if standing is not None else receipt.replicas
            if copies != receipt.replicas:
                receipt = PinReceipt(root, copies, self._clock())
                self._pins.record(root, receipt, self._wanted)
                began, look_s = time.monotonic(), FIRST_LOOK_S
            waited = time.monotonic() - began
            if copies >= self._wanted or waited >= self._patience_s or self._closing.is_set():
                break
            if standing is not None and (not asked or waited >= ASK_AGAIN_S):
                asked = self._asked(root, standing, alive, replaces)
            if len(alive) < self._wanted:
                break  # nobody is there to wait for
            self._closing.wait(look_s)
            look_s = min(look_s * 2, LONGEST_LOOK_S)
        if receipt.replicas < self._wanted:
            why = "; ".join(standing.troubles) if standing is not None else "a peer does not answer"
            told = {"replicas": receipt.replicas, "wanted": self._wanted, "reasons": why}
            log.warning("a study has fewer copies than are wanted; they are asked for again", extra=told)
        return receipt, self._wanted

    def _counted(self, root: bytes, alive: Collection[str], known: int) -> int:
        """The copies of a root now, `known` when that cannot be asked; those of small studies come within a moment."""
        asked, until = False, time.monotonic() + MOMENT_S
        while (standing := self._standing(root)) is not None:
            if not asked:
                asked = self._asked(root, standing, alive)
            over = standing.replicas >= self._wanted or len(alive) < self._wanted or time.monotonic() > until
            if over or not asked or self._closing.wait(FIRST_LOOK_S):
                return max(1, standing.replicas)
        return known

    def _standing(self, root: bytes) -> Standing | None:
        """How a root stands; None when that cannot be known, for one of the peers or its Kubo hangs."""
        try:
            return self._cluster.standing(cids.to_text(root), STANDING_S)
        except NoAnswer:
            return None

    def _asked(self, root: bytes, standing: Standing, alive: Collection[str], replaces: bytes | None = None) -> bool:
        """Whether the cluster has taken what was asked: a new peer can be allocated to after some seconds only."""
        try:
            self._further(root, standing, alive, replaces)
        except NotEnoughPeers:
            return False
        return True

    def _further(self, root: bytes, standing: Standing, alive: Collection[str], replaces: bytes | None) -> None:
        """Do what the root needs for its copies. Raises EngineFault, NotEnoughPeers."""
        text = cids.to_text(root)
        need = needs(standing, self._wanted, alive)
        if need is Need.ASK:
            own = self._cluster.identity()
            holders = standing.allocations
            former = self._standing(replaces) if replaces is not None else None
            if former is not None:  # who holds most of it already is to get the rest
                holders |= former.allocations
            self._cluster.pin(text, self._wanted, [own.id, *sorted(holders - {own.id})], own.kubo_addresses)
        elif need is Need.RECOVER:
            self._cluster.recover(text)

    def _let_go(self, root: bytes) -> None:
        """(4)"""
        self._cluster.unpin(cids.to_text(root))
        super()._let_go(root)
