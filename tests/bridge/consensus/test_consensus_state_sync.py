"""A member that starts from a snapshot: its light client asks the others through the proxy, with two real CometBFTs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from bridge.consensus import configuration, home, rpc_proxy
from bridge.consensus.left_behind import LeftBehind
from bridge.consensus.light_blocks import LightBlocks
from bridge.consensus.rpc import Rpc
from bridge.consensus.rpc_proxy import PATH, RpcProxy, Start, StateSyncSource, where_to_start
from bridge.errors import EngineFault, NotFound
from ledger import genesis, merkle, terms, transaction
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.block_store import BlockStore
from tests.cometbft_node import CometNode, until
from tests.ledger.shared_log import Hospital

BLOCKS = 6
KEPT = 2
JOIN = terms.encode("ledger.join", {"o": "none", "s": 0, "r": merkle.EMPTY_ROOT})


class Site:
    """A hospital with a CometBFT and an application of its own."""

    def __init__(self, place: Path, name: str, power: int) -> None:
        self.node = CometNode(place / name, name)
        self.hospital = Hospital(name)
        one = self.hospital
        one.consensus = self.node.identity.consensus
        made = one.card_of(one.signer, one.cosigner)
        stated = (made.name, made.key, made.cosigner, made.recipient, made.certificate, made.url, made.consensus)
        one.card = genesis.sign_card(genesis.Card(*stated, power, self.node.address), one.signer)
        self.place = place / f"{name}-log"

    def open(self, made: genesis.Genesis, **application: Any) -> None:
        self.place.mkdir()
        self.store = BlockStore(self.place / "ledger.db")
        one = self.hospital
        signers = Signers(one.node, one.signer, one.cosigner, one.name)
        self.application = ConsortiumApplication(self.store, made, signers, lambda: 1_700_000_100, **application)
        home.write_genesis(self.node.home, configuration.genesis_of(made))
        self.node.serve(self.application)

    def configure(self, peers: list[str], state_sync: configuration.StateSync | None = None) -> None:
        text = configuration.config_toml(
            self.node.settings, self.node.abci, self.node.name, peers, state_sync=state_sync
        )
        home.write(self.node.home / home.CONFIG, text)

    def commit(self, ledger: bytes, blocks: int) -> None:
        """So many blocks of an entry each, decided by this one alone."""
        for _ in range(blocks):
            size = self.store.size()
            first = {} if size else {"type": "ledger.join", "body": JOIN}
            envelope = self.hospital.sign(ledger, **first)  # type: ignore[arg-type]
            assert self.node.rpc.submit(transaction.encode([envelope])).code == 0
            until(lambda wanted=size + 1: self.store.size() == wanted)

    def close(self) -> None:
        self.node.close()
        self.store.close()


class Listener:
    """What a member's listener answers, without the TLS: CometBFT's RPC behind `rpc_proxy.answer`."""

    def __init__(self, site: Site, name: str = "east") -> None:
        self._address, self.name = site.node.settings.rpc, name
        self.asked: list[str] = []

    def ask(self, method: str, path: str) -> Any:
        assert (method, path.startswith(PATH)) == ("GET", True)
        parts = urlsplit(path)
        self.asked.append(parts.path.removeprefix(PATH))
        rpc = Rpc(self._address)  # as a node does it
        try:
            return rpc_proxy.answer(rpc, self.asked[-1], dict(parse_qsl(parts.query)))
        finally:
            rpc.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Site]]:
    """East decides alone and has some blocks; south, without a vote, is not started."""
    place = tmp_path_factory.mktemp("state-sync")
    east, south = Site(place, "east", 1), Site(place, "south", 0)
    made = genesis.make("sync", 1_700_000_000_000_000, [east.hospital.card, south.hospital.card])
    for site in (east, south):
        site.open(made)
    try:
        east.configure([])
        east.node.start()
        east.commit(made.ledger, BLOCKS)
        yield east, south
    finally:
        for site in (east, south):
            site.close()


@pytest.fixture(autouse=True)
def _from_low_heights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_proxy, "LEAST_HEIGHT", 3)


def test_a_member_takes_over_the_state_and_the_whole_log_from_another(sites: tuple[Site, Site]) -> None:
    east, south = sites
    clients = Listener(east, "east"), Listener(east, "north")
    start = where_to_start(clients)
    assert start.answered and start.height > 3
    source = StateSyncSource()
    try:
        south.configure([east.node.address], source.from_(start))
        south.node.start()
        until(lambda: south.application.info().app_hash == east.application.info().app_hash)
    finally:
        source.close()
    assert int(south.node.rpc.call("status")["sync_info"]["earliest_block_height"]) > 1
    assert [item.leaf for item in south.store.all_entries()] == [item.leaf for item in east.store.all_entries()]
    assert south.store.blocks() == east.store.blocks()
    assert {"commit", "validators", "consensus_params"} <= {name for client in clients for name in client.asked}
    assert south.application.state == east.application.state


def test_a_member_that_was_away_until_its_next_block_was_forgotten_takes_over_the_state(tmp_path: Path) -> None:
    east, south = Site(tmp_path, "east", 1), Site(tmp_path, "south", 0)
    made = genesis.make("away", 1_700_000_000_000_000, [east.hospital.card, south.hospital.card])
    light = LightBlocks(tmp_path / "light")
    east.open(made, snapshot_every=3, keep_from=lambda: min(east.application.height - KEPT, light.upto))
    south.open(made)
    clients = [Listener(east, "east")]
    behind = LeftBehind(south.node.settings.rpc, lambda: clients)
    source = StateSyncSource()
    try:
        east.configure([])
        south.configure([east.node.address])
        east.node.start()
        south.node.start()
        east.commit(made.ledger, BLOCKS)
        until(lambda: south.application.info().app_hash == east.application.info().app_hash)
        south.node.stop()

        # While South is away East's CometBFT forgets, but nothing that the light blocks have not passed.
        east.commit(made.ledger, BLOCKS)
        assert east.node.rpc.status().earliest == 1
        for _ in range(4 * BLOCKS):
            east.commit(made.ledger, 1)
            light.follow(east.node.rpc, east.application.info().height)
        status = east.node.rpc.status()
        assert south.application.height + 1 < status.earliest <= min(status.height - KEPT, light.upto)
        assert status.earliest <= east.store.oldest_snapshot()

        # South's CometBFT cannot go on by itself; started without blocks, it takes over the state.
        south.node.start()
        assert behind.look()
        south.node.stop()
        before = (south.node.home / home.VALIDATOR_STATE).read_text()
        home.forget_blocks(south.node.home)
        assert (south.node.home / home.VALIDATOR_STATE).read_text() == before
        assert home.takes_over(south.node.home)
        start = where_to_start(clients)
        south.configure([east.node.address], source.from_(start))
        south.node.start()
        until(lambda: south.application.info().app_hash == east.application.info().app_hash)
        assert not behind.look()
        assert [item.leaf for item in south.store.all_entries()] == [item.leaf for item in east.store.all_entries()]
        assert south.store.blocks() == east.store.blocks()
        east.commit(made.ledger, 1)
        until(lambda: south.application.info().app_hash == east.application.info().app_hash)
    finally:
        behind.close()
        source.close()
        for site in (east, south):
            site.close()


def test_only_what_a_light_client_reads_is_offered(sites: tuple[Site, Site]) -> None:
    rpc = sites[0].node.rpc
    assert rpc_proxy.answer(rpc, "status", {})["node_info"]
    wrong: list[tuple[str, dict[str, str]]] = [
        ("broadcast_tx_sync", {"tx": ""}),
        ("unsafe_flush_mempool", {}),
        ("commit", {"height": "1 or 2"}),
        ("commit", {"hash": "1"}),
        ("commit", {"height": "-1"}),
    ]
    for method, parameters in wrong:
        with pytest.raises(NotFound):
            rpc_proxy.answer(rpc, method, parameters)
    with pytest.raises(EngineFault):
        rpc_proxy.answer(rpc, "commit", {"height": "1000000"})


def test_the_proxy_answers_as_cometbft_does_and_passes_nothing_else_on(sites: tuple[Site, Site]) -> None:
    listener = Listener(sites[0])
    proxy = RpcProxy(listener)
    proxy.start()
    try:
        with httpx.Client(base_url=proxy.address) as client:
            asked = {"jsonrpc": "2.0", "id": 7, "method": "commit", "params": {"height": "1", "more": "x"}}
            told = client.post("/", json=asked).json()
            assert (told["id"], told["result"]["signed_header"]["header"]["height"]) == (7, "1")
            for wrong in (b"", b"[]", b'{"id": 1, "method": "broadcast_tx_sync", "params": {}}'):
                assert "error" in client.post("/", content=wrong).json()
            beyond = {**asked, "params": {"height": "1000000"}}
            assert "east" in client.post("/", json=beyond).json()["error"]["data"]
    finally:
        proxy.close()
    assert set(listener.asked) == {"commit"}


class Stated:
    """A member that states a newest block, or nothing."""

    def __init__(self, height: int = 100, block: str = "aa", age: timedelta = timedelta(), fails: bool = False) -> None:
        self.name, self._height, self._block, self._fails = "member", height, block, fails
        self._time = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")

    def ask(self, method: str, path: str) -> Any:
        if self._fails:
            raise EngineFault("it does not answer")
        header = {"height": str(self._height), "time": self._time}
        return {"signed_header": {"header": header, "commit": {"block_id": {"hash": self._block * 32}}}}


def test_two_members_must_say_the_same_of_the_block_that_is_trusted() -> None:
    one, other, silent = Stated(), Stated(block="bb"), Stated(fails=True)
    assert where_to_start([one, Stated(), other]).hash == bytes.fromhex("aa" * 32)
    assert where_to_start([one, other]) == Start(True)
    assert where_to_start([silent, one, Stated()]).height == 99
    assert where_to_start([one, silent]) == Start(True)
    assert where_to_start([silent, silent]) == Start(False)
    assert where_to_start([]) == Start(False)


def test_of_two_members_the_only_other_one_is_believed() -> None:
    one = Stated()
    assert where_to_start([one]).clients == (one, one)


def test_neither_a_short_log_nor_an_old_header_is_started_from() -> None:
    assert where_to_start([Stated(height=2), Stated(height=2)]) == Start(True)
    assert where_to_start([Stated(age=timedelta(days=7)), Stated()]) == Start(True)
