"""Which content engine stands behind the port: the one place that chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bridge.config import Settings
from bridge.content.embedded import EmbeddedStore
from bridge.content.packs import PackStore
from bridge.content.pins import PinTable
from bridge.ports import ContentStore

if TYPE_CHECKING:
    from bridge.content.kubo.store import Source

__all__ = ["each_of", "open_content"]


def open_content(settings: Settings, packs: PackStore, pins: PinTable, sources: Sequence[Source] = ()) -> ContentStore:
    """The engine of `content.engine` over the node's packs, which it closes; asks no engine anything yet.

    `sources` are asked, in turn, for blocks that neither the node nor its engine has.
    What an engine beyond the embedded one needs is imported only when it is chosen, for it costs memory and time.
    """
    if settings.content.engine == "embedded":
        return EmbeddedStore(packs, pins, sources=sources)
    from bridge.content.cache import DiskCache
    from bridge.content.kubo.admission import peer_of
    from bridge.content.kubo.control import Control
    from bridge.content.kubo.rpc import Rpc
    from bridge.content.kubo.store import KuboStore

    content = settings.content
    cache = DiskCache(settings.home / "cache", content.cache_bytes, content.reserve_bytes)
    rpc, control, timeout_s = Rpc(content.kubo), Control(content.kubo), content.kubo.timeout_s
    repository = (content.kubo.repository or settings.home / "kubo") if content.kubo.managed else None

    def own() -> str | None:
        return None if repository is None else peer_of(repository)

    if content.engine == "kubo":
        return KuboStore(packs, pins, cache, rpc, control, timeout_s, sources, own=own)
    from bridge.content.cluster.rest import ClusterApi
    from bridge.content.cluster.store import ClusterStore

    cluster = ClusterApi(content.cluster.api, content.cluster.token)
    wanted = content.cluster.replicas
    return ClusterStore(packs, pins, cache, rpc, control, timeout_s, cluster, wanted, sources, own=own)


def each_of(content: ContentStore) -> Callable[[Iterable[bytes]], Iterator[bytes]] | None:
    """How an engine beside which blocks are fetched over a network reads several in order; None where all are here."""
    if isinstance(content, EmbeddedStore):
        return None
    from bridge.content.kubo.store import KuboStore

    return content.each if isinstance(content, KuboStore) else None
