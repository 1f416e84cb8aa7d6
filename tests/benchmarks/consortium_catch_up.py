"""A whole member that catches up over the network: its real node, its real CometBFT, the state of the other members.

The log is filled by members without hospitals around them (`consortium_member`), which is many times faster; then whole
nodes run on the same homes. One of them loses its ledger and its CometBFT's blocks, as with a disk, and is started
again: it finds a state at the others, takes it over, and goes on with their blocks.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bridge.config import load
from bridge.consensus import home as cometbft_home
from ledger.abci.snapshots import EVERY
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from tests.benchmarks.consortium_steps import NAMES, Consortium
from tests.benchmarks.ledger_page import Figure
from tests.cometbft_node import until
from tests.node.running_node import RunningNode

OFFERED = "a state is taken over from other members"
TAKEN = "a state was taken over"
SINGLE = 12
"""Entries that are made one by one, two heights each."""
BEHIND = 4
"""A state is offered when a light client can verify it: some heights behind the newest."""


class CaughtUp(NamedTuple):
    """Entries of the state that was taken over, and seconds from the start of the process until ...

    ... it was offered, it was taken in, and the node had every entry that the others have.
    """

    entries: int
    offered: float
    taken: float
    level: float

    def figure(self, alone: float) -> Figure:
        """Its rate, beside that of the application `alone`, which is handed the chunks."""
        return Figure(
            f"a whole member takes over {self.entries:,} entries, from their offer on", "entries/s",
            self.entries / (self.taken - self.offered), "the row above, without a network", alone, floor=10_000,
            note=f"{self.taken:.1f} s from the start of its process, {self.offered:.1f} s of them until the offer",
        )  # fmt: skip


def catch_up(folder: Path, entries: int) -> CaughtUp:
    """Fill a log of four members, lose one's copy, and have it get it again."""
    folder.mkdir()
    homes = filled(folder, entries)
    with whole(homes) as nodes:
        nodes[-1].stop()
        lose(nodes[-1].home)
        return measured(nodes[0], nodes[-1])


def filled(
    folder: Path, entries: int, names: Sequence[str] = NAMES, heights: int = 0, **cometbft: object
) -> list[Path]:
    """The homes of members whose log has so many entries in a state that is offered, and a few behind it.

    At least so many `heights`; `cometbft` are settings of that name.
    """
    consortium = Consortium(folder, names, **cometbft)
    try:
        consortium.ask([0], commits=SINGLE)
        consortium.ask(range(len(names)), entries=entries // len(names))
        heights = max(heights, max(consortium.heights()) + EVERY + BEHIND)
        while max(consortium.heights()) < heights:
            consortium.ask([0], commits=SINGLE)
    finally:
        consortium.close()
    return consortium.homes


@contextmanager
def whole(homes: Sequence[Path]) -> Iterator[list[RunningNode]]:
    """Nodes on the homes, ready, killed afterwards."""
    nodes = [RunningNode(home) for home in homes]
    try:
        for node in nodes:
            node.start(ready=False)
        for node in nodes:
            node.wait_ready()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def lose(home: Path) -> None:
    """The shared log and CometBFT's blocks; keys, index, and what the validator signed last stay."""
    place = cometbft_home.home_of(load(None, {"CAIRN_HOME": str(home)})[0])
    signed = (place / cometbft_home.VALIDATOR_STATE).read_text()
    shutil.rmtree(place / "data")
    shutil.rmtree(home / "consortium/ledger")
    cometbft_home.write(place / cometbft_home.VALIDATOR_STATE, signed)


def measured(other: RunningNode, loser: RunningNode) -> CaughtUp:
    """Start who has lost its copy, until its log is that of another."""
    before, began = len(loser.printed()), time.time()
    loser.start(ready=False)
    try:
        until(lambda: TAKEN in loser.printed()[before:], "no state was taken over")
        until(lambda: held(loser.home) == held(other.home), "the logs are not the same")
    except AssertionError as error:
        last_words = (loser.home / "consortium/cometbft/cairn-cometbft.log").read_text("utf-8", "replace")[-2000:]
        raise AssertionError(f"{error}\n{loser.printed()[before:][-4000:]}\n{last_words}") from None
    level = time.time() - began
    lines = [json.loads(line) for line in loser.printed()[before:].splitlines() if line.startswith("{")]
    said = {line["message"]: line for line in lines}
    offered, taken = (datetime.fromisoformat(said[text]["time"]).timestamp() - began for text in (OFFERED, TAKEN))
    return CaughtUp(said[TAKEN]["entries"], offered, taken, level)


def held(home: Path) -> tuple[int, bytes]:
    """Size and root of a member's log."""
    with closing(BlockStore(home / "consortium/ledger" / DATABASE, readonly=True)) as store:
        return store.size(), store.state().frontier.root()
