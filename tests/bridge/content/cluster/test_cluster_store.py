"""Copies of a study over two real IPFS Cluster peers and their Kubos: counted, missed, asked for again, let go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content.cache import DiskCache
from bridge.content.cluster.rest import ClusterApi
from bridge.content.cluster.store import ClusterStore
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import Rpc
from bridge.content.packs import PackStore
from bridge.content.pins import MemoryPins, Pin
from bridge.errors import EngineFault
from bridge.model import Block, BlockPosition, PinReceipt
from tests.cluster_peer import ClusterPeer
from tests.kubo_daemon import KuboDaemon

Pair = tuple[ClusterPeer, ClusterPeer]
PATIENCE_S = 60.0


def until(holds: Callable[[], object]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, "it did not come true in time"
        time.sleep(0.05)


class WatchedPins(MemoryPins):
    """A pin table that remembers what was written to it, and tells it to whoever waits."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[bytes, int]] = []

    def record(self, root: bytes, receipt: PinReceipt, wanted: int) -> None:
        super().record(root, receipt, wanted)
        self.written.append((root, receipt.replicas))


class Archive:
    """The spool of a node and the cluster engine over it."""

    def __init__(self, home: Path, peer: ClusterPeer, wanted: int = 2, patience_s: float = PATIENCE_S) -> None:
        self.pins = WatchedPins()
        self._positions: dict[bytes, BlockPosition] = {}
        kubo = Kubo(api=peer.kubo.url)
        self.api = ClusterApi(peer.url)
        self.store = ClusterStore(
            PackStore(home, "web-0", self._positions.get),
            self.pins,
            DiskCache(home / "cache", 1 << 20),
            Rpc(kubo),
            Control(kubo),
            30.0,
            self.api,
            wanted,
            patience_s=patience_s,
        )

    def tree(self, leaves: int = 3, keep: bytes | None = None) -> bytes:
        """A root over new leaves, and over another tree when there is one to `keep`, all of it in the spool."""
        blocks = [_block(os.urandom(1000)) for _ in range(leaves)]
        links = [block.cid for block in blocks] + ([keep] if keep else [])
        value = {"l": [cbor2.CBORTag(42, b"\0" + link) for link in links]}
        blocks.append(_block(cbor2.dumps(value, canonical=True), cids.DAG_CBOR))
        self._positions.update((position.cid, position) for position in self.store.put(blocks))
        self.store.sync()
        return blocks[-1].cid

    def copies(self, root: bytes) -> int:
        return self.api.standing(cids.to_text(root)).replicas


def _block(data: bytes, codec: int = cids.RAW) -> Block:
    return Block(cids.make(codec, data), data)


Open = Callable[..., Archive]


@pytest.fixture
def open_archive() -> Iterator[Open]:
    """Archives, closed with the test."""
    opened: list[Archive] = []

    def open_(*arguments: Any, **named: Any) -> Archive:
        opened.append(Archive(*arguments, **named))
        return opened[-1]

    yield open_
    for archive in opened:
        archive.store.close()


@pytest.fixture
def archive(cluster_pair: Pair, tmp_path: Path, open_archive: Open) -> Archive:
    return open_archive(tmp_path, cluster_pair[0])


@pytest.fixture
def own_pair(tmp_path: Path) -> Iterator[Pair]:
    """Two peers for one test alone, the second one not started."""
    first = KuboDaemon(tmp_path / "first-kubo")
    second = KuboDaemon(tmp_path / "second-kubo", first.key, [first])
    peers: list[ClusterPeer] = []
    try:
        first.start(ready=False)
        second.start()
        first.wait_ready()
        peers.append(ClusterPeer(tmp_path / "first", first).start())
        peers.append(ClusterPeer(tmp_path / "second", second, peers[0]))
        yield peers[0], peers[1]
    finally:
        for daemon in (*peers, first, second):
            daemon.kill()


def test_a_root_is_pinned_when_both_kubos_hold_the_whole_tree(cluster_pair: Pair, archive: Archive) -> None:
    root = archive.tree()
    receipt = archive.store.pin(root)
    assert receipt.replicas == 2
    assert archive.pins.of(root) == Pin(root, receipt.at, None, 2, 2)
    for peer in cluster_pair:
        assert cids.to_text(root) in peer.kubo.pins()
    status = archive.store.status(root)
    assert (status.engine, status.reasons, status.replicas, status.wanted) == ("cluster", (), 2, 2)


