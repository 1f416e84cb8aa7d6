"""Fixtures of real processes: `node` shared by the tests of a file, `fresh_node` to be broken, DCMTK's `storescp`,
real PostgreSQLs (`postgresql`, `fresh_postgresql`), Kubos (`kubo`, `fresh_kubo`, `kubo_pair`) and IPFS Cluster peers
(`cluster_pair`)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_peer import ClusterPeer
from tests.kubo_daemon import KuboDaemon
from tests.node.running_node import DCMTK, RunningNode, free_ports
from tests.postgresql_server import PostgresqlServer


def ended_well(node: RunningNode) -> None:
    """Stop a node that still runs: its exit code is 0 and it printed no stack trace."""
    if node.runs:
        assert node.stop() == 0, node.printed()[-3000:]
    assert "Traceback" not in node.printed(), node.printed()[-6000:]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A running node that the tests of one file share; it must end cleanly."""
    running = RunningNode(tmp_path_factory.mktemp("cairn") / "home")
    try:
        running.start()
        yield running
        ended_well(running)
    finally:
        running.kill()


@pytest.fixture
def fresh_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node for one test alone, not started; whatever the test leaves running must end cleanly."""
    own = RunningNode(tmp_path / "home")
    try:
        yield own
        ended_well(own)
    finally:
        own.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A running PostgreSQL that all tests share, each with databases of its own; not to be broken."""
    server = PostgresqlServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL that the tests of one file break one after the other."""
    server = PostgresqlServer()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def fresh_postgresql(own_postgresql: PostgresqlServer) -> PostgresqlServer:
    """A running PostgreSQL, to be paused and killed; whoever comes next finds it running again."""
    return own_postgresql if own_postgresql.runs else own_postgresql.start()


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KuboDaemon]:
    """A running Kubo, alone in its swarm, that the tests of one file share."""
    daemon = KuboDaemon(tmp_path_factory.mktemp("kubo") / "repository")
    try:
        yield daemon.start()
    finally:
        daemon.kill()


@pytest.fixture
def fresh_kubo(tmp_path: Path) -> Iterator[KuboDaemon]:
    """A Kubo for one test alone, to be configured, broken and killed; not started."""
    daemon = KuboDaemon(tmp_path / "kubo")
    try:
        yield daemon
    finally:
        daemon.kill()


@pytest.fixture(scope="module")
def kubo_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KuboDaemon, KuboDaemon]]:
    """Two running Kubos, connected in a private swarm, that the tests of one file share."""
    folder = tmp_path_factory.mktemp("kubos")
    first = KuboDaemon(folder / "first")
    second = KuboDaemon(folder / "second", first.key, [first])
    first.peer_with(second)
    try:
        first.start(ready=False)
        second.start()
        first.wait_ready()
        second.connect(first)
        yield first, second
    finally:
        first.kill()
        second.kill()


@pytest.fixture(scope="module")
def cluster_pair(
    kubo_pair: tuple[KuboDaemon, KuboDaemon], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ClusterPeer, ClusterPeer]]:
    """Two running IPFS Cluster peers in one cluster, on the Kubos of `kubo_pair`; each sees the other's free space."""
    folder = tmp_path_factory.mktemp("cluster")
    first = ClusterPeer(folder / "first", kubo_pair[0])
    second = ClusterPeer(folder / "second", kubo_pair[1], first)
    try:
        first.start()
        yield first, second.start()
    finally:
        first.kill()
        second.kill()


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp, which writes the data sets exactly as they came over the network (`--bit-preserving`)."""
    (port,) = free_ports(1)
    received = tmp_path / "received"
    received.mkdir()
    with subprocess.Popen(
        [DCMTK / "storescp", "--bit-preserving", "--accept-all", "--output-directory", received, str(port)],
        stdout=subprocess.DEVNULL,
    ) as process:
        while subprocess.run([DCMTK / "echoscu", "127.0.0.1", str(port)], check=False, capture_output=True).returncode:
            assert process.poll() is None, "storescp ended"
        yield port, received
        process.terminate()
