"""The hospitals of a demonstration: their names, ports and homes, and what each home holds before its first start."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from bridge.config import OWN_FILE
from bridge.errors import ConfigError

Kind = Literal["embedded", "kubo"]
"""The content engine of every hospital."""
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

    def fixed(self) -> dict[str, str]:
        """The settings that nothing else may change, by dotted name: where it listens."""
        return {
            "dimse.host": "127.0.0.1",
            "dimse.port": str(self.ports.dimse),
            "web.host": "127.0.0.1",
            "web.port": str(self.ports.web),
            "members.host": "127.0.0.1",
            "members.port": str(self.ports.members),
        }


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


def prepare(plan: Sequence[Hospital], kind: Kind, environment: Mapping[str, str]) -> None:
    """Make the homes that are not there yet. Raises ConfigError for a program that is not there."""
    for hospital in plan:
        hospital.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = hospital.home / OWN_FILE
        if not own.exists():
            own.write_text(_settings(hospital, kind, environment), "utf-8")


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
