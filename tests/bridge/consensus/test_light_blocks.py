"""Light blocks that are kept where the validators changed, and paths over heights that CometBFT has forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.consensus.light_blocks import LightBlocks
from bridge.consensus.rpc import RpcFault, Status
from bridge.errors import StorageFault


class Chain:
    """CometBFT's RPC over heights up to `newest`, those before `earliest` forgotten; validators change at `changes`."""

    def __init__(self, newest: int, changes: Sequence[int], earliest: int = 1) -> None:
        self.newest, self.earliest, self._changes = newest, earliest, changes
        self.asked: list[int] = []
        self.fails = False

    def status(self) -> Status:
        return Status("", self.newest, b"", False, b"", 1, self.earliest)

    def headers(self, first: int, last: int) -> list[Mapping[str, Any]]:
        assert self.earliest <= first <= last <= self.newest and last - first < 20
        return [{"height": str(h), "validators_hash": self._set(h), "next_validators_hash": self._set(h + 1)}
                for h in range(first, last + 1)]  # fmt: skip

    def commit(self, height: int | None = None) -> Mapping[str, Any]:
        assert height is not None and self.earliest <= height <= self.newest
        if self.fails:
            raise RpcFault("gone")
        self.asked.append(height)
        return {"of": height}

    def validators(self, height: int) -> list[Mapping[str, Any]]:
        return [{"set": self._set(height)}]

    def _set(self, height: int) -> str:
        return str(sum(height >= change for change in self._changes))


def test_the_last_block_of_a_set_and_the_first_of_the_next_are_kept(tmp_path: Path) -> None:
    chain, light = Chain(100, [30, 57]), LightBlocks(tmp_path)
    light.follow(chain, 100)
    assert light.heights() == [29, 30, 56, 57]
    assert light.at(30) == ({"of": 30}, [{"set": "1"}])
    assert light.upto == 80  # what is left is too little to be worth asking
    assert LightBlocks(tmp_path).upto == 80
    chain.newest = 110
    light.follow(chain, 110)
    assert light.upto == 100 and chain.asked == [29, 30, 56, 57]


def test_a_node_that_began_later_begins_with_what_there_is(tmp_path: Path) -> None:
    light = LightBlocks(tmp_path)
    light.follow(Chain(1000, [30, 957], earliest=950), 1000)
    assert light.heights() == [956, 957] and light.upto == 989


def test_what_was_not_kept_is_not_passed(tmp_path: Path) -> None:
    chain, light = Chain(100, [30]), LightBlocks(tmp_path)
    chain.fails = True
    with pytest.raises(RpcFault):
        light.follow(chain, 100)
    assert light.upto == 20
    chain.fails = False
    light.follow(chain, 100)
    assert light.heights() == [29, 30]


def test_a_kept_block_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "7.json").write_text("{")
    with pytest.raises(StorageFault):
        LightBlocks(tmp_path).at(7)
