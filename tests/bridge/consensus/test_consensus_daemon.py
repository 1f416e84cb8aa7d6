"""A CometBFT that the node makes, starts, asks and ends: real processes on free ports."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.child_watch import Watch
from bridge.config import CometBFT, Ledger, Settings
from bridge.consensus import configuration, home
from bridge.consensus.configuration import StateSync
from bridge.consensus.daemon import MANNER, ManagedCometBFT, Plan
from bridge.errors import ConfigError, EngineFault
from ledger import genesis, keys
from ledger.abci.server import AbciServer
from tests.cometbft_node import COMETBFT, until
from tests.ledger.abci.words import Words
from tests.node.running_node import free_ports

PEER = f"{'ab' * 20}@192.0.2.7:26656"
OTHER = f"{'cd' * 20}@[2001:db8::7]:26656"


def settings_of(folder: Path, **cometbft: object) -> Settings:
    rpc, p2p = free_ports(2)
    own = CometBFT(rpc=f"http://127.0.0.1:{rpc}", binary=str(COMETBFT), p2p_port=p2p)
    return Settings(home=folder, ledger=Ledger(engine="cometbft", cometbft=replace(own, **cometbft)))  # type: ignore[arg-type]


def genesis_of(consensus: bytes, power: int = 10, block_bytes: int = 1 << 20) -> genesis.Genesis:
    signer = Ed25519PrivateKey.generate()
    key = keys.raw(signer.public_key())
    card = genesis.Card(
        name="h0",
        key=key,
        cosigner=keys.raw(Ed25519PrivateKey.generate().public_key()),
        recipient=bytes(48),
        certificate=b"certificate",
        url="https://h0.example:8043",
        consensus=consensus,
        power=power,
        address=PEER,
    )
    begin_us = time.time_ns() // 1000
    parameters = genesis.Parameters(block_bytes=block_bytes)
    return genesis.make("north", begin_us, [genesis.sign_card(card, signer)], parameters)


Make = Callable[..., ManagedCometBFT]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Managed CometBFTs, ended with the test; `name` is the node's home below the test's directory."""
    made: list[ManagedCometBFT] = []

    def one(name: str = "home", **cometbft: object) -> ManagedCometBFT:
        settings = settings_of(tmp_path / name, **cometbft)
        begin = genesis_of(home.make_keys(home.home_of(settings)).consensus)
        made.append(ManagedCometBFT(settings, lambda: Plan(begin, "h0", [])))
        return made[-1]

    yield one
    for comet in made:
        comet.stop(5.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Words]:
    """An application where the CometBFT of `home` looks for it."""
    app = Words()
    server = AbciServer(home.abci_of(Settings(home=tmp_path / "home")), app, lambda error: None)
    server.start()
    yield app
    server.close()


def tasks_of(comet: ManagedCometBFT) -> list[Path]:
    return list(Path(f"/proc/{comet.pid}/task").iterdir())


def started(comet: ManagedCometBFT) -> ManagedCometBFT:
    comet.prepare()
    comet.start()
    until(comet.ready)
    return comet


def test_it_is_made_started_asked_and_ended(make: Make, served: Words) -> None:
    comet = started(make())
    assert comet.alive() and comet.ping()
    assert "init_chain" in served.calls
    for path in (home.NODE_KEY, home.VALIDATOR_KEY, home.VALIDATOR_STATE, home.GENESIS, home.CONFIG):
        assert stat.S_IMODE((comet.home / path).stat().st_mode) == 0o600
    comet.stop()
    assert not comet.alive() and not comet.ping()


def test_keys_stay_over_a_restart(make: Make, served: Words) -> None:
    comet = started(make())
    before = home.identity(comet.home)
    comet.stop()
    assert home.identity(started(comet).home) == before


def test_one_that_is_paused_does_not_answer_and_one_that_was_killed_is_not_alive(make: Make, served: Words) -> None:
    comet = started(make())
    assert comet.pid is not None
    os.kill(comet.pid, signal.SIGSTOP)
    until(lambda: all("State:\tT" in (task / "status").read_text() for task in tasks_of(comet)))
    assert comet.alive() and not comet.ping()
    comet.stop(0.2)
    assert not comet.alive()
    started(comet)
    assert comet.pid is not None
    os.kill(comet.pid, signal.SIGKILL)
    until(lambda: not comet.alive())
    with pytest.raises(EngineFault, match="CometBFT ended"):
        comet.ready()


def test_of_a_panic_it_is_told_why_and_not_where(make: Make) -> None:
    comet = make()
    log = comet.home / "cairn-cometbft.log"
    log.write_text("panic: state.AppHash does not match. Got\n01, expected 02\n\ngoroutine 1 [running]:\nmain.main()\n")
    assert comet.last_words() == "panic: state.AppHash does not match. Got 01, expected 02"


def test_the_watch_starts_it_again(make: Make, served: Words) -> None:
    comet = make()
    watch = Watch(comet, MANNER)

    def serves() -> bool:
        watch.step()
        return watch.reason is None

    until(serves)
    assert comet.pid is not None
    os.kill(comet.pid, signal.SIGKILL)
    until(lambda: not serves())
    until(serves)
    watch.end(5.0)
    assert watch.reason == "CometBFT was ended"


