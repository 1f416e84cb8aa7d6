"""One study in nodes of every engine, all of them real: the same root, the same CAR, the same images."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cbor2
import pytest

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.car import CarReader
from bridge.sample.send import send_sample
from bridge.sample.study import INSTANCES
from tests.cluster_peer import ClusterPeer
from tests.conftest import ended_well
from tests.kubo_daemon import KuboDaemon
from tests.node.instances import parts
from tests.node.running_node import RunningNode

PATIENCE_S = 60.0
WHOLE = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


class Nodes(NamedTuple):
    """A node of each engine, all running, and the Kubos below two of them."""

    embedded: RunningNode
    kubo: RunningNode
    cluster: RunningNode
    kubos: tuple[KuboDaemon, KuboDaemon]


@pytest.fixture(scope="module")
def nodes(
    cluster_pair: tuple[ClusterPeer, ClusterPeer], kubo: KuboDaemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nodes]:
    """The node with Kubo has one of its own, so that it must be given every block."""
    folder = tmp_path_factory.mktemp("nodes")
    peer = cluster_pair[0]
    over_cluster = {"CAIRN_CONTENT__KUBO__API": peer.kubo.api, "CAIRN_CONTENT__CLUSTER__API": peer.url}
    made = (
        RunningNode(folder / "embedded"),
        RunningNode(folder / "kubo", CAIRN_CONTENT__ENGINE="kubo", CAIRN_CONTENT__KUBO__API=kubo.api),
        RunningNode(folder / "cluster", CAIRN_CONTENT__ENGINE="cluster", **over_cluster),
    )
    try:
        for node in made:
            node.start(ready=False)
        for node in made:
            node.wait_ready()
        yield Nodes(*made, (kubo, peer.kubo))
        for node in made:
            ended_well(node)
    finally:
        for node in made:
            node.kill()


def until(holds: Callable[[], object], told: Callable[[], object]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, f"it did not come true in time: {told()}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def study(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample study's UID: sent to the embedded node over DICOM, taken in by the others with its key."""
    folder = tmp_path_factory.mktemp("files")
    uid = send_sample("127.0.0.1", nodes.embedded.dimse_port).study
    until(lambda: root_of(nodes.embedded, uid), nodes.embedded.printed)
    for name, node in (("kubo", nodes.kubo), ("cluster", nodes.cluster)):
        car, key = str(folder / f"{name}.car"), str(folder / f"{name}.key")
        to = node.answer("key", "show")["recipient"]
        nodes.embedded.cairn("study", "export", uid, "--out", car, "--to", to, "--key-out", key)
        node.cairn("study", "import", car, "--key", key)
    return uid


def root_of(node: RunningNode, study: str) -> str | None:
    """The root of the study's only tree; None before its batch was closed."""
    (tree,) = node.answer("study", "show", study)["trees"]
    return tree["root"]


def exported(node: RunningNode, study: str, folder: Path) -> bytes:
    out = folder / f"{node.home.name}.car"
    node.cairn("study", "export", study, "--out", str(out))
    return out.read_bytes()


def test_a_study_has_one_root_and_one_car_in_every_engine_and_in_kubo(nodes: Nodes, study: str, tmp_path: Path) -> None:
    root = root_of(nodes.embedded, study)
    car = exported(nodes.embedded, study, tmp_path)
    for node, kubo in ((nodes.kubo, nodes.kubos[0]), (nodes.cluster, nodes.kubos[1])):
        assert root_of(node, study) == root
        assert exported(node, study, tmp_path) == car
        until(lambda kubo=kubo: root in kubo.pins(), node.printed)
        assert kubo.post("dag/export", str(root), offline=True).content == car


def test_every_node_gives_the_same_files(nodes: Nodes, study: str) -> None:
    given = []
    for node in nodes[:3]:
        with node.http() as client:
            answer = client.get(f"/dicom-web/studies/{study}", headers=WHOLE)
            assert answer.status_code == 200
            given.append(sorted(parts(answer)))
    assert len(given[0]) == INSTANCES
    assert given[0] == given[1] == given[2]


def test_each_sealed_object_is_the_file_that_ipfs_add_makes_of_its_ciphertext(
    nodes: Nodes, study: str, tmp_path: Path
) -> None:
    kubo = nodes.kubos[0]
    car = exported(nodes.kubo, study, tmp_path)
    objects = {instance.object for instance in instances(car)} | {instance.metadata for instance in instances(car)}
    assert len(objects) == 2 * INSTANCES
    texts = sorted(cids.to_text(cid) for cid in objects)
    files = [tmp_path / text for text in texts]
    for file in files:
        file.write_bytes(kubo.post("cat", file.name, offline=True).content)
    layout = ["--cid-version=1", "--raw-leaves", "--chunker=size-1048576", "--max-file-links=1024", "--hash=blake3"]
    assert kubo.ipfs("add", "-q", "--only-hash", *layout, *files).stdout.decode().split() == texts


def instances(car: bytes) -> Iterator[manifest.InstanceBlock]:
    """The instance blocks of a study's CAR: whatever else is dag-cbor is a root or a page."""
    for block in CarReader(io.BytesIO(car).read):
        if cids.parse(block.cid).codec == cids.DAG_CBOR and set(cbor2.loads(block.data)) >= {"d", "x"}:
            yield manifest.decode_instance(bytes(block.data))
