"""What is measured of a consortium of four, and the raw steps beside it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge import consortium_setup
from bridge.config import load
from bridge.consensus.rpc import Rpc
from bridge.crypto.keystore import open_keystore
from ledger import genesis, members
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from tests.benchmarks.instances import Maker
from tests.benchmarks.ledger_page import Figure
from tests.cometbft_node import COMETBFT, CometNode, until
from tests.ledger.shared_log import Hospital, Network
from tests.node.running_demo import RunningDemo
from tests.node.running_node import free_ports

NAMES = ("h0", "h1", "h2", "h3")
SYNC_HEIGHTS = 140
ENVELOPE = 443  # bytes of an entry of ours, for the raw step's transactions


class Growth(NamedTuple):
    """What so many entries take at one member: bytes of the ledger's files, and of CometBFT's."""

    entries: int
    ledger: int
    cometbft: int


class Consortium:
    """Members, each a process with a CometBFT of its own; `cometbft` are further settings of it."""

    def __init__(self, folder: Path, names: Sequence[str] = NAMES, **cometbft: object) -> None:
        self.homes = [folder / name for name in names]
        self.rpcs: list[Rpc] = []
        cards, all_settings = [], []
        for home in self.homes:
            rpc, p2p, listener = free_ports(3)
            home.mkdir()
            own = {"binary": str(COMETBFT), "rpc": f"http://127.0.0.1:{rpc}", "p2p_port": p2p} | cometbft
            consortium_setup.settle(home, {"ledger.cometbft": own, "members": {"port": listener}})
            settings, _ = load(None, {"CAIRN_HOME": str(home)})
            place = consortium_setup.place_of(settings, home.name)
            cards.append(consortium_setup.make_card(settings, open_keystore(home, None), place))
            all_settings.append(settings)
            self.rpcs.append(Rpc(f"http://127.0.0.1:{rpc}"))
        made = consortium_setup.found("bench", time.time_ns() // 1000, cards)
        for settings in all_settings:
            consortium_setup.join(settings, made)
        self._processes = [self._spawn(home) for home in self.homes]
        for process in self._processes:
            self._answer(process)

    def ask(self, whom: Sequence[int], **command: int) -> list[dict[str, Any]]:
        """What members answer, asked at once."""
        chosen = [self._processes[member] for member in whom]
        for process in chosen:
            assert process.stdin is not None
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
        return [self._answer(process) for process in chosen]

    def heights(self) -> list[int]:
        """The last block of each."""
        return [rpc.status().height for rpc in self.rpcs]

    def growth(self) -> Growth:
        """What the log takes at the first member."""
        folder = self.homes[0] / "consortium"
        with closing(BlockStore(folder / "ledger" / DATABASE, readonly=True)) as store:
            return Growth(store.size(), _bytes(folder / "ledger"), _bytes(folder / "cometbft"))

    def close(self) -> None:
        """End all."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        for rpc in self.rpcs:
            rpc.close()

    @staticmethod
    def _spawn(home: Path) -> subprocess.Popen[str]:
        with home.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.consortium_member", str(home)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "a member ended"
        told: dict[str, Any] = json.loads(line)
        return told


