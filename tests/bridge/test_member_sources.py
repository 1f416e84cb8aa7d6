"""The other members as sources of blocks: who is asked, in which order; who offers a wrong block is named."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bridge import member_sources
from bridge.config import Content, Members, Settings
from bridge.content import cid as cids
from bridge.crypto.keystore import open_keystore
from bridge.errors import ContentMissing, EngineFault
from bridge.member_sources import Likely, MemberGateways
from bridge.node import Node
from ledger.genesis import Card
from ledger.members import Member, MemberKey
from tests.bridge.services.conftest import CHEAP

DATA, ROOT_DATA = b"a sealed block", b"a root"
CID, ROOT = cids.make(cids.RAW, DATA), cids.make(cids.RAW, ROOT_DATA)


class Gateway:
    """A member's gateway over plain HTTP: what it has, and what it was asked for."""

    def __init__(self) -> None:
        self.has: dict[bytes, bytes] = {}
        self.asked: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cid = cids.from_text(self.path.split("/")[2].split("?")[0])
                outer.asked.append(cid)
                data = outer.has.get(cid)
                self.send_response(404 if data is None else 200)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def member(name: str, url: str) -> Member:
    key = name.encode().ljust(32, b"\0")
    card = Card(name, key, key, bytes(48), name.encode(), url, key, 1, "address")
    return Member(card.node, card, (MemberKey(key, 0),), 1)


class Consortium:
    def __init__(self, members: Sequence[Member]) -> None:
        self.list = list(members)

    def own(self) -> Member:
        return self.list[0]

    def members(self) -> Sequence[Member]:
        return self.list


class Net:
    """This node (h0) and two others, h1 and h2."""

    def __init__(self) -> None:
        self.gateways = {name: Gateway() for name in ("h0", "h1", "h2")}
        self.consortium = Consortium([member(name, one.url) for name, one in self.gateways.items()])
        self.nodes = {one.name: one.node for one in self.consortium.list}
        self.likely: list[Likely] = []
        self.wrong: list[tuple[str, str]] = []
        told: Callable[[str, str], None] = lambda name, cid: self.wrong.append((name, cid))  # noqa: E731
        consortium: Any = self.consortium
        self.sources = MemberGateways(consortium, Members(), lambda cid: self.likely, told)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    monkeypatch.setattr(member_sources, "_pinned", lambda members, certificate: ssl.create_default_context())
    made = Net()
    yield made
    made.sources.close()
    for gateway in made.gateways.values():
        gateway.close()


def test_who_is_known_to_keep_the_study_is_asked_first_and_for_its_root_before_the_block(net: Net) -> None:
    net.likely = [Likely(net.nodes["h2"], ROOT)]
    net.gateways["h2"].has = {CID: DATA, ROOT: ROOT_DATA}
    assert net.sources(CID) == DATA
    assert net.gateways["h2"].asked == [ROOT, CID]
    assert net.sources(CID) == DATA
    assert net.gateways["h2"].asked == [ROOT, CID, CID]  # which root it is of was told a moment ago
    assert net.gateways["h1"].asked == net.gateways["h0"].asked == []


def test_others_are_asked_when_who_should_have_it_has_not(net: Net) -> None:
    net.likely = [Likely(net.nodes["h2"], ROOT)]
    net.gateways["h1"].has = {CID: DATA}
    assert net.sources(CID) == DATA
    net.gateways["h1"].has = {}
    with pytest.raises(ContentMissing):
        net.sources(CID)


def test_a_wrong_block_is_refused_and_its_member_named(net: Net) -> None:
    net.gateways["h1"].has = {CID: b"another block"}
    net.gateways["h2"].has = {CID: DATA}
    assert net.sources(CID) == DATA
    assert net.wrong == [("h1", cids.to_text(CID))]


def test_a_retired_member_is_no_source_and_cannot_be_asked(net: Net) -> None:
    net.gateways["h1"].has = {CID: DATA}
    net.consortium.list[1] = replace(net.consortium.list[1], retired=7)
    with pytest.raises(ContentMissing):
        net.sources(CID)
    with pytest.raises(EngineFault):
        net.sources.of(net.nodes["h1"])
    with pytest.raises(EngineFault):
        net.sources.of(net.nodes["h0"])


def test_a_member_whose_card_changed_is_asked_at_its_new_place(net: Net) -> None:
    former = net.sources.of(net.nodes["h1"])
    assert net.sources.of(net.nodes["h1"]) is former
    card = replace(net.consortium.list[1].card, url=net.gateways["h2"].url)
    net.consortium.list[1] = replace(net.consortium.list[1], card=card)
    net.gateways["h2"].has = {CID: DATA}
    assert net.sources.of(net.nodes["h1"])(CID) == DATA


def test_a_node_tells_of_a_wrong_block_in_an_alert_once_an_hour_of_each_member(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, content=Content(reserve_bytes=0))
    node = Node(settings, open_keystore(tmp_path, cost=CHEAP), "command")
    try:
        for name in ("h1", "h1", "h2"):
            node._offered_wrong(name, cids.to_text(CID))
        node._record_access()
        alerts = [alert for alert in node.watch.recorded() if alert.rule == "wrong-block"]
        assert sorted(alert.what.split()[1] for alert in alerts) == ["h1", "h2"]
        assert all(cids.to_text(CID) in alert.what and alert.severity == 8 for alert in alerts)
        found, _ = node.watch.find(0)
        assert {alert.id for alert in alerts} <= {alert.id for alert in found}
    finally:
        node.close()
