"""What answers in the place of a Kubo or an IPFS Cluster peer is another server: the engine's fault, never ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

import pytest

from bridge.config import Kubo
from bridge.content import cid as cids
from bridge.content.cluster.rest import ClusterApi
from bridge.content.kubo.control import Control
from bridge.content.kubo.rpc import Rpc
from bridge.errors import CairnError, EngineFault
from bridge.model import Block

T = TypeVar("T")
DATA = b"a block"
BLOCK = Block(cids.make(cids.RAW, DATA), DATA)
ANSWERS = [
    b"",
    b"<html>hello</html>",
    b"\xff\xfe",
    b"null",
    b"5",
    b"[5]",
    b"{}",
    b'{"Version": {}, "ID": [], "Keys": 5, "Peers": [5]}',
    b'{"Root": {"Cid": null}, "Error": 5, "BadNodes": 1}',
    b'{"id": 5, "ipfs": {"addresses": 5}}',
    b'{"cid": "b", "allocations": 5, "peer_map": 5}',
    b'{"peer_map": {"a": {"status": "pinned"}}, "allocations": 5}',
    b'[{"peer": 5, "valid": 1}]',
]


class Stranger(BaseHTTPRequestHandler):
    """Says the same to every question."""

    answer = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)
        self.close_connection = True

    do_POST = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("OfOneAnswer", (Stranger,), {"answer": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def asked(questions: list[Callable[[], T]]) -> list[T]:
    """Ask everything: what is answered, and only errors of ours come out, if any."""
    answers = []
    for question in questions:
        try:
            answers.append(question())
        except CairnError:
            continue
    return answers


@pytest.mark.parametrize("url", ANSWERS, indirect=True)
def test_another_server_in_the_place_of_kubo(url: str) -> None:
    control, rpc = Control(Kubo(api=url)), Rpc(Kubo(api=url))
    with pytest.raises(EngineFault):
        rpc.import_car(BLOCK.cid, [b"car"], 1.0)
    with pytest.raises(EngineFault):
        rpc.put(BLOCK)
    asked([control.id, control.version, control.peers, control.pins, lambda: control.pinned(BLOCK.cid)])
    asked([rpc.configuration, lambda: rpc.remove(BLOCK.cid, 1.0)])
    assert asked([lambda: rpc.block(BLOCK.cid)]) == []
    assert BLOCK.cid not in {cid for pins in asked([control.pins]) for cid in pins}
    asked([lambda: rpc.broken_pins(1.0), lambda: rpc.holds(BLOCK.cid)])
    control.close()
    rpc.close()


@pytest.mark.parametrize("url", ANSWERS, indirect=True)
def test_another_server_in_the_place_of_a_peer_of_the_cluster(url: str) -> None:
    cluster, root = ClusterApi(url), cids.to_text(BLOCK.cid)
    asked([cluster.identity, cluster.alive, lambda: cluster.pin(root, 2)])
    asked([lambda: list(cluster.allocations()), lambda: list(cluster.lost())])
    assert [standing.replicas for standing in asked([lambda: cluster.standing(root)]) if standing.replicas] == []
    cluster.close()