def test_what_a_root_replaces_is_let_go_by_both_kubos(cluster_pair: Pair, archive: Archive) -> None:
    former = archive.tree()
    archive.store.pin(former)
    root = archive.tree(keep=former)
    archive.store.pin(root, replaces=former)
    assert archive.pins.of(former) is None
    for peer in cluster_pair:
        until(lambda kubo=peer.kubo: cids.to_text(former) not in kubo.pins())  # type: ignore[misc]
        assert cids.to_text(root) in peer.kubo.pins()
    assert archive.copies(root) == 2


def test_an_unpinned_root_is_let_go_by_both_kubos_and_unpinning_again_does_nothing(
    cluster_pair: Pair, archive: Archive
) -> None:
    root = archive.tree()
    archive.store.pin(root)
    archive.store.unpin(root)
    archive.store.unpin(root)
    for peer in cluster_pair:
        until(lambda kubo=peer.kubo: cids.to_text(root) not in kubo.pins())  # type: ignore[misc]
    assert archive.store.status(root).replicas is None


def test_one_copy_is_this_nodes_own(cluster_pair: Pair, tmp_path: Path, open_archive: Open) -> None:
    archive = open_archive(tmp_path, cluster_pair[1], wanted=1)
    root = archive.tree()
    assert archive.store.pin(root).replicas == 1
    standing = archive.api.standing(cids.to_text(root))
    assert standing.allocations in (frozenset(), {cluster_pair[1].peer_id})
    assert cids.to_text(root) in cluster_pair[1].kubo.pins()
    assert cids.to_text(root) not in cluster_pair[0].kubo.pins()


def test_copies_of_a_pin_that_the_cluster_forgot_are_asked_for_again(cluster_pair: Pair, archive: Archive) -> None:
    root, other = archive.tree(), archive.tree()
    archive.store.pin(root)
    archive.store.pin(other)
    archive.api.unpin(cids.to_text(root))
    until(lambda: archive.store.pinned() & {root, other} == {other})
    cluster_pair[0].kubo.post("pin/add", cids.to_text(root))  # as when only the cluster's state was lost
    assert {root, other} <= archive.store.pinned()
    assert [pin.replicas for pin in archive.pins.all() if pin.root in (root, other)] == [1, 2]
    assert archive.store.status(root).replicas == 2


def test_a_copy_that_another_kubo_lost_is_missed_and_made_good(cluster_pair: Pair, archive: Archive) -> None:
    root = archive.tree()
    archive.store.pin(root)
    assert root in archive.store.pinned()
    assert archive.pins.of(root) == Pin(root, archive.pins.all()[0].pinned, None, 2, 2)
    cluster_pair[1].kubo.call("pin/rm", cids.to_text(root))
    assert root in archive.store.pinned()
    assert archive.pins.written[-1] == (root, 1)
    assert archive.store.status(root).replicas == 2


def test_a_copy_whose_peer_is_gone_is_missed(own_pair: Pair, tmp_path: Path, open_archive: Open) -> None:
    own_pair[1].start()
    archive = open_archive(tmp_path / "home", own_pair[0])
    root = archive.tree()
    assert archive.store.pin(root).replicas == 2
    own_pair[1].kill()
    until(lambda: archive.store.pinned() and archive.pins.written[-1] == (root, 1))


def test_when_more_copies_are_wanted_than_before_they_are_short(
    cluster_pair: Pair, tmp_path: Path, open_archive: Open
) -> None:
    one = open_archive(tmp_path, cluster_pair[0], wanted=1)
    root = one.tree()
    one.store.pin(root)
    two = open_archive(tmp_path / "more", cluster_pair[0])
    two.pins.record(root, PinReceipt(root, 1, 0), 1)
    two.store.pinned()
    assert two.pins.of(root) == Pin(root, 0, None, 1, 2)
    assert two.store.status(root).replicas == 2


