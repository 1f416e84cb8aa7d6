"""What CometBFT's RPC may answer, and when it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bridge.consensus.rpc import Rpc, RpcFault
from bridge.errors import ConfigError
from tests.node.running_node import free_ports

Answering = Callable[[bytes], Rpc]


@pytest.fixture
def answering() -> Iterator[Answering]:
    """RPCs that answer everything with the same bytes, over one connection after the other."""
    running: list[tuple[ThreadingHTTPServer, Rpc]] = []

    def one(body: bytes) -> Rpc:
        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True  # without saying so

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        running.append((server, Rpc(f"http://127.0.0.1:{server.server_port}")))
        return running[-1][1]

    yield one
    for server, rpc in running:
        rpc.close()
        server.shutdown()
        server.server_close()


def result(value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()


def error(data: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no", "data": data}}).encode()


def test_a_connection_that_was_closed_meanwhile_is_made_anew(answering: Answering) -> None:
    rpc = answering(result({"code": 3, "log": "why"}))
    assert [rpc.submit(b"tx") for _ in range(3)] == [(3, "why")] * 3


def test_a_transaction_that_is_in_the_cache_counts_as_taken(answering: Answering) -> None:
    assert answering(error("tx already exists in cache")).submit(b"tx").code == 0


def test_an_error_is_told_in_its_own_words(answering: Answering) -> None:
    with pytest.raises(RpcFault, match="mempool is full"):
        answering(error("mempool is full: number of txs 5000")).submit(b"tx")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", result({}), result(None), result([]), b'{"result": {"x": 1}}']
)
def test_what_is_not_understood_is_a_fault(answering: Answering, body: bytes) -> None:
    rpc = answering(body)
    for ask in (rpc.status, rpc.peers, lambda: rpc.submit(b"tx"), lambda: rpc.validators(1)):
        with pytest.raises(RpcFault):
            ask()


def test_validators_are_asked_for_until_all_are_there(answering: Answering) -> None:
    page = {"total": "3", "validators": [{"address": "00"}]}
    assert len(answering(result(page)).validators(1)) == 3
    assert answering(result({"total": "3", "validators": []})).validators(1) == []


def test_nobody_there_is_a_fault() -> None:
    (port,) = free_ports(1)
    with pytest.raises(RpcFault, match="does not answer"):
        Rpc(f"http://127.0.0.1:{port}").status()


@pytest.mark.parametrize("address", ["127.0.0.1:26657", "tcp://127.0.0.1:1", "http://h", "http://[::1", "http://h:1/x"])
def test_an_address_that_is_none_is_a_matter_of_configuration(address: str) -> None:
    with pytest.raises(ConfigError):
        Rpc(address)
