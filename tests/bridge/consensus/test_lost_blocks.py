"""A home without CometBFT's blocks: its shared log is set aside, its identity among peers stays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.config import Settings, load
from bridge.consensus import home
from bridge.consensus.daemon import BLOCKS
from bridge.consensus.lost_blocks import set_log_aside
from bridge.ledger_reading import shared_ledger_home
from ledger.block_store import BlockStore
from tests.ledger.shared_log import Network


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A member's home with a log of one block, and CometBFT's blocks."""
    place = tmp_path / "home"
    network = Network(tmp_path / "network", copies=1)
    network.join()
    network.close()
    shutil.copytree(network["east"].home, place / "consortium/ledger")
    made, _ = load(None, {"CAIRN_HOME": str(place), "CAIRN_LEDGER__ENGINE": "cometbft"})
    home.keys_of(made)
    (home.home_of(made) / BLOCKS).mkdir(parents=True)
    return made


def test_a_log_whose_blocks_are_there_stays(settings: Settings) -> None:
    assert set_log_aside(settings) is None


def test_without_blocks_the_log_is_set_aside_each_time_under_another_name(settings: Settings) -> None:
    held = shared_ledger_home(settings)
    copy = settings.home / "copy"
    shutil.copytree(held, copy)
    shutil.rmtree(home.home_of(settings))
    assert set_log_aside(settings) == held.with_name("ledger.set-aside-1")
    assert not held.exists() and set_log_aside(settings) is None
    copy.rename(held)
    assert set_log_aside(settings) == held.with_name("ledger.set-aside-2")
    assert (held.with_name("ledger.set-aside-1") / "ledger.db").exists()


@pytest.mark.parametrize("why", ["takes over", "elsewhere", "not managed", "solo", "empty", "damaged"])
def test_it_stays_where_that_would_mend_nothing(settings: Settings, why: str) -> None:
    held = shared_ledger_home(settings)
    home.forget_blocks(home.home_of(settings))
    home.took_over(home.home_of(settings))
    comet = settings.ledger.cometbft
    if why == "takes over":
        home.forget_blocks(home.home_of(settings))
    elif why == "elsewhere":
        comet = replace(comet, home=settings.home / "mounted")
    elif why == "not managed":
        comet = replace(comet, managed=False)
    elif why == "empty":
        shutil.rmtree(held)
        held.mkdir()
        BlockStore(held / "ledger.db").close()
    elif why == "damaged":
        (held / "ledger.db").write_bytes(b"x" * 5000)
    engine = "solo" if why == "solo" else "cometbft"
    altered = replace(settings, ledger=replace(settings.ledger, engine=engine, cometbft=comet))
    assert set_log_aside(altered) is None and held.exists()


def test_who_a_cometbft_is_among_peers_outlives_its_home_and_its_validators_key_does_not(settings: Settings) -> None:
    before = home.keys_of(settings)
    shutil.rmtree(home.home_of(settings))
    after = home.keys_of(settings)
    assert after.node_id == before.node_id and after.consensus != before.consensus
