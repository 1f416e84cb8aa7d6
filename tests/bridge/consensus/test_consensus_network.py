"""A small application through real CometBFTs: blocks, crashes between any two calls, members that are away."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.consensus import home
from bridge.consensus.rpc import RpcFault
from ledger.abci.messages import DUPLICATE_VOTE, Block, Finalized, Proposal
from tests.cometbft_node import CometNode, until
from tests.ledger.abci.words import Words

Make = Callable[..., CometNode]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Homes of CometBFT, ended with the test."""
    made: list[CometNode] = []

    def one(name: str = "n0") -> CometNode:
        made.append(CometNode(tmp_path / name, name))
        return made[-1]

    yield one
    for node in made:
        node.close()


def alone(make: Make, application: Words) -> CometNode:
    node = make()
    node.configure([node])
    node.serve(application)
    return node.start()


def test_a_transaction_is_committed_and_nothing_happens_afterwards(make: Make) -> None:
    app = Words()
    node = alone(make, app)
    assert node.submit(b"a=1").code == 0
    until(lambda: app.taken == [b"a=1"])
    assert node.submit(b"nothing").code == 1
    assert node.submit(b"a=1").code == 0  # it is still in the cache
    assert node.submit(b"b=2").code == 0
    until(lambda: app.taken == [b"a=1", b"b=2"])
    told = node.rpc.call("abci_query", path='"/"')["response"]
    assert told["height"] == str(app.height)
    status = node.rpc.status()
    assert (status.power, status.catching_up, status.node_id) == (1, False, node.identity.node_id)
    until(lambda: node.rpc.status().app_hash == app.app_hash)
    commit = node.rpc.commit(node.height())
    assert commit["signed_header"]["header"]["chain_id"] == "cairn-test"
    assert [each["voting_power"] for each in node.rpc.validators(1)] == ["1"]
    with pytest.raises(RpcFault, match="height"):
        node.rpc.commit(99_999)


def test_a_transaction_at_the_limit_is_taken_and_one_beyond_it_is_not(make: Make) -> None:
    app = Words()
    node = alone(make, app)
    assert node.submit(b"a=" + bytes(256 * 1024 - 2)).code == 0
    until(lambda: len(app.taken) == 1)
    with pytest.raises(RpcFault, match="too large"):
        node.submit(b"b=" + bytes(300 * 1024))


def test_a_stop_and_a_kill_lose_nothing(make: Make) -> None:
    app = Words()
    node = alone(make, app)
    node.submit(b"a=1")
    until(lambda: app.taken == [b"a=1"])
    node.stop()
    node.start()
    node.submit(b"b=2")
    until(lambda: len(app.taken) == 2)
    node.kill()
    node.start()
    node.submit(b"c=3")
    until(lambda: app.taken == [b"a=1", b"b=2", b"c=3"])