class KeyValue:
    """Four CometBFTs with their own example application, `persistent_kvstore`, and the same configuration."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [CometNode(folder / f"kv{number}", f"kv{number}") for number in range(4)]
        for node in self.nodes:
            node.configure(self.nodes, "kvstore")
            node.set("proxy_app", '"persistent_kvstore"')
        for node in self.nodes:
            node.start(ready=False)
        until(lambda: all(node.height() > 0 for node in self.nodes), "kvstore makes no blocks")
        self._number = 0

    def commits(self, count: int) -> list[float]:
        """Milliseconds that `broadcast_tx_commit` takes."""
        times = []
        for _ in range(count):
            tx = self._tx(ENVELOPE)
            began = time.perf_counter()
            self.nodes[0].rpc.call("broadcast_tx_commit", tx=tx)
            times.append((time.perf_counter() - began) * 1000)
        return times

    def throughput(self, transactions: int, size: int) -> float:
        """Bytes a second of transactions of a size, handed to all four."""
        txs = [self._tx(size) for _ in range(transactions)]
        began = time.perf_counter()
        for number, tx in enumerate(txs):
            self.nodes[number % 4].rpc.call("broadcast_tx_sync", tx=tx)
        until(lambda: all(self._empty(node) for node in self.nodes), "kvstore does not commit")
        return transactions * size / (time.perf_counter() - began)

    def close(self) -> None:
        """End all."""
        for node in self.nodes:
            node.close()

    def _tx(self, size: int) -> str:
        self._number += 1
        return base64.b64encode(f"{self._number}=".encode().ljust(size, b"x")).decode()

    @staticmethod
    def _empty(node: CometNode) -> bool:
        return int(node.rpc.call("num_unconfirmed_txs")["total"]) == 0


def ordering(folder: Path, commits: int, entries: int, idle_s: int) -> tuple[list[Figure], Growth, list[str]]:
    """Commit latency and batched entries beside kvstore; growth; what happens while nothing does."""
    consortium, kvstore = Consortium(folder), KeyValue(folder)
    try:
        consortium.ask([0], commits=5)
        kvstore.commits(5)
        ours, theirs = [], []
        for _ in range(4):  # in turns
            ours += consortium.ask([0], commits=commits // 4)[0]["ms"]
            theirs += kvstore.commits(commits // 4)
        before = consortium.growth()
        told = consortium.ask(range(4), entries=entries // 4)
        spent = max(each["ended"] for each in told) - min(each["began"] for each in told)
        after = consortium.growth()
        raw = kvstore.throughput(max(4, entries * ENVELOPE // 200_000), 200_000) / ENVELOPE
        until(lambda: len(set(consortium.heights())) == 1)
        heights = consortium.heights()
        time.sleep(idle_s)
        idle = [now - then for then, now in zip(heights, consortium.heights(), strict=True)]
    finally:
        consortium.close()
        kvstore.close()
    p95 = statistics.quantiles(ours, n=20)[-1]
    name = "one entry sealed and final, p50"
    return (
        [
            Figure(name, "ms", statistics.median(ours), "kvstore, broadcast_tx_commit", statistics.median(theirs),
                   at_most=1.3, note=f"p95 {p95:.0f} ms"),
            Figure("entries in batches, sealed by four and final", "entries/s", entries / spent,
                   "kvstore, the same bytes", raw, floor=1500),
        ],
        Growth(*(now - then for then, now in zip(before, after, strict=True))),
        [f"{sum(idle)} blocks at four members in {idle_s} s in which nothing happened"],
    )  # fmt: skip


def state_sync(folder: Path, entries: int) -> Figure:
    """Entries a second that a new member takes in from chunks, beside reading the same chunks and hashing them."""
    import hashlib

    network = Network(folder / "sync", copies=1)
    network.join()
    each = max(1, entries // (2 * SYNC_HEIGHTS))
    for _ in range(SYNC_HEIGHTS):  # snapshots are some heights apart
        network.decide([[network.sign(name) for _ in range(each)] for name in ("east", "west")])
    for _ in range(3):
        network.decide([])
    east = network["east"].application
    snapshot = east.list_snapshots()[0]
    began = time.perf_counter()
    chunks = [east.load_snapshot_chunk(snapshot.height, snapshot.format, at) for at in range(snapshot.chunks)]
    for chunk in chunks:
        hashlib.sha256(chunk).digest()
    raw = time.perf_counter() - began
    own = network["south"]
    stored = network["east"].store.block_at(snapshot.height)
    assert stored is not None
    with closing(BlockStore(folder / "newcomer.db")) as store:
        signers = Signers(own.node, own.signer, own.cosigner, own.name)
        newcomer = ConsortiumApplication(store, network.genesis, signers, lambda: 1_700_000_100)
        began = time.perf_counter()
        newcomer.offer_snapshot(snapshot, stored.hash)
        for at, chunk in enumerate(chunks):
            newcomer.apply_snapshot_chunk(at, chunk, "east")
        spent, size = time.perf_counter() - began, store.size()
    network.close()
    name = f"a new member takes in a snapshot of {size:,} entries"
    return Figure(name, "entries/s", size / spent, "its chunks read and hashed", size / raw, floor=10_000)


def large_state(count: int) -> tuple[int, float]:
    """Bytes of the state of a consortium of so many members, and milliseconds that one entry takes for it.

    That is: the hash of the state after it, and the pieces that are written.
    """
    hospitals = [Hospital(f"n{number}") for number in range(count)]
    state = members.initial(genesis.make("large", 0, [one.card for one in hospitals]))
    for one in hospitals:
        state = state.with_chain(one.node, members.Chain(1, bytes(32)))
    members.state_hash(state)
    times = []
    for number in range(5):
        began = time.perf_counter()
        after = state.with_chain(hospitals[0].node, members.Chain(2 + number, bytes(32)))
        members.state_hash(after)
        members.changed_rows(state, after)
        times.append((time.perf_counter() - began) * 1000)
        state = after
    return len(members.encode(state)), statistics.median(times)


def sharing(folder: Path, slices: int, rounds: int, closed_s: float) -> tuple[list[Figure], int]:
    """A study visible at the receiver after its grant, its transfer beside plain TLS; entries that a round makes.

    These are counted `closed_s` after the last: a viewing session is an entry when nothing was seen for a minute.
    """
    demo = RunningDemo(folder / "hospitals")
    maker, seconds, rates, raw = Maker(7), [], [], []
    try:
        demo.start()
        token = demo.answer(1, "token", "create", "--role", "viewer")["token"]
        entries = _entries(demo)
        for number in range(rounds):
            series = maker.series(folder / f"files{number}", slices)
            demo.cairn(0, "import", series.files[0].parent)
            began = time.perf_counter()
            demo.answer(0, "share", "grant", series.study, "--to", "h1", "--purpose", "TREAT")
            _until_visible(demo, 1, token, series.study, slices)
            seconds.append(time.perf_counter() - began)
            car = folder / f"{number}.car"
            root = demo.answer(0, "study", "export", series.study, "--out", car)["root"]
            for _ in range(TRANSFERS):
                rates.append(_from_member(demo, root))
                raw.append(_from_tls(demo, car))
        time.sleep(closed_s)
        made = -(-(_entries(demo) - entries) // rounds)
        demo.stop()
    finally:
        demo.kill()
    rate, plain = statistics.median(rates), statistics.median(raw)
    return [
        Figure(f"a study of {slices} slices in the receiver's QIDO after `share grant`", "s",
               statistics.median(seconds), "its bytes over plain TLS", car.stat().st_size / plain / 1e6, limit=5),
        Figure("its CAR from one member to another", "MB/s", rate, "the same file over plain TLS", plain, at_least=0.7),
    ], made  # fmt: skip


def _entries(demo: RunningDemo) -> int:
    path = demo.home(0) / "consortium" / "ledger" / DATABASE
    with closing(BlockStore(path, readonly=True)) as store:
        return store.size()


def _until_visible(demo: RunningDemo, hospital: int, token: str, study: str, slices: int) -> None:
    import httpx

    path = f"/dicom-web/studies?StudyInstanceUID={study}&includefield=00201208"
    with httpx.Client(base_url=demo.url(hospital), headers={"authorization": f"Bearer {token}"}, timeout=30) as client:
        over = time.monotonic() + 120
        while True:
            answer = client.get(path)
            found = answer.json() if answer.status_code == 200 else []
            if found and found[0].get("00201208", {}).get("Value") == [slices]:
                return
            assert time.monotonic() < over, "the study is not visible"
            time.sleep(0.02)


TRANSFERS: Final = 5
"""Of each CAR, in turns with the plain ones."""


def _context(demo: RunningDemo, shows: int, trusts: int) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(demo.home(trusts) / "consortium/tls.crt"))
    context.check_hostname = False
    folder = demo.home(shows) / "consortium"
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def _from_member(demo: RunningDemo, root: str) -> float:
    """MB a second of the CAR from h0's members' listener, by what h1 shows; read and counted, as the plain one is."""
    port, path = demo.base_port + 43, f"/ipfs/{root}?format=car"
    context = _context(demo, 1, 0)
    began, size = time.perf_counter(), 0
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)) as member:
        member.request("GET", path)
        answer = member.getresponse()
        assert answer.status == 200, answer.status
        piece = bytearray(256 << 10)
        while read := answer.readinto(piece):
            size += read
    return size / (time.perf_counter() - began) / 1e6


def _from_tls(demo: RunningDemo, file: Path) -> float:
    """MB a second of a file over TLS: a process that sends it as it is, and one that reads it."""
    folder = demo.home(0) / "consortium"
    (port,) = free_ports(1)
    sender = subprocess.Popen(
        [sys.executable, "-c", _SENDER, str(file), str(folder / "tls.crt"), str(folder / "tls.key"), str(port)],
        stdout=subprocess.PIPE,
    )
    try:
        assert sender.stdout is not None and sender.stdout.readline()
        import socket

        context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
        context.check_hostname = False
        began, size = time.perf_counter(), 0
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="h0") as connection,
        ):
            while piece := connection.recv(256 << 10):
                size += len(piece)
        assert size == file.stat().st_size
        return size / (time.perf_counter() - began) / 1e6
    finally:
        sender.kill()
        sender.wait()


_SENDER = """
import contextlib, socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
with socket.create_server(("127.0.0.1", int(sys.argv[4]))) as server:
    print("ready", flush=True)
    plain, _ = server.accept()
    with context.wrap_socket(plain, server_side=True) as connection, open(sys.argv[1], "rb") as file:
        while piece := file.read(1 << 20):
            connection.sendall(piece)
        with contextlib.suppress(ssl.SSLError):  # the reader ends without a word when it has all
            connection.unwrap()
"""


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
