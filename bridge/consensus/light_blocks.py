"""Light blocks that are kept for ever: where the validators changed, for CometBFT forgets its blocks after a while.

A proof of a commit leads from the genesis over every change of validators that moved more than two thirds of the power
(`ledger.lightclient.find_path`). With the last block of each set, which names the next set, and the first block of that
next set, there is a path from any set to any later one, whatever else was forgotten.

FOLDER/HEIGHT.json   what CometBFT's RPC says of a height: commit and validators
FOLDER/upto          every height up to this one was looked at
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bridge.consensus.rpc import Status
from bridge.errors import StorageFault

__all__ = ["FOLDER", "LightBlocks"]

FOLDER: Final = Path("consortium") / "light"
UPTO: Final = "upto"
AT_ONCE: Final = 20
"""As many headers as CometBFT gives at once."""
TURNS: Final = 10


class Blocks(Protocol):
    """CometBFT's RPC (`bridge.consensus.rpc.Rpc`). Every method raises RpcFault."""

    def status(self) -> Status:
        """Where it stands."""

    def headers(self, first: int, last: int) -> Sequence[Mapping[str, Any]]:
        """Headers in order, those that it has."""

    def commit(self, height: int | None = None) -> Mapping[str, Any]:
        """Header and commit of a height."""

    def validators(self, height: int) -> Sequence[Mapping[str, Any]]:
        """Every validator of a height."""


class LightBlocks:
    """What a node keeps in `folder`; made when there is something to keep. One thread writes, any may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._upto = self._read_upto()

    @property
    def upto(self) -> int:
        """Every change of validators up to this height is kept; what is below may be forgotten elsewhere."""
        return self._upto

    def heights(self) -> list[int]:
        """The heights that are kept, ascending."""
        return sorted(int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdecimal())

    def at(self, height: int) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """Commit and validators of a height that is kept. Raises StorageFault."""
        try:
            told = json.loads((self._folder / f"{height}.json").read_text("ascii"))
            return told["commit"], told["validators"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageFault(f"a light block cannot be read ({type(error).__name__})") from error

    def follow(self, rpc: Blocks, newest: int) -> None:
        """Look at what was committed since, up to `newest` but the last block, whose successor is not there yet.

        Only when it is worth asking, and some hundred heights at once. Raises RpcFault, StorageFault.
        """
        for _ in range(TURNS):
            if newest - 1 - self._upto < AT_ONCE:
                return
            first = max(self._upto + 1, rpc.status().earliest)  # a node that took over a state begins later
            headers = rpc.headers(first, min(first + AT_ONCE, newest) - 1) if first < newest else ()
            for header in headers:
                if header["validators_hash"] != header["next_validators_hash"]:
                    for height in (int(header["height"]), int(header["height"]) + 1):
                        told = {"commit": rpc.commit(height), "validators": rpc.validators(height)}
                        self._write(f"{height}.json", json.dumps(told))
            if not headers:
                return
            self._upto = int(headers[-1]["height"])
            self._write(UPTO, f"{self._upto}\n")

    def _read_upto(self) -> int:
        try:
            return int((self._folder / UPTO).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def _write(self, name: str, text: str) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self._folder / f".{name}.{os.getpid()}"
            with draft.open("w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._folder / name)
        except OSError as error:
            raise StorageFault(f"a light block cannot be kept: {error.strerror}") from error
