"""A CometBFT of this node's own: its home written, its process started, asked and ended.

It connects to the application's socket when it starts, waits for it, and ends by itself when that connection breaks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bridge.child import Child
from bridge.child_watch import Manner
from bridge.config import Settings
from bridge.consensus import home
from bridge.consensus.configuration import StateSync
from bridge.consensus.rpc import Rpc, RpcFault
from bridge.errors import ConfigError, EngineFault
from ledger.genesis import Genesis

MANNER: Final = Manner(
    name="CometBFT",
    silent="does not say where its consensus stands",
    fell_silent="did not say where its consensus stands",
    ready_s=3600.0,  # it first has the application execute every block that it missed
)
PING_S: Final = 5.0
BLOCKS: Final = Path("data/blockstore.db")


class Plan(NamedTuple):
    """What a start depends on beyond the settings.

    `name` is the member's, `peers` are the other members' addresses (`id@host:port`). `state_sync` says from where an
    empty home takes over a state; CometBFT does not heed it when it has blocks. `height` is the application's.
    """

    genesis: Genesis
    name: str
    peers: Sequence[str]
    state_sync: StateSync | None = None
    height: int = 0


class ManagedCometBFT:
    """One CometBFT as a child of the process that calls `start`; it dies with the thread that started it.

    `prepare` before `start`; `ready` until it says True; `ping` from time to time; `stop` in the end. One thread.
    `plan` is asked before each start, so that it knows the members of that time.
    """

    def __init__(self, settings: Settings, plan: Callable[[], Plan]) -> None:
        self._settings = settings
        self._plan = plan
        self.home = home.home_of(settings)
        self._rpc = Rpc(settings.ledger.cometbft.rpc, PING_S)
        self._child = Child("CometBFT", self.home / "cairn-cometbft.log")
        self._node_id = ""

    def prepare(self) -> None:
        """Write configuration and genesis; keys are made when there are none.

        Raises NotYet as the plan does; ConfigError when the settings cannot be met, when what the validator signed last
        is not known, or when the blocks are gone that the application has executed.
        """
        plan = self._plan()
        if plan.height and plan.state_sync is None and not (self.home / BLOCKS).exists():
            raise ConfigError(
                f"{self.home / BLOCKS} is gone, and the shared log has blocks up to {plan.height}: CometBFT cannot go "
                "on. Restore that folder; or end the node and remove consortium/ledger in its home too: the other "
                "members give it everything again"
            )
        own = home.write_files(self._settings, plan.genesis, plan.name, plan.peers, plan.state_sync)
        self._node_id = own.node_id

    def start(self) -> None:
        """Start the process; it is not ready yet. Raises EngineFault when the program cannot be run."""
        binary = self._settings.ledger.cometbft.binary
        program = shutil.which(binary)
        if program is None:
            raise ConfigError(f"ledger.cometbft.binary: there is no program {binary} (docs/operations.md)")
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "GOMEMLIMIT", "GOMAXPROCS") if name in os.environ}
        # HOME: CometBFT asks for it although its home is given.
        environment = kept | {"HOME": str(self.home)}
        self._child.start([program, "start", "--home", str(self.home)], environment)

    def alive(self) -> bool:
        """Whether the process runs; it may yet be starting, or answer nothing."""
        return self._child.alive()

    def ready(self) -> bool:
        """Whether its RPC answers, which is after the application has every block that CometBFT has.

        Raises EngineFault with its last words when it has ended.
        """
        if not self.alive():
            raise EngineFault(f"CometBFT ended: {self._child.last_words()}")
        return self.ping()

    def ping(self) -> bool:
        """Whether it says where its consensus stands, and is the one of this home."""
        with contextlib.suppress(RpcFault):
            return self._rpc.status().node_id == self._node_id
        return False

    def stop(self, drain_s: float = 20.0) -> None:
        """End the process: asked to first, killed after `drain_s` seconds."""
        self._rpc.close()
        self._child.stop(drain_s)

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return self._child.pid

    def last_words(self) -> str:
        """The last line that CometBFT wrote and that is not empty, at most 300 characters."""
        return self._child.last_words()
