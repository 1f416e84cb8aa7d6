"""A Kubo that the node makes, starts, asks and ends: real processes on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bridge.config import Content, Kubo, Settings
from bridge.content.kubo import configuration
from bridge.content.kubo.daemon import PROBE, PROBE_CID, ManagedKubo
from bridge.errors import ConfigError, EngineFault
from tests.kubo_daemon import IPFS, swarm_key
from tests.node.running_node import free_ports

PATIENCE_S = 60.0


def settings_of(home: Path, **kubo: object) -> Settings:
    api, swarm = free_ports(2)
    settings = Kubo(api=f"http://127.0.0.1:{api}", managed=True, binary=str(IPFS), swarm_port=swarm)
    return Settings(home=home, content=Content(engine="kubo", kubo=replace(settings, **kubo)))  # type: ignore[arg-type]


def until(holds: Callable[[], bool]) -> None:
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, "it did not come true in time"
        time.sleep(0.02)


Make = Callable[..., ManagedKubo]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Managed Kubos, ended with the test; `name` is the home of one below the test's directory."""
    made: list[ManagedKubo] = []

    def one(name: str = "home", **kubo: object) -> ManagedKubo:
        home = tmp_path / name
        made.append(ManagedKubo(settings_of(home, **kubo), home))
        return made[-1]

    yield one
    for kubo in made:
        kubo.stop(5.0)


def started(kubo: ManagedKubo) -> ManagedKubo:
    kubo.prepare()
    kubo.start()
    until(kubo.ready)
    return kubo


def config_of(kubo: ManagedKubo) -> dict[str, object]:
    document = json.loads((kubo.repository / "config").read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def api_of(kubo: ManagedKubo) -> str:
    return f"http://127.0.0.1:{configuration.endpoint(config_of(kubo)['Addresses']['API'][0]).port}/api/v0"  # type: ignore[index]


def test_it_is_made_started_read_and_ended(make: Make) -> None:
    kubo = started(make())
    assert kubo.alive()
    assert kubo.ping()
    assert kubo.repository.stat().st_mode & 0o077 == 0
    assert configuration.judge(config_of(kubo), "0.42.0") == []
    assert (kubo.repository / "blocks/SHARDING").read_text().strip() == "/repo/flatfs/shard/v1/next-to-last/3"
    kubo.stop()
    assert not kubo.alive()
    assert not kubo.ping()


def test_what_it_runs_with_is_what_was_written(make: Make) -> None:
    kubo = started(make())
    shown = httpx.post(f"{api_of(kubo)}/config/show").json()
    assert configuration.judge(shown, httpx.post(f"{api_of(kubo)}/version").json()["Version"]) == []
    assert httpx.post(f"{api_of(kubo)}/swarm/peers").json()["Peers"] is None


def test_blocks_and_identity_stay_over_a_restart_with_other_ports(make: Make) -> None:
    first = started(make())
    identity = config_of(first)["Identity"]
    first.stop()
    second = started(make())
    assert config_of(second)["Identity"] == identity
    assert second.ping()


def test_whoever_has_no_token_is_refused_when_one_is_set(make: Make) -> None:
    kubo = started(make(token="sesame"))
    assert kubo.ping()
    assert httpx.post(f"{api_of(kubo)}/id").status_code == 403
    assert httpx.post(f"{api_of(kubo)}/id", headers={"Authorization": "Bearer sesame"}).status_code == 200


def test_a_user_and_password_are_taken_as_token(make: Make) -> None:
    kubo = started(make(token="cairn:sesame"))
    assert kubo.ping()
    assert httpx.post(f"{api_of(kubo)}/id", auth=("cairn", "sesame")).status_code == 200


def test_a_paused_one_does_not_answer_the_ping(make: Make) -> None:
    kubo = started(make())
    assert kubo.pid is not None
    os.kill(kubo.pid, signal.SIGSTOP)
    assert kubo.alive()
    assert not kubo.ping()
    os.kill(kubo.pid, signal.SIGCONT)
    until(kubo.ping)  # it first answers those who asked meanwhile


def test_one_that_answers_and_cannot_read_does_not_pass_the_ping(make: Make) -> None:
    kubo = started(make())
    for file in (kubo.repository / "blocks").glob("*/*.data"):
        if file.read_bytes() == PROBE:
            file.write_bytes(PROBE[:-1])
    assert httpx.post(f"{api_of(kubo)}/id").status_code == 200
    assert not kubo.ping()


def test_one_that_does_not_end_when_asked_is_killed(make: Make) -> None:
    kubo = started(make())
    assert kubo.pid is not None
    os.kill(kubo.pid, signal.SIGSTOP)
    kubo.stop(0.2)
    assert not kubo.alive()
    kubo.start()
    until(kubo.ready)


def test_its_last_words_are_told_when_it_ends_at_once(make: Make) -> None:
    kubo = started(make())
    other = make(api=f"http://127.0.0.1:{configuration.endpoint(api_of(kubo)[: -len('/api/v0')]).port}")
    other.prepare()
    other.start()
    with pytest.raises(EngineFault, match="lock"):
        until(other.ready)


def test_a_program_that_is_not_there_is_a_fault_of_the_settings(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"content\.kubo\.binary"):
        make(binary="/nowhere/ipfs").prepare()


def test_a_token_beside_ipfs_cluster_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, token="sesame")
    clustered = replace(settings, content=replace(settings.content, engine="cluster"))
    with pytest.raises(ConfigError, match=r"content\.kubo\.token"):
        ManagedKubo(clustered, tmp_path).prepare()
    assert not (tmp_path / "kubo").exists()