def test_without_an_application_it_is_not_ready(make: Make) -> None:
    comet = make()
    comet.prepare()
    comet.start()
    assert not comet.ready() and comet.alive()


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from bridge.consensus import home
from bridge.consensus.daemon import ManagedCometBFT, Plan
from tests.bridge.consensus.test_consensus_daemon import genesis_of, settings_of
settings = settings_of(Path({str(tmp_path)!r}))
begin = genesis_of(home.make_keys(home.home_of(settings)).consensus)
comet = ManagedCometBFT(settings, lambda: Plan(begin, "h0", []))
comet.prepare()
comet.start()
print(comet.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    until(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())


def test_an_unknown_program_is_a_matter_of_configuration(make: Make) -> None:
    comet = make(binary="no-such-cometbft")
    comet.prepare()
    with pytest.raises(ConfigError, match="no program no-such-cometbft"):
        comet.start()


def test_a_validator_that_does_not_know_what_it_signed_is_not_started(make: Make) -> None:
    comet = make()
    comet.prepare()
    (comet.home / home.VALIDATOR_STATE).unlink()
    with pytest.raises(ConfigError, match="vote for a new key"):
        comet.prepare()
    assert not (comet.home / home.VALIDATOR_STATE).exists()
    key = (comet.home / home.VALIDATOR_KEY).read_text()
    (comet.home / home.VALIDATOR_KEY).unlink()
    comet.prepare()
    assert (comet.home / home.VALIDATOR_KEY).read_text() != key


def test_without_the_blocks_that_the_application_executed_it_is_not_started(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    begin = genesis_of(home.make_keys(home.home_of(settings)).consensus)
    with pytest.raises(ConfigError, match="has blocks up to 7"):
        ManagedCometBFT(settings, lambda: Plan(begin, "h0", [], height=7)).prepare()
    sync = StateSync(("127.0.0.1:1", "127.0.0.1:2"), 7, bytes(32))
    ManagedCometBFT(settings, lambda: Plan(begin, "h0", [], sync, 7)).prepare()


def test_the_home_of_one_consortium_is_not_used_for_another(make: Make) -> None:
    comet = make()
    comet.prepare()
    with pytest.raises(ConfigError, match="another consortium"):
        home.write_genesis(comet.home, configuration.genesis_of(genesis_of(bytes(32))))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"priv_key": {"type": "x", "value": "AAAA"}}', '{"priv_key": 1}'])
def test_a_damaged_key_is_a_matter_of_configuration(make: Make, text: str) -> None:
    comet = make()
    (comet.home / home.NODE_KEY).write_text(text)
    with pytest.raises(ConfigError):
        comet.prepare()


def test_cometbft_reads_keys_and_configuration_as_they_are_meant(make: Make) -> None:
    comet = make()
    comet.prepare()

    def said(*command: str) -> str:
        done = subprocess.run([COMETBFT, *command, "--home", comet.home], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    own = home.identity(comet.home)
    assert said("show-node-id") == own.node_id
    assert json.loads(said("show-validator"))["type"] == "tendermint/PubKeyEd25519"
    shown = tomllib.loads((comet.home / home.CONFIG).read_text())
    subprocess.run([COMETBFT, "init", "--home", comet.home / "fresh"], capture_output=True, check=True)
    defaults = tomllib.loads((comet.home / "fresh" / home.CONFIG).read_text())
    for section, values in shown.items():  # a key that CometBFT does not know would do nothing
        if isinstance(values, dict):
            assert values.keys() <= defaults[section].keys(), section
        else:
            assert section in defaults


# --- what is written -----------------------------------------------------------------------------------------------


def config(**cometbft: object) -> dict[str, dict[str, object]]:
    sync = StateSync(("h1:443", "h2:443"), 40, b"\xab" * 32)
    settings = replace(CometBFT(p2p_host="::", rpc="http://[::1]:26657"), **cometbft)  # type: ignore[arg-type]
    text = configuration.config_toml(settings, "unix:///run/a.sock", "h0", [PEER, OTHER], None, sync)
    return tomllib.loads(text)


def test_the_configuration_names_the_peers_and_lets_nobody_else_in_unasked() -> None:
    told = config()
    assert told["filter_peers"] is True
    assert told["p2p"]["persistent_peers"] == f"{PEER},{OTHER}"
    assert told["p2p"]["unconditional_peer_ids"] == f"{'ab' * 20},{'cd' * 20}"
    assert (told["p2p"]["laddr"], told["rpc"]["laddr"]) == ("tcp://[::]:26656", "tcp://[::1]:26657")
    assert told["p2p"]["pex"] is False
    assert told["consensus"]["create_empty_blocks"] is False
    assert told["statesync"]["rpc_servers"] == "h1:443,h2:443"
    assert told["statesync"]["trust_hash"] == "AB" * 32


@pytest.mark.parametrize("rpc", ["http://0.0.0.0:26657", "http://192.0.2.1:26657", "tcp://127.0.0.1:1", "http://h/x:1"])
def test_an_rpc_that_others_could_reach_is_refused(rpc: str) -> None:
    with pytest.raises(ConfigError):
        config(rpc=rpc)


@pytest.mark.parametrize("peer", ["", "h1:26656", "AB@h1:26656", f"{'ab' * 20}@h1"])
def test_an_address_without_identity_is_refused(peer: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        configuration.config_toml(CometBFT(), "unix:///a", "h0", [peer])


def test_members_without_a_vote_are_no_validators() -> None:
    document = json.loads(configuration.genesis_of(genesis_of(bytes(32), power=3, block_bytes=1 << 20)))
    assert [(each["name"], each["power"]) for each in document["validators"]] == [("h0", "3")]
    assert document["consensus_params"]["block"]["max_bytes"] == str(1 << 20)
    assert document["chain_id"].startswith("north-")
    assert genesis.from_json(json.dumps(document["app_state"])).name == "north"
