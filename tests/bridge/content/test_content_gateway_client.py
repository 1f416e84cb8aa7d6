"""Another member's gateway as a source: what comes is verified, who fails is left alone, nobody asks in a circle."""

from __future__ import annotations

import contextlib
import io
import json
import ssl
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bridge.content import car
from bridge.content import cid as cids
from bridge.content.at_hand import at_hand_only
from bridge.content.car import CarReader
from bridge.content.gateway_client import GatewayClient
from bridge.errors import CarInvalid, ContentCorrupt, ContentMissing, EngineFault, RequestError

DATA = b"a sealed block"
CID = cids.make(cids.RAW, DATA)


class Gateway(BaseHTTPRequestHandler):
    """Answers every request with the status and body that the test has set."""

    status, body = 200, DATA
    asked: list[tuple[str, dict[str, str]]]
    posted: list[bytes]

    def do_GET(self) -> None:
        self.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.posted.append(self.rfile.read(int(self.headers["content-length"])))
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def gateway() -> Iterator[tuple[type[Gateway], str]]:
    kind = type("OneGateway", (Gateway,), {"asked": [], "posted": []})
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


@pytest.mark.parametrize(("took", "rests"), [(0.0, 1.0), (2.0, 20.0), (20.0, 30.0)])
def test_one_that_does_not_answer_is_left_alone_for_longer_the_more_time_it_cost(
    clock: Clock, caplog: pytest.LogCaptureFixture, took: float, rests: float
) -> None:
    opened: list[int] = []

    def context() -> ssl.SSLContext:
        opened.append(1)
        clock.now += took
        return ssl.create_default_context()

    silent = GatewayClient("elsewhere", "http://127.0.0.1:9", context, clock)
    for _ in range(3):
        with pytest.raises(EngineFault):
            silent(CID)
    assert opened == [1]
    clock.now = took + rests - 0.1
    with pytest.raises(EngineFault, match="a moment ago"):
        silent(CID)
    clock.now = took + rests + 0.1
    with pytest.raises(EngineFault, match="does not answer"):
        silent(CID)
    assert [record.message for record in caplog.records].count("a member does not answer") == 1
    silent.close()


def test_who_serves_a_gateway_asks_none(client: GatewayClient, gateway: tuple[type[Gateway], str]) -> None:
    with at_hand_only():
        with at_hand_only(), pytest.raises(ContentMissing):
            client(CID)
        with pytest.raises(ContentMissing):
            client(CID)
    assert gateway[0].asked == []
    assert client(CID) == DATA


WHOLE = car.encode_header([CID]) + car.section_head(CID, len(DATA)) + DATA


def test_a_tree_is_written_as_it_comes_each_block_verified(
    client: GatewayClient, gateway: tuple[type[Gateway], str]
) -> None:
    gateway[0].body = WHOLE
    file = io.BytesIO()
    assert client.tree(CID, file, 1 << 20) == len(WHOLE)
    assert file.getvalue() == WHOLE
    ((path, headers),) = gateway[0].asked
    assert path == f"/ipfs/{cids.to_text(CID)}?format=car"
    assert "cache-control" not in headers
    assert [block.cid for block in CarReader(io.BytesIO(file.getvalue()).read)] == [CID]


def test_the_member_that_offers_another_block_is_named(gateway: tuple[type[Gateway], str]) -> None:
    named: list[tuple[str, str]] = []
    client = GatewayClient(
        "elsewhere", gateway[1], ssl.create_default_context, wrong=lambda name, cid: named.append((name, cid))
    )
    gateway[0].body = WHOLE[:-1] + b"!"
    with pytest.raises(CarInvalid):
        client.tree(CID, io.BytesIO(), 1 << 20)
    gateway[0].body = b"another"
    with pytest.raises(ContentCorrupt):
        client(CID)
    assert named == [("elsewhere", cids.to_text(CID))] * 2
    gateway[0].body = WHOLE[:-1]  # cut short: nobody's fault
    with pytest.raises(CarInvalid):
        client.tree(CID, io.BytesIO(), 1 << 20)
    assert len(named) == 2
    client.close()


def test_no_more_of_a_tree_is_taken_than_was_announced(
    client: GatewayClient, gateway: tuple[type[Gateway], str]
) -> None:
    gateway[0].body = WHOLE
    with pytest.raises(CarInvalid, match="more than"):
        client.tree(CID, io.BytesIO(), len(WHOLE) - 1)


