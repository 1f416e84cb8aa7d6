"""A node whose studies lie on two Kubos that IPFS Cluster looks after, with real processes for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sample import send as sample
from tests.cluster_peer import ClusterPeer
from tests.kubo_daemon import KuboDaemon
from tests.node.running_node import RunningNode

PATIENCE_S = 90.0
Cluster = tuple[RunningNode, ClusterPeer, ClusterPeer]


def until(holds: Callable[[], object], told: Callable[[], object] = lambda: "") -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, f"it did not come true in time: {told()}"
        time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A running node over the first of two running peers; each peer has a Kubo of its own."""
    first = KuboDaemon(tmp_path / "first-kubo")
    second = KuboDaemon(tmp_path / "second-kubo", first.key, [first])
    peers = [ClusterPeer(tmp_path / "first", first)]
    peers.append(ClusterPeer(tmp_path / "second", second, peers[0]))
    node = RunningNode(
        tmp_path / "home",
        CAIRN_CONTENT__ENGINE="cluster",
        CAIRN_CONTENT__KUBO__API=first.api,
        CAIRN_CONTENT__CLUSTER__API=peers[0].url,
    )
    try:
        first.start(ready=False)
        second.start()
        first.wait_ready()
        for peer in peers:
            peer.start()
        node.start()
        yield node, peers[0], peers[1]
        assert node.stop() == 0, node.printed()[-3000:]
        assert "Traceback" not in node.printed(), node.printed()[-6000:]
    finally:
        for daemon in (node, *peers, first, second):
            daemon.kill()


def status(node: RunningNode) -> dict[str, Any]:
    return node.answer("content", "status")


def test_studies_are_pinned_on_both_kubos_and_a_lost_peer_is_told_and_made_good(cluster: Cluster) -> None:
    node, _, second = cluster
    studies = send_sample(node)
    until(lambda: settled(node, studies), lambda: status(node))
    roots = {str(node.answer("study", "show", study)["trees"][0]["root"]) for study in study_uids(node)}
    assert len(roots) == studies
    assert roots <= second.kubo.pins()
    assert all(copies(node, study) == (2, 2) for study in study_uids(node))

    second.kill()
    second.kubo.kill()
    until(lambda: any("1 of IPFS Cluster's peers" in fault["reason"] for fault in status(node)["faults"]))
    with node.http(None) as client:
        answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    studies = send_sample(node)  # stored, and pinned by the Kubo that is there
    until(lambda: status(node)["studies"]["waiting"] == 0, lambda: status(node))
    assert status(node)["studies"]["short"] > 0

    second.kubo.start()
    second.start()
    until(lambda: settled(node, studies) and not status(node)["faults"], lambda: status(node))


def send_sample(node: RunningNode) -> int:
    """Send a study more; how many there are."""
    sample.main(["127.0.0.1", str(node.dimse_port), "CAIRN"])
    return len(study_uids(node))


def study_uids(node: RunningNode) -> list[str]:
    with node.http() as client:
        found = client.get("/dicom-web/studies").json()
    return [study["0020000D"]["Value"][0] for study in found]


def settled(node: RunningNode, studies: int) -> bool:
    counts = status(node)["studies"]
    return counts["pinned"] == counts["verified"] == studies and counts["waiting"] == counts["short"] == 0


def copies(node: RunningNode, study: str) -> tuple[int, int]:
    shown = node.answer("study", "show", study)
    return shown["trees"][0]["replicas"], shown["trees"][0]["wanted"]
