"""Whole members whose CometBFTs have forgotten how the log began: one that lost its copy takes over a state.

The log was filled by members without hospitals around them, of which CometBFT keeps few blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from bridge.config import load
from bridge.consensus.rpc import Rpc, RpcFault
from bridge.consensus.rpc_proxy import LEAST_HEIGHT
from ledger.abci.snapshots import EVERY
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from tests.benchmarks import consortium_catch_up as bench
from tests.cometbft_node import until
from tests.node.running_node import RunningNode

OFFERS = 4
"""States that are kept for others; CometBFT keeps its blocks from the oldest on."""
ENTRIES = 300


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    folder = tmp_path_factory.mktemp("taken-over")
    homes = bench.filled(folder, ENTRIES, ("h0", "h1"), heights=OFFERS * (EVERY + 2) + 8, keep_blocks=2)
    with bench.whole(homes) as nodes:
        yield nodes


def earliest(node: RunningNode) -> int:
    """The first block that its CometBFT still has; 0 while that does not answer: a node is ready without it."""
    with closing(Rpc(load(None, {"CAIRN_HOME": str(node.home)})[0].ledger.cometbft.rpc)) as rpc:
        try:
            return rpc.status().earliest
        except RpcFault:
            return 0


def test_a_member_that_lost_its_copy_gets_the_whole_log_from_one_whose_cometbft_forgot_its_beginning(
    hospitals: list[RunningNode],
) -> None:
    giver, loser = hospitals
    until(lambda: earliest(giver) > LEAST_HEIGHT)
    assert loser.stop() == 0
    bench.lose(loser.home)
    told = bench.measured(giver, loser)
    assert told.entries >= ENTRIES and told.figure(1.0).ours > 0
    loser.wait_ready()
    until(lambda: earliest(loser) > LEAST_HEIGHT)

    # Nothing of the log is missing, and it goes on: with two members both must vote.
    for node in hospitals:
        before = bench.held(node.home)[0]
        node.answer("token", "create", "--role", "viewer")
        until(lambda before=before: all(bench.held(one.home)[0] > before for one in hospitals))
    until(lambda: bench.held(giver.home) == bench.held(loser.home))
    for node in hospitals:
        with closing(BlockStore(node.home / "consortium/ledger" / DATABASE, readonly=True)) as store:
            assert store.blocks()[0].first == 0