def test_a_repository_half_made_is_made_again(make: Make) -> None:
    kubo = make()
    making = kubo.repository / "making"
    (making / "repository").mkdir(parents=True)
    (making / "repository" / "config").write_text("{}")
    (kubo.repository / "datastore").mkdir()
    assert started(kubo).ping()
    assert not making.exists()


def test_blocks_without_configuration_are_left_alone(make: Make) -> None:
    kubo = make()
    (kubo.repository / "blocks").mkdir(parents=True)
    with pytest.raises(ConfigError, match="restore"):
        kubo.prepare()
    assert (kubo.repository / "blocks").is_dir()


@pytest.mark.parametrize("written", ['{"Identity": {"PeerID"', "[1]", ""])
def test_a_configuration_that_is_damaged_is_named(make: Make, written: str) -> None:
    kubo = make()
    kubo.prepare()
    (kubo.repository / "config").write_text(written)
    with pytest.raises(EngineFault, match="restore that file"):
        kubo.prepare()


def test_a_repository_that_cannot_be_written_is_a_fault_of_the_engine(make: Make) -> None:
    kubo = make()
    kubo.repository.parent.mkdir(parents=True)
    kubo.repository.write_text("a file")
    with pytest.raises(EngineFault):
        kubo.prepare()


def test_a_swarm_key_that_is_none_is_a_fault_of_the_settings(make: Make, tmp_path: Path) -> None:
    key = tmp_path / "swarm.key"
    with pytest.raises(ConfigError, match="swarm_key"):
        make(swarm_key=key).prepare()
    key.write_text("sesame")
    with pytest.raises(ConfigError, match="swarm_key"):
        make("other", swarm_key=key).prepare()


def test_two_of_one_swarm_exchange_blocks_and_one_of_another_swarm_does_not(make: Make, tmp_path: Path) -> None:
    key = tmp_path / "swarm.key"
    key.write_text(swarm_key())
    first = started(make("first", swarm_key=key))
    identity, swarm = config_of(first)["Identity"], config_of(first)["Addresses"]
    peer = f"{swarm['Swarm'][0]}/p2p/{identity['PeerID']}"  # type: ignore[index]
    second = started(make("second", swarm_key=key, peers=(peer,)))
    stranger = started(make("stranger", peers=(peer,)))
    put = httpx.post(f"{api_of(first)}/block/put", params={"cid-codec": "raw"}, files={"data": b"exchanged"}).json()
    got = httpx.post(f"{api_of(second)}/block/get", params={"arg": put["Key"], "timeout": "30s"}, timeout=60)
    assert got.content == b"exchanged"
    assert httpx.post(f"{api_of(stranger)}/swarm/peers").json()["Peers"] is None
    assert httpx.post(f"{api_of(stranger)}/swarm/connect", params={"arg": peer}, timeout=60).status_code == 500


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from bridge.config import *\n"
        "from bridge.content.kubo.daemon import ManagedKubo\n"
        "api, swarm, home, binary = sys.argv[1:]\n"
        "kubo = Kubo(api=api, managed=True, binary=binary, swarm_port=int(swarm))\n"
        "managed = ManagedKubo(Settings(content=Content(kubo=kubo)), Path(home))\n"
        "managed.prepare()\n"
        "managed.start()\n"
        "while not managed.ready():\n"
        "    time.sleep(0.02)\n"
        "print(managed.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    kubo = settings.content.kubo
    arguments = [kubo.api, str(kubo.swarm_port), str(tmp_path), kubo.binary]
    with subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_probe_is_the_block_that_its_cid_names() -> None:
    from bridge.content import cid

    assert cid.verify(PROBE_CID, PROBE)
