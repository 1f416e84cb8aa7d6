"""When CometBFT is started afresh, and from what: by what members say, and what lies in its home."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.child_watch import NotYet
from bridge.config import load
from bridge.consensus import home, upkeep
from bridge.consensus.condition import LEFT_BEHIND
from bridge.consensus.daemon import BLOCKS, Plan
from bridge.consensus.rpc import RpcFault
from bridge.consensus.upkeep import Upkeep
from bridge.errors import EngineFault

EAST, SOUTH = ("aa" * 20, "east"), ("bb" * 20, "south")


class Cometbft:
    """In place of `ManagedCometBFT`: serves as soon as it is started; each start is what the plan said."""

    def __init__(self, settings: Any, plan: Any) -> None:
        self._plan, self.plans, self.runs = plan, list[Plan](), False

    def prepare(self) -> None:
        self.plans.append(self._plan())

    def start(self) -> None:
        self.runs = True

    def alive(self) -> bool:
        return self.runs

    def ready(self) -> bool:
        return self.runs

    def ping(self) -> bool:
        return True

    def stop(self, drain_s: float = 20.0) -> None:
        self.runs = False


class Others:
    """The other members' listeners, which state a block of now, or nothing."""

    def __init__(self) -> None:
        self.answer = True

    def others(self) -> list[Any]:
        return [SimpleNamespace(node=name, active=True) for name in (b"east", b"west")]

    def of(self, node: bytes) -> Others:
        return self

    name = "other"

    def ask(self, method: str, path: str) -> Any:
        if not self.answer:
            raise EngineFault("it does not answer")
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
        signed = {"header": {"height": "900", "time": time}, "commit": {"block_id": {"hash": "cc" * 32}}}
        return {"signed_header": signed, "sync_info": {"earliest_block_height": "800"}}


class Site:
    """A member, north, whose state is of height 10, and its upkeep."""

    def __init__(self, folder: Path) -> None:
        self.settings, _ = load(None, {"CAIRN_HOME": str(folder)})
        self.home = home.home_of(self.settings)
        self.members = [self._member("dd" * 20, "north"), self._member(*EAST), self._member(*SOUTH)]
        self.height, self.others, self.blocks = 10, Others(), 10
        genesis: Any = SimpleNamespace(name="test")
        others: Any = self.others
        self.upkeep = Upkeep(self.settings, genesis, ("north", True), lambda: self.members, lambda: self.height, others)
        watch: Any = self.upkeep._watch
        self.comet: Cometbft = watch._daemon
        self.behind = self.upkeep._behind.found
        rpc: Any = self.upkeep
        rpc._rpc = SimpleNamespace(status=self._status, close=lambda: None)
        (self.home / BLOCKS).mkdir(parents=True)
        (self.home / home.VALIDATOR_STATE).write_text("signed")

    def _status(self) -> Any:
        if not self.blocks:
            raise RpcFault("no block yet")
        return SimpleNamespace(height=self.blocks)

    @staticmethod
    def _member(id: str, name: str, place: str = "10.0.0.1:26656") -> Any:
        return SimpleNamespace(name=name, card=SimpleNamespace(address=f"{id}@{place}"))

    def steps(self, count: int = 2) -> None:
        for _ in range(count):
            self.upkeep.step()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(upkeep, "ManagedCometBFT", Cometbft)
    monkeypatch.setattr(upkeep, "MOVE_S", 0.0)
    made = Site(tmp_path)
    made.steps()
    assert [plan.state_sync for plan in made.comet.plans] == [None] and made.upkeep.reason is None
    yield made
    made.upkeep.close()


def test_who_is_left_behind_takes_over_a_state_until_there_is_a_block(site: Site) -> None:
    site.behind.set()
    site.blocks = 0
    site.steps()
    taken = site.comet.plans[-1].state_sync
    assert taken is not None and (taken.height, len(taken.servers)) == (899, 2)
    assert not (site.home / BLOCKS).exists() and (site.home / home.VALIDATOR_STATE).read_text() == "signed"
    assert home.takes_over(site.home) and not site.behind.is_set()
    site.steps()
    assert len(site.comet.plans) == 2  # it is given its time

    # Killed meanwhile: CometBFT has made empty databases, and begins again.
    (site.home / BLOCKS).mkdir()
    site.comet.runs = False
    site.upkeep._watch.renew("it was killed", 0)  # type: ignore[union-attr]
    site.steps()
    assert site.comet.plans[-1].state_sync is not None

    site.blocks = 900
    site.steps()
    assert not home.takes_over(site.home)


def test_who_is_left_behind_with_a_cometbft_that_is_not_managed_says_so_until_it_is_over(tmp_path: Path) -> None:
    settings, _ = load(None, {"CAIRN_HOME": str(tmp_path), "CAIRN_LEDGER__COMETBFT__MANAGED": "false"})
    others: Any = Others()
    made = Upkeep(settings, cast(Any, None), ("north", True), lambda: [], lambda: 10, others)
    behind: Any = made._behind
    heights = iter([700, None, 700, 799])

    def status() -> Any:
        height = next(heights)
        if height is None:
            raise RpcFault("CometBFT does not answer")
        return SimpleNamespace(height=height)

    behind._rpc = SimpleNamespace(status=status, close=lambda: None)
    try:
        assert made.reason is None
        for said in (LEFT_BEHIND, LEFT_BEHIND):  # and while it cannot be asked
            behind.step()
            assert made.reason == said
        others.answer = False
        behind.step()
        assert made.reason == LEFT_BEHIND
        others.answer = True
        behind.step()
        assert made.reason is None
    finally:
        made.close()


def test_nothing_is_forgotten_before_a_state_is_to_be_had(site: Site) -> None:
    site.behind.set()
    site.others.answer = False
    site.steps()
    assert "two of them must answer" in str(site.upkeep.reason) and (site.home / BLOCKS).exists()
    with pytest.raises(NotYet):
        site.comet.prepare()


def test_cometbft_is_started_afresh_when_one_moved_and_not_when_one_came_or_went(site: Site) -> None:
    site.members = [*site.members[:2], site._member("ee" * 20, "west")]
    site.steps()
    assert len(site.comet.plans) == 1
    site.members[1] = site._member(*EAST, place="10.0.0.9:26656")
    site.steps(3)
    assert len(site.comet.plans) == 2
    assert f"{EAST[0]}@10.0.0.9:26656" in site.comet.plans[-1].peers
    site.steps()
    assert len(site.comet.plans) == 2 and site.upkeep.reason is None


def test_blocks_are_kept_until_the_light_blocks_have_passed_them(site: Site) -> None:
    site.height = 100_000
    assert site.upkeep.keep_from() == 0
    site.upkeep._light._upto = 5_000
    assert site.upkeep.keep_from() == 5_000
    site.upkeep._light._upto = 99_990
    assert site.upkeep.keep_from() == 100_000 - site.settings.ledger.cometbft.keep_blocks
