"""The ABCI socket server, asked by generated protobuf code and by streams that a real CometBFT sent."""

from __future__ import annotations

import queue
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.abci import server, wire
from ledger.abci.messages import Application, Checked
from ledger.abci.server import AbciServer
from tests.ledger.abci.abci_client import AbciClient
from tests.ledger.abci.words import Words

STREAMS = Path(__file__).resolve().parents[2] / "data/abci"
PATIENCE_S = 60.0

Serve = Callable[..., AbciServer]


@pytest.fixture
def faults() -> queue.Queue[Exception]:
    return queue.Queue()


@pytest.fixture
def serve(tmp_path: Path, faults: queue.Queue[Exception]) -> Iterator[Serve]:
    """Servers of an application, closed with the test."""
    made: list[AbciServer] = []

    def one(application: Application, address: str = f"unix://{tmp_path}/run/abci.sock") -> AbciServer:
        made.append(AbciServer(address, application, faults.put))
        made[-1].start()
        return made[-1]

    yield one
    for each in made:
        each.close()


def until(holds: Callable[[], bool]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, "it did not come true in time"
        time.sleep(0.01)


def test_one_block_over_a_unix_socket(serve: Serve) -> None:
    app = Words()
    place = serve(app).address
    with AbciClient(place) as info, AbciClient(place) as consensus, AbciClient(place) as mempool:
        assert info.ask(info={"version": "0.38.25"}).last_block_height == 0
        assert consensus.ask(init_chain={"chain_id": "words"}).app_hash == b""
        assert [mempool.ask(check_tx={"tx": tx}).code for tx in (b"a=1", b"b")] == [0, 1]
        assert list(consensus.ask(prepare_proposal={"txs": [b"a=1"], "max_tx_bytes": 9}).txs) == [b"a=1"]
        assert consensus.ask(process_proposal={"txs": [b"a=1"]}).status == 1
        executed = consensus.ask(finalize_block={"txs": [b"a=1", b"b"], "height": 1})
        assert [each.code for each in executed.tx_results] == [0, 1]
        assert info.ask(info={}).last_block_height == 0
        assert consensus.ask(commit={}).retain_height == 0
        told = info.ask(info={})
        assert (told.last_block_height, told.last_block_app_hash) == (1, executed.app_hash)
        assert info.ask(query={"path": "/"}).value == b"a=1"


def test_what_is_sent_while_the_application_works_is_read(serve: Serve) -> None:
    """The client's buffer holds far less, so `send` returns only when the server reads meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Words):
        def check_tx(self, tx: bytes, recheck: bool) -> Checked:
            begun.set()
            assert go_on.wait(PATIENCE_S)
            return super().check_tx(tx, recheck)

    with AbciClient(serve(Slow()).address) as client:
        client.send(check_tx={"tx": b"a=1"})
        assert begun.wait(PATIENCE_S)
        for number in range(16):
            client.send(check_tx={"tx": b"b=%d" % number + bytes(256 << 10)})
        go_on.set()
        assert [client.read().code for _ in range(17)] == [0] * 17


def test_over_tcp_at_a_free_port(serve: Serve) -> None:
    place = serve(Words(), "tcp://127.0.0.1:0").address
    assert not place.endswith(":0")
    with AbciClient(place) as client:
        assert client.ask(echo={"message": "hello"}).message == "hello"


def test_requests_of_state_sync_and_of_vote_extensions_are_answered(serve: Serve) -> None:
    with AbciClient(serve(Words()).address) as client:
        assert list(client.ask(list_snapshots={}).snapshots) == []
        assert client.ask(offer_snapshot={"snapshot": {"height": 1}, "app_hash": b"x"}).result == 3
        assert client.ask(load_snapshot_chunk={"height": 1}).chunk == b""
        assert client.ask(apply_snapshot_chunk={"chunk": b"x"}).result == 2
        assert client.ask(extend_vote={}).vote_extension == b""
        assert client.ask(verify_vote_extension={"vote_extension": b"x"}).status == 2


@pytest.mark.parametrize("number", [1, 3, 4])
def test_what_a_real_cometbft_sent_is_answered_in_order(serve: Serve, number: int) -> None:
    stream = (STREAMS / f"abci_socket_conn{number}.bin").read_bytes()
    asked, at = [], 0
    while (found := wire.unframed(stream, at)) is not None:
        asked.append(type(wire.request(found[0])).__name__)
        at = found[1]
    with AbciClient(serve(Words()).address) as client:
        threading.Thread(target=client.socket.sendall, args=(stream,)).start()
        answered = [type(client.read()).__name__ for _ in asked]
    names = {"Block": "FinalizeBlock", "InfoRequest": "Info"}
    assert answered == [f"Response{names.get(each, each)}" for each in asked]


def test_a_request_that_comes_byte_by_byte_is_answered(serve: Serve) -> None:
    message = wire.framed(bytes.fromhex("0a070a0568656c6c6f"))  # echo "hello"
    with AbciClient(serve(Words()).address) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for byte in message:
            client.socket.sendall(bytes([byte]))
        assert client.read().message == "hello"


def test_many_requests_sent_ahead_are_answered_in_order(serve: Serve) -> None:
    with AbciClient(serve(Words()).address) as client:
        threading.Thread(target=lambda: [client.send(echo={"message": str(n) * 100}) for n in range(5000)]).start()
        assert [client.read().message for _ in range(5000)] == [str(n) * 100 for n in range(5000)]


def test_a_large_block_comes_whole(serve: Serve) -> None:
    app = Words()
    with AbciClient(serve(app).address) as client:
        client.ask(finalize_block={"txs": [b"=" * (4 << 20), b"a=1"], "height": 1})
        client.ask(commit={})
    assert [len(tx) for tx in app.taken] == [4 << 20, 3]


def test_a_fault_of_the_application_closes_everything_and_is_told_once(
    serve: Serve, faults: queue.Queue[Exception]
) -> None:
    place = serve(Words()).address
    with AbciClient(place) as other, AbciClient(place) as client:
        assert other.ask(echo={"message": "x"}).message == "x"
        assert client.ask(check_tx={"tx": b"a=1"}).code == 0
        said = client.ask(check_tx={"tx": b"boom"})
        assert "disk" not in said.error and "failed" in said.error
        assert client.read() is None
        assert other.read() is None
        assert str(faults.get(timeout=PATIENCE_S)) == "the disk is gone"
    with pytest.raises(OSError, match=r"No such file|refused"):
        AbciClient(place)
    assert faults.empty()


def test_what_is_no_abci_ends_its_connection_alone(serve: Serve, faults: queue.Queue[Exception]) -> None:
    place = serve(Words()).address
    with AbciClient(place) as other:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 9, b"\x02\xea\x0d", b"\x00"):
            with AbciClient(place) as client:
                client.socket.sendall(junk)
                client.socket.shutdown(socket.SHUT_WR)
                while client.read() is not None:
                    pass
        assert other.ask(echo={"message": "x"}).message == "x"
    assert faults.empty()


def test_consensus_is_driven_by_one_connection_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CLAIM_S", 0.05)
    place = serve(Words()).address
    with AbciClient(place) as first:
        first.ask(finalize_block={"txs": [], "height": 1})
        with AbciClient(place) as second:
            assert "second CometBFT" in second.ask(commit={}).error
            assert second.read() is None
        assert first.ask(commit={}).retain_height == 0
    with AbciClient(place) as third:  # whether or not the end of the first was seen yet
        monkeypatch.setattr(server, "CLAIM_S", PATIENCE_S)
        assert third.ask(commit={}).retain_height == 0


def test_closing_waits_for_the_call_that_runs(serve: Serve) -> None:
    begun, may_end = threading.Event(), threading.Event()
    app = Words()

    def commit() -> int:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        app.height = 9
        return 0

    app.commit = commit  # type: ignore[method-assign]
    running = serve(app)
    with AbciClient(running.address) as client:
        client.send(commit={})
        assert begun.wait(PATIENCE_S)
        closing = threading.Thread(target=running.close)
        closing.start()
        assert app.height == 0 and closing.is_alive()
        may_end.set()
        closing.join(PATIENCE_S)
        assert app.height == 9 and running.connections == 0


def test_methods_of_different_connections_run_at_once(serve: Serve) -> None:
    begun, may_end = threading.Event(), threading.Event()
    app = Words()

    def check_tx(tx: bytes, recheck: bool) -> Checked:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return Checked(0)

    app.check_tx = check_tx  # type: ignore[method-assign]
    place = serve(app).address
    with AbciClient(place) as mempool, AbciClient(place) as consensus:
        mempool.send(check_tx={"tx": b"a=1"})
        assert begun.wait(PATIENCE_S)
        consensus.ask(commit={})
        may_end.set()
        assert mempool.read().code == 0


def test_the_socket_is_the_owners_alone_and_a_stale_one_is_replaced(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "run/abci.sock"
    path.parent.mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    running = serve(Words())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running.connections == 0
    with AbciClient(running.address):
        until(lambda: running.connections == 1)
    until(lambda: running.connections == 0)
    running.close()
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "abci.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        serve(Words(), f"unix://{path}")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("address", ["127.0.0.1:26658", "unix://relative", "http://127.0.0.1:1", "tcp://127.0.0.1"])
def test_an_address_that_is_none_is_refused(serve: Serve, address: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        serve(Words(), address)


def test_a_path_too_long_for_a_unix_socket_is_refused(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="107"):
        serve(Words(), f"unix://{tmp_path}/{'x' * 120}")