def test_what_members_ask_each_other_is_json_both_ways(
    client: GatewayClient, gateway: tuple[type[Gateway], str]
) -> None:
    gateway[0].body = b'{"told": 1}'
    assert client.ask("GET", "/consortium/replicas") == {"told": 1}
    assert client.ask("POST", "/consortium/shares", {"a": 1}) == {"told": 1}
    assert client.ask("POST", "/consortium/shares", b"bytes") == {"told": 1}
    assert [json.loads(gateway[0].posted[0]), gateway[0].posted[1]] == [{"a": 1}, b"bytes"]
    gateway[0].status, gateway[0].body = 202, b""
    assert client.ask("POST", "/consortium/shares", b"bytes") is None


@pytest.mark.parametrize(
    ("status", "error"), [(404, ContentMissing), (400, RequestError), (409, RequestError), (503, EngineFault)]
)
def test_a_refusal_tells_whether_to_come_again(
    client: GatewayClient, gateway: tuple[type[Gateway], str], status: int, error: type[Exception]
) -> None:
    gateway[0].status, gateway[0].body = status, b'{"detail": "not so"}'
    with pytest.raises(error, match="not so"):
        client.ask("GET", "/consortium/replicas")


def test_an_answer_that_is_no_json_is_refused(client: GatewayClient, gateway: tuple[type[Gateway], str]) -> None:
    gateway[0].body = b"<html>"
    with pytest.raises(RequestError):
        client.ask("GET", "/consortium/replicas")


BOMB = zlib.compress(bytes(64 << 20), 9)


@pytest.mark.parametrize("encoding", ["deflate", "gzip", "gzip, gzip, gzip"])
def test_what_comes_compressed_is_not_unpacked(
    client: GatewayClient, gateway: tuple[type[Gateway], str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """It was asked for as it is; some kilobytes that become gigabytes stay some kilobytes."""

    def end_headers(handler: Gateway) -> None:
        handler.send_header("content-encoding", encoding)
        BaseHTTPRequestHandler.end_headers(handler)

    monkeypatch.setattr(gateway[0], "end_headers", end_headers)
    gateway[0].body = BOMB
    with pytest.raises(RequestError, match="no JSON"):
        client.ask("GET", "/consortium/replicas")
    assert client.post("/x", b"", "text/plain")[2] == BOMB
    with pytest.raises(ContentCorrupt):
        client(CID)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nobody_is_led_elsewhere(
    client: GatewayClient, gateway: tuple[type[Gateway], str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def end_headers(handler: Gateway) -> None:
        handler.send_header("location", gateway[1] + "elsewhere")
        BaseHTTPRequestHandler.end_headers(handler)

    monkeypatch.setattr(gateway[0], "end_headers", end_headers)
    gateway[0].status = status
    with pytest.raises(EngineFault):
        client(CID)
    with pytest.raises(EngineFault):
        client.tree(CID, io.BytesIO(), 1 << 20)
    with pytest.raises(RequestError):
        client.ask("POST", "/consortium/shares", b"a package")
    assert {path for path, _ in gateway[0].asked} == {
        *(f"/ipfs/{cids.to_text(CID)}?format={kind}" for kind in ("raw", "car")),
        "/consortium/shares",
    }


def test_an_answer_that_never_ends_is_given_up(
    client: GatewayClient, gateway: tuple[type[Gateway], str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then: each part is in time, the whole never is."""

    def do_GET(handler: Gateway) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            if handler.path.endswith("format=car"):
                handler.wfile.write(car.encode_header([CID]) + car.section_head(CID, 1 << 20))
            while True:
                clock.now += 1.0
                handler.wfile.write(b" ")

    monkeypatch.setattr(gateway[0], "do_GET", do_GET)
    for ask in (
        lambda: client(CID),
        lambda: client.tree(CID, io.BytesIO(), 2 << 20),
        lambda: client.ask("GET", "/consortium/replicas"),
        lambda: client.post("/x", b"", "text/plain"),
    ):
        with pytest.raises((EngineFault, RequestError, ContentCorrupt)):
            ask()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b"\xff", b"{", b"NaN garbage"])
def test_what_is_no_json_or_too_deep_is_an_answer_that_is_refused(
    client: GatewayClient, gateway: tuple[type[Gateway], str], body: bytes
) -> None:
    gateway[0].body = body
    with pytest.raises(RequestError):
        client.ask("GET", "/consortium/replicas")
