"""A giver whose gateway lies, while its study is fetched: what comes is refused or left, bounded, and it is named."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bridge.content import car, dag
from bridge.content import cid as cids
from bridge.content.gateway_client import GatewayClient
from bridge.node import Node
from tests.bridge.services.test_share import Members, content, part10_of, studies

EXTRA = b"a block that nobody links to"
EXTRA_CID = cids.make(cids.RAW, EXTRA)
Blocks = list[tuple[bytes, bytes]]


def section(cid: bytes, data: bytes) -> bytes:
    return car.section_head(cid, len(data)) + data


def sections(blocks: Blocks) -> list[bytes]:
    return [section(cid, data) for cid, data in blocks]


class Giver(BaseHTTPRequestHandler):
    """h0's gateway by the test's own hand: `car` makes the pieces of a CAR's body, single blocks are given or not."""

    blocks: Blocks
    car: Callable[[Blocks], Iterator[bytes] | list[bytes]]
    single: dict[bytes, bytes]
    status = 200
    more: tuple[tuple[str, str], ...] = ()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, _, query = self.path.removeprefix("/ipfs/").partition("?")
        if query == "format=raw":
            data = self.single.get(cids.from_text(name))
            self.send_response(404 if data is None else 200)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")
            return
        self.send_response(self.status)
        for header in (*self.more, ("connection", "close")):
            self.send_header(*header)
        self.end_headers()
        with contextlib.suppress(OSError):
            for piece in type(self).car(self.blocks):
                self.wfile.write(piece)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


class Hostile:
    """Three hospitals, of which h0 has granted a study to h1 and serves it as the test says."""

    def __init__(self, folder: Path) -> None:
        self.members = Members(folder)
        self.members.store(range(3))
        node = self.members.giver
        root = node.index.trees.of_study("1.2.826.0.1.3680043.8.498.91")[0].root
        assert root is not None
        self.blocks = [(cid, bytes(node.content.get(cid))) for cid, _ in dag.order(root, node.content.get)]
        self.kind = type("HostileGiver", (Giver,), {"blocks": self.blocks, "single": {}})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.kind)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.wrong: list[str] = []
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.client = GatewayClient(
            "h0", url, ssl.create_default_context, wrong=lambda name, cid: self.wrong.append(name), rests=False
        )
        self.desk = self.members.desks["h1"]
        self.honest = self.desk.receiver

    @property
    def receiver(self) -> Node:
        return self.members.receiver

    def serve(self, made: Callable[[Blocks], Iterator[bytes] | list[bytes]], single: Blocks | None = None) -> None:
        self.kind.car = staticmethod(made)  # type: ignore[attr-defined]
        self.kind.single = dict(single or [])  # type: ignore[attr-defined]
        listener = lambda node: self.client  # noqa: E731
        self.desk.receiver = replace(self.honest, sharing=replace(self.honest.sharing, listener=listener), most=1 << 20)

    def granted(self) -> bytes:
        grant = self.members.grant()
        for _ in range(4):
            self.members.consortium.clock.pass_by(10)
            self.members.settle()
        return grant

    def incoming(self) -> int:
        """Bytes that are kept of what came."""
        return sum(file.stat().st_size for file in (self.receiver.settings.home / "incoming").iterdir())

    def close(self) -> None:
        self.client.close()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.members.consortium.close()


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(tmp_path)
    yield made
    made.close()


def header(blocks: Blocks) -> bytes:
    return car.encode_header([blocks[0][0]])


def altered(blocks: Blocks) -> list[bytes]:
    cid, data = blocks[-1]
    return [header(blocks), *sections(blocks[:-1]), section(cid, data[:-1] + bytes([data[-1] ^ 1]))]


def extra(blocks: Blocks) -> list[bytes]:
    return [header(blocks), *sections(blocks), section(EXTRA_CID, EXTRA)]


def extra_first(blocks: Blocks) -> list[bytes]:
    return [header(blocks), section(EXTRA_CID, EXTRA), *sections(blocks)]


def endless(blocks: Blocks) -> Iterator[bytes]:
    yield from [header(blocks), *sections(blocks)]
    number = 0
    while True:
        number += 1
        data = b"%020d" % number * 1000
        yield section(cids.make(cids.RAW, data), data)


def repeated(blocks: Blocks) -> Iterator[bytes]:
    yield from [header(blocks), *sections(blocks)]
    while True:
        yield section(*blocks[-1])


def garbage(blocks: Blocks) -> Iterator[bytes]:
    while True:
        yield b"no CAR at all " * 1000


REFUSED = {"altered": altered, "extra": extra, "extra first": extra_first, "endless": endless, "repeated": repeated}


@pytest.mark.parametrize("name", [*REFUSED, "garbage"])
def test_what_is_not_the_tree_is_refused_and_nothing_of_it_is_left(hostile: Hostile, name: str) -> None:
    empty = content(hostile.receiver)
    hostile.serve(REFUSED.get(name, garbage))
    grant = hostile.granted()
    received = hostile.members.received(grant)
    assert (received.state, received.member) == ("refused", "h0"), received
    assert content(hostile.receiver) == empty and hostile.incoming() == 0
    assert hostile.members.given(grant).refused is not None  # and the ledger says so to all
    assert (hostile.wrong == ["h0"] * 3) == (name == "altered")


def test_a_tree_that_lacks_a_block_is_never_shown_and_is_whole_when_that_comes(hostile: Hostile) -> None:
    hostile.serve(lambda blocks: [header(blocks), *sections(blocks[:-1])])
    grant = hostile.granted()
    received = hostile.members.received(grant)
    assert (received.state, received.instances) == ("offered", None) and "not to be had from h0" in str(received.fault)
    assert studies(hostile.receiver) == []
    hostile.serve(garbage, single=hostile.blocks[-1:])  # what came is not asked for again
    hostile.members.consortium.clock.pass_by(60)
    hostile.members.settle()
    assert hostile.members.received(grant).state == "held"
    assert part10_of(hostile.receiver, 2) == part10_of(hostile.members.giver, 2)


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hostile: Hostile) -> None:
    def cut(blocks: Blocks) -> list[bytes]:
        whole = b"".join([header(blocks), *sections(blocks)])
        return [whole[: len(whole) // 2]]

    hostile.serve(cut)
    grant = hostile.granted()
    assert hostile.members.received(grant).state in ("offered", "refused") and studies(hostile.receiver) == []
    hostile.desk.receiver = hostile.honest
    hostile.members.store(range(3, 4))
    hostile.members.consortium.clock.pass_by(60)
    hostile.members.settle()
    assert hostile.members.received(grant).state == "held"


@pytest.mark.parametrize(("status", "more"), [(302, (("location", "/elsewhere"),)), (500, ()), (206, ())])
def test_an_answer_of_another_kind_is_no_tree(hostile: Hostile, status: int, more: tuple[tuple[str, str], ...]) -> None:
    hostile.serve(lambda blocks: [header(blocks), *sections(blocks)])
    hostile.kind.status, hostile.kind.more = status, more  # type: ignore[attr-defined]
    grant = hostile.granted()
    received = hostile.members.received(grant)
    assert (received.state, studies(hostile.receiver)) == ("offered", []) and str(status) in str(received.fault)


def test_what_comes_compressed_is_no_tree(hostile: Hostile) -> None:
    hostile.serve(lambda blocks: [bytes(1000)])
    hostile.kind.more = (("content-encoding", "gzip"),)  # type: ignore[attr-defined]
    grant = hostile.granted()
    assert hostile.members.received(grant).state == "refused" and hostile.incoming() == 0
