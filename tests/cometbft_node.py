"""A real CometBFT in a process of its own, on loopback alone, and an application for it in the test's process.

`make tools` builds the executable. Keys, genesis and configuration are written as a node of Cairn writes them.
"""

from __future__ import annotations

import os
import queue
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge.config import CometBFT
from bridge.consensus import configuration, home
from bridge.consensus.configuration import StateSync, Validator
from bridge.consensus.rpc import Rpc, RpcFault
from ledger.abci.messages import Application, Checked
from ledger.abci.server import AbciServer
from tests.daemon_process import DaemonProcess
from tests.node.running_node import free_ports

COMETBFT = Path(
    os.environ.get("CAIRN_TEST_COMETBFT") or Path(__file__).resolve().parents[1] / ".cache/tools/cometbft/cometbft"
)
"""The executable; of another version where the environment names one."""
BEGIN_US = 1_700_000_000_000_000
BLOCK_BYTES = 2 << 20
PATIENCE_S = 60.0


class CometNode(DaemonProcess):
    """One home of CometBFT and the process that runs on it, or does not at the moment.

    `serve` puts an application at its socket; a fault of it comes to `faults`. The ports stay the same over all starts.
    """

    def __init__(self, place: Path, name: str = "node") -> None:
        super().__init__(place.with_name(place.name + ".cometbft.log"))
        self.home = place
        self.name = name
        self.rpc_port, self.p2p_port = free_ports(2)
        self.settings = CometBFT(
            binary=str(COMETBFT), rpc=f"http://127.0.0.1:{self.rpc_port}", p2p_port=self.p2p_port, home=place
        )
        self.identity = home.make_keys(place)
        self.abci = f"unix://{place}/abci.sock"
        self.rpc = Rpc(self.settings.rpc)
        self.faults: queue.Queue[Exception] = queue.Queue()
        self.server: AbciServer | None = None
        self._plan: tuple[Sequence[CometNode], str] = ((self,), "")

    @property
    def address(self) -> str:
        """Where its peers reach it."""
        return f"{self.identity.node_id}@127.0.0.1:{self.p2p_port}"

    @property
    def validator(self) -> Validator:
        """It as a validator of power 1."""
        return Validator(self.name, self.identity.consensus, 1)

    def configure(
        self,
        members: Sequence[CometNode],
        chain_id: str = "cairn-test",
        validators: Sequence[Validator] | None = None,
        state_sync: StateSync | None = None,
        **settings: object,
    ) -> None:
        """Write genesis and configuration; `settings` differ from `ledger.cometbft`'s own."""
        chosen = [each.validator for each in members] if validators is None else validators
        home.write_genesis(
            self.home, configuration.genesis_json(chain_id, BEGIN_US, chosen, {"of": chain_id}, BLOCK_BYTES)
        )
        peers = [each.address for each in members if each is not self]
        text = configuration.config_toml(
            replace(self.settings, **settings),  # type: ignore[arg-type]
            self.abci,
            self.name,
            peers,
            state_sync=state_sync,
        )
        home.write(self.home / home.CONFIG, text)

    def set(self, key: str, value: str) -> None:
        """Change one line of config.toml, for what Cairn would never configure."""
        path = self.home / home.CONFIG
        lines = path.read_text().splitlines()
        assert sum(line.startswith(f"{key} = ") for line in lines) == 1, key
        path.write_text("\n".join(f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in lines))

    def serve(self, application: Application) -> None:
        """Have the application answer at the socket, in place of one that did."""
        if self.server is not None:
            self.server.close()
        self.server = AbciServer(self.abci, application, self.faults.put)
        self.server.start()

    def start(self, ready: bool = True) -> CometNode:
        """Start CometBFT; with `ready`, return when its RPC answers."""
        self.spawn([COMETBFT, "start", "--home", self.home], {"HOME": str(self.home), "PATH": "/usr/bin:/bin"})
        if ready:
            self.wait_until(self.is_ready, "ready")
        return self

    def is_ready(self) -> bool:
        """Whether its RPC answers now."""
        try:
            return self.rpc.status().node_id == self.identity.node_id
        except RpcFault:
            return False

    def submit(self, tx: bytes) -> Checked:
        """Hand a transaction over, when it takes any: from 0.39 on CometBFT takes none while it catches up."""
        over = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.rpc.submit(tx)
            except RpcFault as error:
                if "catching up" not in str(error) or time.monotonic() > over:
                    raise
            time.sleep(0.05)

    def height(self) -> int:
        """Of the last block that it has; -1 while it does not answer."""
        try:
            return self.rpc.status().height
        except RpcFault:
            return -1

    def lose_disk(self) -> None:
        """Remove every block and state; keys, and what the validator signed last, stay."""
        state = (self.home / home.VALIDATOR_STATE).read_text()
        shutil.rmtree(self.home / "data")
        home.write(self.home / home.VALIDATOR_STATE, state)

    def close(self) -> None:
        """End everything."""
        self.kill()
        if self.server is not None:
            self.server.close()
        self.rpc.close()


def until(holds: Callable[[], Any], what: str = "it did not come true in time") -> None:
    """Until a condition holds; fails when the time is over."""
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, what
        time.sleep(0.02)
