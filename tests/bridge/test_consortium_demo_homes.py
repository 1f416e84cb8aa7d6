"""The homes of a demonstration: ports as promised, made once, and never mixed with another demonstration's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bridge import config
from bridge.consortium import read_genesis
from bridge.consortium_demo import table
from bridge.consortium_demo_homes import hospitals, prepare
from bridge.consortium_setup import read_card
from bridge.errors import ConfigError

BEGUN_US = 1_700_000_000_000_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A PATH on which there is a cometbft and an ipfs."""
    programs = tmp_path_factory.mktemp("programs")
    for name in ("cometbft", "ipfs"):
        (programs / name).write_text("#!/bin/sh\n", "ascii")
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}{os.pathsep}/usr/bin"}


@pytest.fixture(scope="module")
def made(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The homes of two hospitals; keys take a while to be made."""
    folder = tmp_path_factory.mktemp("made")
    prepare(hospitals(folder, 2, 18000), "kubo", environment, BEGUN_US)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """Those homes for one test alone."""
    return Path(shutil.copytree(made, tmp_path / "demo"))


def test_a_hospital_has_its_ports_in_a_hundred_of_its_own(tmp_path: Path) -> None:
    plan = hospitals(tmp_path, 4, 18000)
    assert [one.name for one in plan] == ["h0", "h1", "h2", "h3"]
    assert [one.home for one in plan] == [tmp_path / one.name for one in plan]
    assert [(one.ports.web, one.ports.members, one.ports.dimse) for one in plan] == [
        (18042, 18043, 18012),
        (18142, 18143, 18112),
        (18242, 18243, 18212),
        (18342, 18343, 18312),
    ]
    for number, one in enumerate(plan):
        assert all(port // 100 == 180 + number for port in one.ports)
        assert len(set(one.ports)) == len(one.ports)


@pytest.mark.parametrize(("members", "base"), [(0, 18000), (31, 18000), (4, 80), (4, 65200)])
def test_what_cannot_be_placed_is_refused(tmp_path: Path, members: int, base: int) -> None:
    with pytest.raises(ConfigError):
        hospitals(tmp_path, members, base)


def test_homes_are_made_once_and_of_one_consortium(folder: Path, environment: dict[str, str]) -> None:
    plan = hospitals(folder, 2, 18000)
    first = [read_genesis(one.home) for one in plan]
    assert first[0] == first[1]
    assert [card.name for card in first[0].cards] == ["h0", "h1"]
    assert [card.url for card in first[0].cards] == ["https://127.0.0.1:18043", "https://127.0.0.1:18143"]
    assert [card.address.partition("@")[2] for card in first[0].cards] == ["127.0.0.1:18056", "127.0.0.1:18156"]
    prepare(plan, "kubo", environment, BEGUN_US + 1)
    assert read_genesis(plan[0].home) == first[0]


def test_a_killed_beginning_is_finished(folder: Path, environment: dict[str, str]) -> None:
    plan = hospitals(folder, 2, 18000)
    (plan[1].home / "consortium" / "genesis.json").unlink()
    prepare(plan, "kubo", environment, BEGUN_US + 1)
    assert read_genesis(plan[0].home) == read_genesis(plan[1].home)


def test_a_home_that_was_lost_has_a_card_of_new_keys_for_the_others_to_vote_on(
    folder: Path, environment: dict[str, str]
) -> None:
    card = folder / "h1/consortium/card"
    former = read_card(card)
    shutil.rmtree(folder / "h1")
    prepare(hospitals(folder, 2, 18000), "kubo", environment, BEGUN_US + 1)
    assert read_card(card).name == "h1" and read_card(card).key != former.key
    assert read_genesis(folder / "h1") == read_genesis(folder / "h0")


def test_commands_need_the_home_alone(folder: Path, environment: dict[str, str]) -> None:
    programs = Path(environment["PATH"].partition(os.pathsep)[0])
    settings, _ = config.load(None, {"CAIRN_HOME": str(folder / "h0")})
    assert (settings.web.port, settings.dimse.port, settings.members.port) == (18042, 18012, 18043)
    assert (settings.ledger.engine, settings.ledger.cometbft.rpc) == ("cometbft", "http://127.0.0.1:18057")
    assert settings.ledger.cometbft.binary == str(programs / "cometbft")
    assert (settings.content.engine, settings.content.kubo.managed) == ("kubo", True)
    assert settings.content.kubo.binary == str(programs / "ipfs")


def test_what_the_environment_says_of_ports_does_not_count(folder: Path, environment: dict[str, str]) -> None:
    plan = hospitals(folder, 2, 18000)[0]
    said = {**environment, "CAIRN_HOME": "/elsewhere", "CAIRN_WEB__PORT": "8042", "CAIRN_LOG__LEVEL": "warning"}
    settings = plan.settings(said)
    assert (settings.home, settings.web.port, settings.log.level) == (plan.home, 18042, "warning")


@pytest.mark.parametrize(("members", "base"), [(3, 18000), (2, 19000)])
def test_another_demonstration_is_not_continued(
    folder: Path, environment: dict[str, str], members: int, base: int
) -> None:
    with pytest.raises(ConfigError, match="another --home"):
        prepare(hospitals(folder, members, base), "kubo", environment, BEGUN_US)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no program cometbft"):
        prepare(hospitals(tmp_path / "demo", 1, 18000), "embedded", {"PATH": str(tmp_path)}, BEGUN_US)


def test_the_table_tells_where_each_is(tmp_path: Path) -> None:
    plan = hospitals(tmp_path, 2, 18000)
    told = table([(one, f"http://login/{one.name}") for one in plan])
    assert told.startswith("2 hospitals are ready: h0, h1.")
    for line in (
        "h1    console    http://login/h1",
        "      DICOM      CAIRN on 127.0.0.1:18112",
        f"      commands   CAIRN_HOME={tmp_path / 'h0'} cairn ...",
    ):
        assert line in told.splitlines()
