"""The REST API of real IPFS Cluster peers, and answers that a real one gives only in trouble."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge.content.cluster import replication
from bridge.content.cluster.rest import ClusterApi, NotEnoughPeers
from bridge.errors import ConfigError, EngineFault
from tests.cluster_peer import ClusterPeer
from tests.kubo_daemon import KuboDaemon

CAR = Path(__file__).resolve().parents[3] / "data/ipfs/study.car"
PATIENCE_S = 60.0


def until(holds: Callable[[], object]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, "it did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def api(cluster_pair: tuple[ClusterPeer, ClusterPeer]) -> Iterator[ClusterApi]:
    api = ClusterApi(cluster_pair[0].url)
    yield api
    api.close()


@pytest.fixture
def root(cluster_pair: tuple[ClusterPeer, ClusterPeer], api: ClusterApi) -> Iterator[str]:
    """A tree that the first Kubo alone holds and pins."""
    (answer,) = cluster_pair[0].kubo.dag_import(CAR.read_bytes(), pin_roots=True)
    root: str = answer["Root"]["Cid"]["/"]
    yield root
    known = root in dict(api.allocations())
    api.unpin(root)
    if not known:  # then IPFS Cluster touches no Kubo
        cluster_pair[0].kubo.post("pin/rm", root)
    until(lambda: not any(root in peer.kubo.pins() for peer in cluster_pair))


def test_both_peers_are_there_and_the_one_asked_names_its_kubo(
    cluster_pair: tuple[ClusterPeer, ClusterPeer], api: ClusterApi
) -> None:
    assert api.identity().id == cluster_pair[0].peer_id
    assert api.alive() == {peer.peer_id for peer in cluster_pair}
    (address,) = api.identity().kubo_addresses
    assert address == f"{cluster_pair[0].kubo.swarm}/p2p/{cluster_pair[0].kubo.peer_id}"


def test_a_pin_is_asked_for_and_comes_to_both_peers(
    cluster_pair: tuple[ClusterPeer, ClusterPeer], api: ClusterApi, root: str
) -> None:
    assert api.standing(root) == replication.unknown
    assert root not in dict(api.allocations())
    me = api.identity()
    api.pin(root, 2, prefer=[me.id], origins=me.kubo_addresses)
    until(lambda: api.standing(root).replicas == 2)
    assert api.standing(root).allocations == {peer.peer_id for peer in cluster_pair}
    assert root in dict(api.allocations())
    assert root in cluster_pair[1].kubo.pins()


def test_a_pin_that_a_kubo_lost_is_named_and_recovered(
    cluster_pair: tuple[ClusterPeer, ClusterPeer], api: ClusterApi, root: str
) -> None:
    api.pin(root, 2)
    until(lambda: api.standing(root).replicas == 2)
    assert dict(api.lost()) == {}
    cluster_pair[1].kubo.call("pin/rm", root)
    assert dict(api.lost()) == {root: 1}
    api.recover(root)
    until(lambda: api.standing(root).replicas == 2)


def test_the_peer_that_is_preferred_gets_the_only_copy(
    cluster_pair: tuple[ClusterPeer, ClusterPeer], api: ClusterApi, root: str
) -> None:
    api.pin(root, 1, prefer=[cluster_pair[1].peer_id])
    until(lambda: api.standing(root).replicas == 1)
    assert api.standing(root).allocations == {cluster_pair[1].peer_id}


def test_more_copies_than_there_are_peers_are_refused(api: ClusterApi, root: str) -> None:
    with pytest.raises(NotEnoughPeers, match="not enough peers"):
        api.pin(root, 3)
    assert api.standing(root) == replication.unknown


def test_unpinning_what_is_not_known_does_nothing(api: ClusterApi, root: str) -> None:
    api.unpin(root)


def test_a_text_that_is_no_cid_is_refused(api: ClusterApi) -> None:
    with pytest.raises(EngineFault, match="HTTP 400"):
        api.standing("nothing")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9094", "ftp://127.0.0.1", "http://", "http://[::1", "/ip4/127.0.0.1/tcp/1"]
)
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"content\.cluster\.api"):
        ClusterApi(url)


def test_nobody_at_the_address_is_a_fault_of_the_engine(cluster_pair: tuple[ClusterPeer, ClusterPeer]) -> None:
    api = ClusterApi("http://127.0.0.1:1")
    with pytest.raises(EngineFault, match="does not answer"):
        api.identity()
    with pytest.raises(EngineFault, match="does not answer"):
        list(api.allocations())
    api.close()


def test_credentials_are_asked_for_and_given(fresh_kubo: KuboDaemon, tmp_path: Path) -> None:
    fresh_kubo.start()
    peer = ClusterPeer(tmp_path / "guarded", fresh_kubo, credentials=("cairn", "sesame"))
    try:
        peer.start()
        for token in (None, "cairn:wrong", "bearer"):
            api = ClusterApi(peer.url, token)
            with pytest.raises(EngineFault, match=r"content\.cluster\.token"):
                api.identity()
            api.close()
        api = ClusterApi(peer.url, "cairn:sesame")
        assert api.identity().id == peer.peer_id
        assert list(api.allocations()) == []
        api.close()
    finally:
        peer.kill()


@pytest.fixture
def odd() -> Iterator[tuple[ClusterApi, dict[str, Any]]]:
    """An API whose answer is what the test puts under "status" and "body"."""
    given: dict[str, Any] = {"status": 200, "body": b""}

    class Answers(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(given["status"])
            self.send_header("Content-Length", str(len(given["body"])))
            self.end_headers()
            self.wfile.write(given["body"])

        do_GET = do_POST = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = ClusterApi(f"http://127.0.0.1:{server.server_port}")
    yield api, given
    api.close()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"null"])
def test_answers_that_are_something_else_are_faults_of_the_engine(
    odd: tuple[ClusterApi, dict[str, Any]], body: bytes
) -> None:
    api, given = odd
    given["body"] = body
    for ask in (api.identity, lambda: api.pin("bafyr4i", 2), lambda: api.standing("bafyr4i")):
        with pytest.raises(EngineFault, match="IPFS Cluster answered"):
            ask()


def test_a_message_that_is_not_json_is_told_as_it_is(odd: tuple[ClusterApi, dict[str, Any]]) -> None:
    api, given = odd
    given.update(status=502, body=b"bad gateway")
    for ask in (lambda: api.unpin("bafyr4i"), lambda: list(api.allocations())):
        with pytest.raises(EngineFault, match="bad gateway"):
            ask()


def test_metrics_are_those_that_hold_now(odd: tuple[ClusterApi, dict[str, Any]]) -> None:
    api, given = odd
    given["body"] = b'[{"peer": "a", "valid": true}, {"peer": "b", "valid": false}, "c"]'
    assert api.alive() == {"a"}
    given["body"] = b"null"
    assert api.alive() == frozenset()
    given["body"] = b"{}"
    assert api.alive() == frozenset()
    given["body"] = b'{"a": 1}'
    with pytest.raises(EngineFault, match="metrics"):
        api.alive()


def test_no_pins_at_all_is_an_empty_answer(odd: tuple[ClusterApi, dict[str, Any]]) -> None:
    api, given = odd
    given.update(status=204)
    assert list(api.allocations()) == []
