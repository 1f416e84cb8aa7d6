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
from collections.abc import Callable, Sequence
from typing import Final

from bridge.content import cid as cids
from bridge.content.cache import DiskCache
from bridge.content.cluster.replication import Need, Standing, needs
from bridge.content.cluster.rest import ClusterApi, NotEnoughPeers, Peer
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


class ClusterStore(KuboStore):
    """`bridge.ports.ContentStore` over the packs, one Kubo and the cluster that it belongs to; thread-safe.

    Parameters
    ----------
    cluster
        The REST API of the peer that stands beside this node's Kubo.
    wanted
        Copies asked for of each root, this node's own among them.
    patience_s
        Seconds without another copy after which `pin` returns with those there are.

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
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__(packs, pins, cache, rpc, control, timeout_s, sources, clock)
        self._cluster = cluster
        self._wanted = wanted
        self._patience_s = patience_s
        self._complete = True  # whether there were peers enough when a root was last asked for
        self._closing = threading.Event()

    def status(self, root: bytes | None = None) -> ContentStatus:
        """As the port says. Copies of the root that are missing are asked for, and not waited for."""
        own = super().status(root)
        reasons, replicas = list(own.reasons), own.replicas
        try:
            alive = [peer.id for peer in self._told(reasons) if not peer.error]
            if root is not None:
                standing = self._cluster.standing(cids.to_text(root))
                if replicas is not None and not own.reasons:
                    self._further(root, standing, alive)
                    replicas = max(1, standing.replicas)
        except NotEnoughPeers:
            pass  # which the reasons tell
        except EngineFault as error:
            reasons.append(error.detail)
        return ContentStatus(self.engine, tuple(reasons), replicas, self._wanted)

    def pinned(self) -> set[bytes]:
        """Every root that Kubo pins, but for those that should have more copies and that the cluster has forgotten.

        Raises EngineFault.
        """
        held = super().pinned()
        forgotten = {pin.root for pin in self._pins.all() if pin.replicas >= pin.wanted} & held
        if forgotten and self._wanted > 1:
            forgotten.difference_update(map(_cid, self._cluster.roots()))
            held -= forgotten
        return held

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
        began, look_s, asked, enough = time.monotonic(), FIRST_LOOK_S, False, True
        while True:
            standing = self._cluster.standing(cids.to_text(root))
            copies = max(1, standing.replicas)
            if copies != receipt.replicas:
                receipt = PinReceipt(root, copies, self._clock())
                self._pins.record(root, receipt, self._wanted)
                began, look_s = time.monotonic(), FIRST_LOOK_S
            waited = time.monotonic() - began
            # Where peers were missing for the root before, this one does not wait for them anew.
            patience_s = self._patience_s if enough or self._complete else 0.0
            if copies >= self._wanted or waited >= patience_s or self._closing.is_set():
                break
            if not asked or waited >= ASK_AGAIN_S:
                alive = self._alive()
                enough = len(alive) >= self._wanted
                asked = self._asked(root, standing, alive, replaces)
            self._closing.wait(look_s)
            look_s = min(look_s * 2, LONGEST_LOOK_S)
        self._complete = enough
        if receipt.replicas < self._wanted:
            told = {"replicas": receipt.replicas, "wanted": self._wanted, "reasons": "; ".join(standing.troubles)}
            log.warning("a study has fewer copies than are wanted; they are asked for again", extra=told)
        return receipt, self._wanted

    def _asked(self, root: bytes, standing: Standing, alive: Sequence[str], replaces: bytes | None) -> bool:
        """Whether the cluster has taken what was asked: a new peer can be allocated to after some seconds only."""
        try:
            self._further(root, standing, alive, replaces)
        except NotEnoughPeers:
            return False
        return True

    def _further(self, root: bytes, standing: Standing, alive: Sequence[str], replaces: bytes | None = None) -> None:
        """Do what the root needs for its copies. Raises EngineFault, NotEnoughPeers."""
        text = cids.to_text(root)
        need = needs(standing, self._wanted, alive)
        if need is Need.ASK:
            own = self._cluster.identity()
            holders = standing.allocations
            if replaces is not None:  # who holds most of it already is to get the rest
                holders |= self._cluster.standing(cids.to_text(replaces)).allocations
            self._cluster.pin(text, self._wanted, [own.id, *sorted(holders - {own.id})], own.kubo_addresses)
        elif need is Need.RECOVER:
            self._cluster.recover(text)

    def _alive(self) -> list[str]:
        return [peer.id for peer in self._cluster.peers() if not peer.error]

    def _told(self, reasons: list[str]) -> Sequence[Peer]:
        """Every peer; what is wrong with them goes to `reasons`. Raises EngineFault."""
        peers = self._cluster.peers()
        reasons.extend(
            f"IPFS Cluster's peer {peer.name or peer.id}: {_short(peer.error)}" for peer in peers if peer.error
        )
        there = sum(not peer.error for peer in peers)
        if there < self._wanted:
            reasons.append(f"{there} of IPFS Cluster's peers can hold a copy, and {self._wanted} copies are wanted")
        return peers

    def _let_go(self, root: bytes) -> None:
        """(4)"""
        self._cluster.unpin(cids.to_text(root))
        super()._let_go(root)


def _cid(text: str) -> bytes:
    """A pin of the cluster's as a binary CID; empty for one that is not ours to read (another base or version)."""
    try:
        return cids.from_text(text)
    except ValueError:
        return b""


def _short(error: str) -> str:
    return error.partition("\n")[0][:160]
