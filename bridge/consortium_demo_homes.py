"""The hospitals of a demonstration: their names, ports and homes, and what each home holds before its first start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bridge import config
from bridge.config import OWN_FILE, Settings
from bridge.consortium import CARD, GENESIS, folder, read_genesis
from bridge.consortium_setup import found, join, make_card, place_of
from bridge.crypto.keystore import open_keystore
from bridge.errors import ConfigError
from ledger.genesis import Card, Genesis

Kind = Literal["embedded", "kubo"]
"""The content engine of every hospital."""
CONSORTIUM: Final = "demo"
MOST_MEMBERS: Final = 30
HUNDRED: Final = 100
LAST_PORT: Final = 65_535


class Ports(NamedTuple):
    """The ports of one hospital, all in one hundred."""

    dimse: int
    web: int
    members: int
    p2p: int
    rpc: int
    kubo_api: int
    kubo_swarm: int


@dataclass(frozen=True, slots=True)
class Hospital:
    """One member of the demonstration."""

    name: str
    home: Path
    ports: Ports

    @property
    def log(self) -> Path:
        """Where everything that it prints goes."""
        return self.home.with_name(f"{self.name}.log")

    @property
    def url(self) -> str:
        """Where other members reach it."""
        return f"https://127.0.0.1:{self.ports.members}"

    def fixed(self) -> dict[str, str]:
        """The settings that nothing else may change, by dotted name: where it listens."""
        return {
            "dimse.host": "127.0.0.1",
            "dimse.port": str(self.ports.dimse),
            "web.host": "127.0.0.1",
            "web.port": str(self.ports.web),
            "members.host": "127.0.0.1",
            "members.port": str(self.ports.members),
            "ledger.cometbft.rpc": f"http://127.0.0.1:{self.ports.rpc}",
            "ledger.cometbft.p2p_host": "127.0.0.1",
            "ledger.cometbft.p2p_port": str(self.ports.p2p),
        }

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Its settings: of its own file and the environment, its home and ports whatever the environment says."""
        own = {name: value for name, value in environment.items() if name not in config.ENVIRONMENT_ONLY}
        return config.load(None, own | {"CAIRN_HOME": str(self.home)}, self.fixed())[0]


def hospitals(folder: Path, members: int, base_port: int) -> Sequence[Hospital]:
    """The hospitals of a demonstration in `folder`. Raises ConfigError when there are no such ports."""
    if not 1 <= members <= MOST_MEMBERS:
        raise ConfigError(f"a demonstration has 1 to {MOST_MEMBERS} members")
    if not 1024 <= base_port <= LAST_PORT - HUNDRED * members:
        raise ConfigError(f"{members} hospitals need {HUNDRED * members} ports from {base_port} on, below {LAST_PORT}")
    return [Hospital(f"h{i}", folder / f"h{i}", _ports(base_port + HUNDRED * i)) for i in range(members)]


def _ports(base: int) -> Ports:
    return Ports(
        dimse=base + 12,
        web=base + 42,
        members=base + 43,
        p2p=base + 56,
        rpc=base + 57,
        kubo_api=base + 1,
        kubo_swarm=base + 2,
    )


def prepare(plan: Sequence[Hospital], kind: Kind, environment: Mapping[str, str], now_us: int) -> None:
    """Make the homes that are not there yet, all of one consortium, begun now (microseconds since the epoch).

    Killed at any point, it is done with the same outcome the next time. Raises ConfigError for a program that is not
    there, and for a folder that holds a demonstration of other members or ports.
    """
    genesis = _genesis(plan)
    for hospital in plan:
        hospital.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = hospital.home / OWN_FILE
        if not own.exists():
            own.write_text(_settings(hospital, kind, environment), "utf-8")
    if genesis is None:
        cards = [_card(hospital, hospital.settings(environment)) for hospital in plan]
        genesis = found(CONSORTIUM, now_us, cards)
    for hospital in plan:
        settings = hospital.settings(environment)
        if not (folder(hospital.home) / CARD).exists():  # its home was lost: the others vote for its new keys
            _card(hospital, settings)
        join(settings, genesis)


def _genesis(plan: Sequence[Hospital]) -> Genesis | None:
    """The genesis that the homes have; None of new ones. Raises ConfigError when it is not of this plan."""
    made = [hospital.home for hospital in plan if (folder(hospital.home) / GENESIS).exists()]
    if not made:
        return None
    genesis = read_genesis(made[0])
    was = {card.name: card.url for card in genesis.cards}
    wanted = {hospital.name: hospital.url for hospital in plan}
    if was != wanted:
        raise ConfigError(
            f"{made[0].parent} holds a demonstration of {len(was)} members with the ports of "
            f"{', '.join(was.values())}; give the same --members and --base-port, or another --home"
        )
    return genesis


def _card(hospital: Hospital, settings: Settings) -> Card:
    keystore = open_keystore(settings.home, settings.keys.passphrase_file)
    return make_card(settings, keystore, place_of(settings, hospital.name))


def _settings(hospital: Hospital, kind: Kind, environment: Mapping[str, str]) -> str:
    """The settings file of a home, so that every command works there with CAIRN_HOME alone."""
    ports = hospital.ports
    lines = [
        f"# {hospital.name} of a demonstration; made by cairn consortium demo.",
        "[dimse]",
        f"port = {ports.dimse}",
        "processes = 1",
        "[web]",
        f"port = {ports.web}",
        "[members]",
        f"port = {ports.members}",
        "[content]",
        f'engine = "{kind}"',
        "[ledger.cometbft]",
        f'binary = "{program("ledger.cometbft.binary", "cometbft", environment)}"',
        f'rpc = "http://127.0.0.1:{ports.rpc}"',
        f"p2p_port = {ports.p2p}",
    ]
    if kind == "kubo":
        lines += [
            "[content.kubo]",
            "managed = true",
            f'binary = "{program("content.kubo.binary", "ipfs", environment)}"',
            f'api = "http://127.0.0.1:{ports.kubo_api}"',
            f"swarm_port = {ports.kubo_swarm}",
        ]
    return "\n".join([*lines, ""])


def program(setting: str, default: str, environment: Mapping[str, str]) -> str:
    """The absolute path of a program that a setting names. Raises ConfigError when it is not there."""
    named = environment.get("CAIRN_" + setting.upper().replace(".", "__"), default)
    found = shutil.which(named, path=environment.get("PATH"))
    if found is None:
        raise ConfigError(f"{setting}: there is no program {named} (make tools builds it)")
    return str(Path(found).absolute())
