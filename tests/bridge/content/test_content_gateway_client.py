"""Another member's gateway as a source: what comes is verified, who fails is left alone, nobody asks in a circle."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bridge.content import cid as cids
from bridge.content.gateway_client import GatewayClient, at_hand_only
from bridge.errors import ContentCorrupt, ContentMissing, EngineFault

DATA = b"a sealed block"
CID = cids.make(cids.RAW, DATA)


class Gateway(BaseHTTPRequestHandler):
    """Answers every request with the status and body that the test has set."""

    status, body = 200, DATA
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *arguments: object) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gateway() -> Iterator[tuple[type[Gateway], str]]:
    kind = type("OneGateway", (Gateway,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(gateway: tuple[type[Gateway], str], clock: Clock) -> Iterator[GatewayClient]:
    made = GatewayClient("elsewhere", gateway[1], ssl.create_default_context, clock)
    yield made
    made.close()


def test_a_block_is_asked_for_as_it_is_and_only_if_it_is_at_hand(
    client: GatewayClient, gateway: tuple[type[Gateway], str]
) -> None:
    assert client(CID) == DATA
    ((path, headers),) = gateway[0].asked
    assert path == f"/ipfs/{cids.to_text(CID)}?format=raw"
    assert headers["accept"] == "application/vnd.ipld.raw"
    assert headers["cache-control"] == "only-if-cached"


@pytest.mark.parametrize("status", [401, 403, 404, 410, 412])
def test_what_is_not_given_is_missing(client: GatewayClient, gateway: tuple[type[Gateway], str], status: int) -> None:
    gateway[0].status = status
    with pytest.raises(ContentMissing):
        client(CID)


@pytest.mark.parametrize("body", [b"", b"another block", DATA + b"!", bytes(3 << 20)])
def test_what_is_not_the_block_is_refused(
    client: GatewayClient, gateway: tuple[type[Gateway], str], body: bytes
) -> None:
    gateway[0].body = body
    with pytest.raises(ContentCorrupt):
        client(CID)


def test_a_gateway_that_fails_is_a_fault_each_time(client: GatewayClient, gateway: tuple[type[Gateway], str]) -> None:
    gateway[0].status = 500
    for _ in range(2):
        with pytest.raises(EngineFault):
            client(CID)
    assert len(gateway[0].asked) == 2


def test_one_that_does_not_answer_is_left_alone_for_half_a_minute(clock: Clock) -> None:
    opened: list[int] = []

    def context() -> ssl.SSLContext:
        opened.append(1)
        return ssl.create_default_context()

    silent = GatewayClient("elsewhere", "http://127.0.0.1:9", context, clock)
    for _ in range(3):
        with pytest.raises(EngineFault):
            silent(CID)
    assert opened == [1]
    clock.now = 29.0
    with pytest.raises(EngineFault, match="a moment ago"):
        silent(CID)
    clock.now = 31.0
    with pytest.raises(EngineFault, match="does not answer"):
        silent(CID)
    silent.close()


def test_who_serves_a_gateway_asks_none(client: GatewayClient, gateway: tuple[type[Gateway], str]) -> None:
    with at_hand_only():
        with at_hand_only(), pytest.raises(ContentMissing):
            client(CID)
        with pytest.raises(ContentMissing):
            client(CID)
    assert gateway[0].asked == []
    assert client(CID) == DATA