@pytest.mark.parametrize("call", ["check_tx", "prepare_proposal", "process_proposal", "finalize_block", "commit"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_in_any_call_ends_both_and_the_same_blocks_follow(make: Make, call: str, when: str) -> None:
    app = Words()
    node = alone(make, app)
    node.submit(b"a=1")
    until(lambda: app.taken == [b"a=1"])
    works = getattr(app, call)

    def broken(*arguments: object) -> object:
        if when == "after":
            works(*arguments)
        raise OSError("the disk is gone")

    setattr(app, call, broken)
    with suppress(RpcFault):  # the block after the first one may have met it before
        node.submit(b"b=2")
    assert str(node.faults.get(timeout=60)) == "the disk is gone"
    node.kill()  # it ends by itself, or waits for ever for the answer to a Flush that it sent meanwhile
    setattr(app, call, works)
    node.serve(app)
    node.start()
    node.submit(b"b=2")
    node.submit(b"c=3")
    until(lambda: app.taken == [b"a=1", b"b=2", b"c=3"])


def test_an_application_that_lost_everything_is_given_every_block_again(make: Make) -> None:
    app = Words()
    node = alone(make, app)
    for word in (b"a=1", b"b=2", b"c=3"):
        node.submit(word)
        until(lambda word=word: word in app.taken)
    node.kill()
    fresh = Words()
    node.serve(fresh)
    node.start()
    until(lambda: fresh.app_hash == app.app_hash)
    assert fresh.taken == app.taken


def test_the_application_may_be_there_later_than_cometbft(make: Make) -> None:
    node = make()
    node.configure([node])
    node.start(ready=False)
    app = Words()
    node.serve(app)
    node.wait_until(node.is_ready, "ready")
    node.submit(b"a=1")
    until(lambda: app.taken == [b"a=1"])


def test_four_go_on_without_one_and_stand_without_two(make: Make) -> None:
    apps = [Words() for _ in range(4)]
    nodes = [make(f"n{each}") for each in range(4)]
    for node, app in zip(nodes, apps, strict=True):
        node.configure(nodes)
        node.serve(app)
        node.start(ready=False)
    for node in nodes:
        node.wait_until(node.is_ready, "ready")
    nodes[0].submit(b"a=1")
    until(lambda: all(app.taken == [b"a=1"] for app in apps))

    nodes[3].kill()
    nodes[1].submit(b"b=2")
    until(lambda: all(app.taken == [b"a=1", b"b=2"] for app in apps[:3]))
    nodes[2].pause()
    nodes[0].submit(b"c=3")
    before = nodes[0].height()
    nodes[3].start(ready=False)  # two of four again, and the third comes back
    until(lambda: all(b"c=3" in app.taken for app in (apps[0], apps[1], apps[3])))
    assert nodes[0].height() > before
    nodes[2].resume()
    until(lambda: len({app.app_hash for app in apps}) == 1)
    until(lambda: set(nodes[0].rpc.peers().values()) == {"n1", "n2", "n3"})  # which dial each other anew

    nodes[1].kill()
    nodes[1].lose_disk()
    apps[1] = Words()
    nodes[1].serve(apps[1])
    nodes[1].start(ready=False)
    until(lambda: apps[1].app_hash == apps[0].app_hash)
    nodes[1].submit(b"d=4")
    until(lambda: all(app.taken == [b"a=1", b"b=2", b"c=3", b"d=4"] for app in apps))


def test_who_signs_twice_is_named_in_evidence(make: Make) -> None:
    class Watching(Words):
        """Keeps who is said to have lied."""

        def __init__(self) -> None:
            super().__init__()
            self.named: set[tuple[int, bytes]] = set()

        def finalize_block(self, block: Block) -> Finalized:
            self.named.update((each.kind, each.address) for each in block.misbehavior)
            return super().finalize_block(block)

    class Twin(Words):
        """Proposes another block than whoever has the same key and the same mempool."""

        def prepare_proposal(self, proposal: Proposal) -> Sequence[bytes]:
            return [*proposal.txs, b"twin=%d" % proposal.height]

    nodes = [make(f"n{each}") for each in range(4)]
    twin = make("twin")
    stolen = nodes[3].home / home.VALIDATOR_KEY
    (twin.home / home.VALIDATOR_KEY).write_text(stolen.read_text())
    apps = [Watching(), Watching(), Watching(), Words(), Twin()]
    for node, app in zip([*nodes, twin], apps, strict=True):
        node.configure([*nodes, twin], validators=[each.validator for each in nodes])
        node.serve(app)
        node.start(ready=False)
    for node in nodes:
        node.wait_until(node.is_ready, "ready")
    liar = (DUPLICATE_VOTE, hashlib.sha256(nodes[3].identity.consensus).digest()[:20])
    count = itertools.count()

    def named() -> bool:
        nodes[0].submit(b"n=%d" % next(count))
        return all(app.named == {liar} for app in apps[:3])

    until(named)