def test_with_too_few_peers_what_is_held_is_kept_and_the_rest_asked_for_by_status(
    own_pair: Pair, tmp_path: Path, open_archive: Open
) -> None:
    archive = open_archive(tmp_path / "home", own_pair[0], patience_s=600.0)
    root = archive.tree()
    assert archive.store.pin(root).replicas == 1
    assert root in archive.store.pinned()
    status = archive.store.status(root)
    assert (status.replicas, status.wanted) == (1, 2)
    assert any("1 of IPFS Cluster's peers" in reason for reason in status.reasons)
    own_pair[1].start()
    until(lambda: archive.store.status(root).replicas == 2)
    assert archive.store.status(root).reasons == ()


def test_another_peers_kubo_that_hangs_holds_nothing_up(own_pair: Pair, tmp_path: Path, open_archive: Open) -> None:
    archive = open_archive(tmp_path / "home", own_pair[0], patience_s=600.0)
    own_pair[1].start()
    root = archive.tree()
    with own_pair[1].kubo.paused():
        assert archive.store.pin(root).replicas == 1
        assert archive.store.status(root).replicas == 1
        until(lambda: any("1 of IPFS Cluster's peers" in reason for reason in archive.store.status().reasons))
    until(lambda: archive.store.status(root).replicas == 2)


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[Pair]:
    """Two peers of one cluster whose Kubos are of two swarms, so that the second never gets a block."""
    kubos = KuboDaemon(tmp_path / "first-kubo"), KuboDaemon(tmp_path / "second-kubo")
    peers = [ClusterPeer(tmp_path / "first", kubos[0])]
    peers.append(ClusterPeer(tmp_path / "second", kubos[1], peers[0]))
    try:
        for kubo, peer in zip(kubos, peers, strict=True):
            kubo.start()
            peer.start()
        yield peers[0], peers[1]
    finally:
        for daemon in (*peers, *kubos):
            daemon.kill()


def test_a_copy_that_does_not_come_is_waited_for_as_long_as_was_said(
    strangers: Pair, tmp_path: Path, open_archive: Open
) -> None:
    archive = open_archive(tmp_path / "home", strangers[0], patience_s=2.0)
    root = archive.tree()
    assert archive.store.pin(root).replicas == 1
    assert archive.api.standing(cids.to_text(root)).under_way
    assert archive.store.status(root).reasons == ()


def test_a_root_with_fewer_copies_does_not_take_the_place_of_one_with_more(
    own_pair: Pair, tmp_path: Path, open_archive: Open
) -> None:
    own_pair[1].start()
    archive = open_archive(tmp_path / "home", own_pair[0], patience_s=1.0)
    former = archive.tree()
    assert archive.store.pin(former).replicas == 2
    own_pair[1].kill()
    own_pair[1].kubo.kill()
    root = archive.tree(keep=former)
    assert archive.store.pin(root, replaces=former).replicas == 1
    assert archive.pins.of(former) is not None
    until(lambda: any("1 of IPFS Cluster's peers" in reason for reason in archive.store.status().reasons))
    own_pair[1].kubo.start()
    own_pair[1].start()
    until(lambda: archive.store.status(root).replicas == 2)
    assert archive.store.pin(root, replaces=former).replicas == 2
    assert archive.pins.of(former) is None


def test_a_cluster_that_does_not_answer_is_told_and_the_tree_is_in_kubo(
    own_pair: Pair, tmp_path: Path, open_archive: Open
) -> None:
    archive = open_archive(tmp_path / "home", own_pair[0])
    own_pair[0].kill()
    root = archive.tree()
    with pytest.raises(EngineFault, match="IPFS Cluster does not answer"):
        archive.store.pin(root)
    assert cids.to_text(root) in own_pair[0].kubo.pins()
    assert archive.pins.of(root) is None
    assert archive.store.status().reasons[0].startswith("IPFS Cluster does not answer")


def test_closing_ends_a_pin_that_waits_for_copies(strangers: Pair, tmp_path: Path, open_archive: Open) -> None:
    archive = open_archive(tmp_path / "home", strangers[0], patience_s=600.0)
    root = archive.tree()
    ended = threading.Event()

    def pin() -> None:
        try:
            archive.store.pin(root)
        except EngineFault:
            pass  # the connections were closed meanwhile
        finally:
            ended.set()

    threading.Thread(target=pin).start()
    until(lambda: strangers[0].ask("GET", f"/pins/{cids.to_text(root)}").json()["allocations"])
    assert not ended.is_set()
    archive.store.close()
    assert ended.wait(PATIENCE_S)
