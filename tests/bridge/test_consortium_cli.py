"""`cairn consortium init` and `join` at homes that no node runs on, and what they refuse."""

from __future__ import annotations

import json
import ssl
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509

from bridge import config
from bridge.cli import main
from bridge.consortium import own_consortium, read_genesis
from bridge.consortium_setup import settle
from bridge.crypto.keystore import open_keystore
from bridge.errors import ConfigError
from ledger import genesis


def cairn(home: Path, *arguments: str) -> Any:
    """The JSON that a command prints."""
    result = CliRunner().invoke(main, ["consortium", *arguments, "--json"], env={"CAIRN_HOME": str(home)})
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fails(home: Path, *arguments: str) -> str:
    """What a command that fails says; its exit code is that of usage or configuration."""
    result = CliRunner().invoke(main, ["consortium", *arguments], env={"CAIRN_HOME": str(home)})
    assert result.exit_code == 2, (result.exit_code, result.output)
    return result.output


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three homes of one consortium."""
    folder = tmp_path_factory.mktemp("homes")
    made = [folder / f"h{number}" for number in range(3)]
    cards: list[str] = []
    for home in made[1:]:
        home.mkdir()
        card = folder / f"{home.name}.card"
        told = cairn(
            home, "join", "--name", home.name, "--out", str(card), "--url", f"https://{home.name}.example:8043"
        )
        assert told["consortium"] is None and told["name"] == home.name
        cards += ["--member", str(card)]
    told = cairn(made[0], "init", "--name", "h0", "--consortium", "north", *cards, "--power", "2")
    assert told["members"] == ["h0", "h1", "h2"]
    for home in made[1:]:
        joined = cairn(home, "join", "--genesis", told["genesis"])
        assert joined["consortium"] == told["origin"]
    return made


def test_all_hold_one_genesis_with_the_cards_of_all(homes: list[Path]) -> None:
    first, *others = [read_genesis(home) for home in homes]
    assert all(genesis.encode(other) == genesis.encode(first) for other in others)
    assert [(card.name, card.power) for card in first.cards] == [("h0", 2), ("h1", 1), ("h2", 1)]
    assert first.cards[1].url == "https://h1.example:8043" and first.cards[0].url == "https://127.0.0.1:8043"


def test_a_home_is_whole_private_and_its_node_a_member(homes: list[Path]) -> None:
    for home in homes:
        folder = home / "consortium"
        private, public = {"tls.key", "node_key.json"}, {"card", "cometbft", "genesis.json", "tls.crt"}
        assert {path.name for path in folder.iterdir()} == private | public
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in private} == {0o600}
        settings, origins = config.load(None, {"CAIRN_HOME": str(home)})
        assert settings.ledger.engine == "cometbft" and origins["ledger.engine"] == f"file {home / 'cairn.toml'}"
        assert settings.members.certificate == folder / "tls.crt" and settings.members.key == folder / "tls.key"
        seen = own_consortium(settings, open_keystore(home))
        assert seen is not None
        own = seen.own()
        assert own is not None and own.name == home.name
        certificate = x509.load_der_x509_certificate(own.card.certificate)
        assert certificate.subject.rfc4514_string() == f"CN={home.name}"
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(folder / "tls.crt", folder / "tls.key")
        seen.close()


def test_what_cometbft_starts_from_is_there_with_every_first_member_as_its_peer(homes: list[Path]) -> None:
    genesis_files = {(home / "consortium/cometbft/config/genesis.json").read_text() for home in homes}
    assert len(genesis_files) == 1
    assert [each["name"] for each in json.loads(genesis_files.pop())["validators"]] == ["h0", "h1", "h2"]
    own = [card.address for card in read_genesis(homes[0]).cards]
    for home, address in zip(homes, own, strict=True):
        written = tomllib.loads((home / "consortium/cometbft/config/config.toml").read_text())
        assert written["moniker"] == home.name and written["proxy_app"] == f"unix://{home}/run/abci.sock"
        assert set(written["p2p"]["persistent_peers"].split(",")) == set(own) - {address}


def test_a_card_goes_to_standard_output_alone(homes: list[Path]) -> None:
    result = CliRunner().invoke(main, ["consortium", "join", "--out", "-"], env={"CAIRN_HOME": str(homes[1])})
    assert result.stdout == (homes[1] / "consortium" / "card").read_text()
    assert genesis.fingerprint(genesis.parse_card(result.stdout).signed) in result.stderr


def test_the_same_again_changes_nothing_and_another_consortium_is_refused(homes: list[Path], tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in homes[1].rglob("*") if path.is_file() and path.name != "lock"}
    cairn(homes[1], "join", "--genesis", str(homes[0] / "consortium" / "genesis.json"))
    assert before == {path: path.read_bytes() for path in before}
    other = cairn(tmp_path, "init", "--name", "h9")
    assert "another consortium" in fails(homes[1], "join", "--genesis", other["genesis"])


def test_members_are_told_before_the_node_has_run_for_the_first_time(homes: list[Path], tmp_path: Path) -> None:
    assert [row["name"] for row in cairn(homes[0], "members")["members"]] == ["h0", "h1", "h2"]
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    cairn(stranger, "join", "--name", "h9", "--out", str(tmp_path / "card"))
    cairn(stranger, "join", "--genesis", str(homes[0] / "consortium/genesis.json"))
    (waits,) = cairn(stranger, "members")["waits"]
    assert waits["what"] == "This hospital is not a member yet: the members have not voted it in"


def test_what_cannot_be_is_told(homes: list[Path], tmp_path: Path) -> None:
    card, text = tmp_path / "card", (homes[1] / "consortium" / "card").read_text()
    card.write_text(text.replace("A", "B", 1))
    result = CliRunner().invoke(
        main, ["consortium", "init", "--name", "x", "--member", str(card)], env={"CAIRN_HOME": str(tmp_path / "x")}
    )
    assert result.exit_code != 0 and "card" in result.output
    assert "--name" in fails(tmp_path / "x", "init")
    assert "--name" in fails(tmp_path / "x", "join")
    again = CliRunner().invoke(
        main,
        ["consortium", "init", "--name", "h1", "--member", str(homes[1] / "consortium" / "card")],
        env={"CAIRN_HOME": str(tmp_path / "y")},
    )
    assert again.exit_code != 0 and "one name" in again.output
    for name in ("Upper", "two words", "-x"):
        result = CliRunner().invoke(
            main, ["consortium", "join", f"--name={name}"], env={"CAIRN_HOME": str(tmp_path / "z")}
        )
        assert result.exit_code != 0 and "name" in result.output
    assert "no consortium" in fails(tmp_path / "y", "members")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", {"ledger": {"engine": "cometbft"}}),
        ('[ledger]\nengine = "solo"  # alone\n', {"ledger": {"engine": "cometbft"}}),
        ("[web]\nport = 1\n", {"web": {"port": 1}, "ledger": {"engine": "cometbft"}}),
        (
            "[ledger.cometbft]\np2p_port = 3\n[web]\nport = 1",
            {"ledger": {"engine": "cometbft", "cometbft": {"p2p_port": 3}}, "web": {"port": 1}},
        ),
        (
            '[ledger]  # of this node\norigin = "x"\n\n[web]\nport = 1\n',
            {"ledger": {"engine": "cometbft", "origin": "x"}, "web": {"port": 1}},
        ),
    ],
)
def test_settings_are_written_among_those_that_stand_there(tmp_path: Path, before: str, after: object) -> None:
    (tmp_path / "cairn.toml").write_text(before)
    settle(tmp_path, {"ledger": {"engine": "cometbft"}})
    text = (tmp_path / "cairn.toml").read_text()
    assert tomllib.loads(text) == after
    settle(tmp_path, {"ledger": {"engine": "cometbft"}})
    assert (tmp_path / "cairn.toml").read_text() == text


@pytest.mark.parametrize("text", ["ledger = 1\n", "[ledger", 'ledger.engine = "solo"\n'])
def test_a_settings_file_that_cannot_be_changed_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "cairn.toml").write_text(text)
    with pytest.raises(ConfigError):
        settle(tmp_path, {"ledger": {"engine": "cometbft"}})
    assert (tmp_path / "cairn.toml").read_text() == text
