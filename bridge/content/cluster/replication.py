"""What IPFS Cluster says of one pin, and what follows from it. Pure.

The words are those of its REST API (`GlobalPinInfo`, `TrackerStatus` of ipfs-cluster v1.1): a peer that a pin is
allocated to says `pinned` when its Kubo holds the whole tree; a peer that it is not allocated to says `remote`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

__all__ = ["Need", "PeerPin", "Standing", "allocations", "from_document", "needs", "unknown"]

UNDER_WAY: Final = frozenset({"pinning", "pin_queued"})
FAILED: Final = frozenset({"pin_error", "cluster_error", "unexpectedly_unpinned"})


class PeerPin(NamedTuple):
    """What one peer says of a pin: its name, the tracker's status, and an error if there is one."""

    name: str
    status: str
    error: str = ""


class Standing(NamedTuple):
    """How a pin stands: the peers it is allocated to, and what each peer says, by peer id.

    Both are empty when the cluster does not know the pin.
    """

    allocations: frozenset[str]
    peers: Mapping[str, PeerPin]

    @property
    def replicas(self) -> int:
        """On how many peers' Kubos the whole tree is pinned."""
        return sum(peer.status == "pinned" for peer in self.peers.values())

    @property
    def under_way(self) -> bool:
        """Whether a peer is fetching it, or is about to."""
        return any(peer.status in UNDER_WAY for peer in self.peers.values())

    @property
    def troubles(self) -> tuple[str, ...]:
        """What hinders it, one phrase for each peer, in the order of their names."""
        failed = (peer for peer in self.peers.values() if peer.status in FAILED)
        return tuple(sorted(f"{peer.name}: {_first_line(peer.error) or peer.status}" for peer in failed))


unknown: Final = Standing(frozenset(), {})


def from_document(document: Any) -> Standing:
    """Read the JSON of `GET /pins/{cid}`. Raises ValueError when it is not of that form.

    A pin that no peer tracks (`unpinned` everywhere) is unknown to the cluster.
    """
    if not isinstance(document, dict) or not isinstance(document.get("peer_map"), dict):
        raise ValueError("no peer_map in the answer")
    peers: dict[str, PeerPin] = {}
    for id, entry in document["peer_map"].items():
        if not isinstance(entry, dict) or not isinstance(entry.get("status"), str):
            raise ValueError("no status of a peer in the answer")
        peers[id] = PeerPin(str(entry.get("peername") or id), entry["status"], str(entry.get("error") or ""))
    allocated = allocations(document)
    if not allocated and all(peer.status in ("unpinned", "cluster_error") for peer in peers.values()):
        return unknown
    return Standing(allocated, peers)


def allocations(document: Mapping[str, Any]) -> frozenset[str]:
    """The ids of the peers that a pin is allocated to. Raises ValueError when they are no list."""
    found = document.get("allocations") or []
    if not isinstance(found, list):
        raise ValueError("the allocations are no list")
    return frozenset(str(id) for id in found)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()[:160]


class Need(StrEnum):
    """What is to be done so that a pin gets its copies."""

    NOTHING = "nothing"
    WAIT = "wait"
    ASK = "ask"
    RECOVER = "recover"


def needs(standing: Standing, wanted: int, alive: Collection[str]) -> Need:
    """What a pin needs to be held `wanted` times.

    NOTHING when it is; ASK when the cluster is to allocate (it does not know the pin, it has fewer allocations than are
    wanted, or one is a peer that is gone while others are there to take its place); RECOVER when a peer that is there
    has failed; else WAIT. `alive` are the ids of the peers that answer.
    """
    if standing.replicas >= wanted:
        return Need.NOTHING
    if len(standing.allocations) < wanted:
        return Need.ASK
    if not standing.allocations <= set(alive) and len(alive) >= wanted:
        return Need.ASK
    if any(peer.status in FAILED for id, peer in standing.peers.items() if id in alive):
        return Need.RECOVER
    return Need.WAIT
