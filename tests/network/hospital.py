"""A member of a consortium as a real node in a network of its own, and what it holds of the shared log."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from bridge import consortium_setup as setup
from bridge import control
from bridge.config import Settings, load
from bridge.consensus import home as cometbft_home
from bridge.consensus.rpc import Rpc, RpcFault
from bridge.consortium import SharedConsortium
from bridge.crypto.keystore import open_keystore
from bridge.sample.send import send
from bridge.sample.study import CT_IMAGE, new_uid, sample_study
from ledger import keys
from ledger.abci.messages import Checked
from ledger.block_store import BlockStore
from ledger.genesis import Card, Genesis
from ledger.members import State
from tests.cometbft_node import COMETBFT
from tests.network.namespaces import Namespace
from tests.node.running_node import RunningNode

PATIENCE_S = 90.0
INSTANCES = 2
DIMSE_PORT, WEB_PORT, MEMBERS_PORT, P2P_PORT, RPC_PORT = 11112, 8042, 8043, 26656, 26657


class Hospital(RunningNode):
    """One member: its home, its node, its place in the network."""

    def __init__(self, folder: Path, name: str, namespace: Namespace) -> None:
        super().__init__(folder / name)
        self.name, self.namespace = name, namespace
        self.inside = namespace.command
        self.dimse_port, self.web_port = DIMSE_PORT, WEB_PORT
        self.home.mkdir(mode=0o700)
        setup.settle(
            self.home,
            {
                "dimse": {"processes": 1},
                "members": {"host": namespace.address, "port": MEMBERS_PORT},
                "ledger.cometbft": {"binary": str(COMETBFT), "p2p_host": namespace.address, "p2p_port": P2P_PORT},
            },
        )
        keystore = open_keystore(self.home, None)
        self.signer = Ed25519PrivateKey.from_private_bytes(keystore.signing_seed)
        self.key = keys.raw(self.signer.public_key())
        self.node = keys.node_id(self.key)
        self.card: Card = setup.make_card(self.values(), keystore, setup.place_of(self.values(), name))
        self.rpc = Rpc(f"http://127.0.0.1:{RPC_PORT}")
        self._shared: SharedConsortium | None = None

    def values(self) -> Settings:
        """Its settings."""
        return load(None, {"CAIRN_HOME": str(self.home)})[0]

    def join(self, genesis: Genesis) -> None:
        """Make it one of the consortium, from its next start on."""
        setup.join(self.values(), genesis)
        self._shared = SharedConsortium(self.home, [self.key])

    # --- the node ------------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether it says so itself, over its own socket."""
        with suppress(OSError, control.Failed):
            answer = control.ask(self.home / "run/cairn.sock", "status", {}, lambda text: None)
            return isinstance(answer, dict) and answer.get("not_ready") == []
        return False

    def pause(self) -> None:
        """SIGSTOP to every process, CometBFT's too."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to every process."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def power_cut(self) -> None:
        """SIGKILL to every process at once."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill()

    def lose(self) -> None:
        """Lose the blocks, what the validator signed last, and the shared log; keys and the index stay."""
        self._shared_closed()
        shutil.rmtree(cometbft_home.home_of(self.values()) / "data")
        shutil.rmtree(self.home / "consortium/ledger")

    def store(self) -> str:
        """A modality sends a study; its UID."""
        study, made = new_uid(), datetime.now().astimezone()
        associate = partial(_associate, DIMSE_PORT)
        instances = itertools.islice(sample_study(study, made), INSTANCES)
        self.namespace.run(send, instances, INSTANCES, associate, lambda stored, total: None)
        return study

    def get(self, path: str, role: str = "viewer") -> Any:
        """The status and JSON that its HTTP answers."""

        def ask() -> tuple[int, Any]:
            with self.http(role) as client:
                answer = client.get(path)
                return answer.status_code, answer.json() if answer.content else None

        self.token(role)
        return self.namespace.run(ask)

    def alerts(self) -> set[str]:
        """The rules that it raised alerts of."""
        answer = control.ask(self.home / "run/cairn.sock", "ledger-alerts", {}, lambda text: None)
        assert isinstance(answer, dict)
        return {found["rule"] for found in answer["alerts"]}

    # --- consensus -----------------------------------------------------------------------------------------------

    def submit(self, tx: bytes) -> Checked:
        """Hand a transaction straight to its CometBFT."""
        return self.namespace.run(self.rpc.submit, tx)

    def consensus(self, method: str, **parameters: str) -> Any:
        """What its CometBFT answers; None while it does not."""
        try:
            return self.namespace.run(self.rpc.call, method, **parameters)
        except RpcFault:
            return None

    def height(self) -> int:
        """The newest block that its CometBFT has; -1 while it does not answer."""
        told = self.consensus("status")
        return -1 if told is None else int(told["sync_info"]["latest_block_height"])

    # --- what it holds -------------------------------------------------------------------------------------------

    def shared(self) -> SharedConsortium:
        """The shared log as it holds it."""
        assert self._shared is not None
        return self._shared

    def state(self) -> State:
        """The state after the last block that it executed."""
        return self.shared().state()

    def outbox(self) -> list[int]:
        """The sequences of its entries that wait for a block."""
        path = self.home / "consortium/ledger/ledger.db"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return [row[0] for row in database.execute("SELECT sequence FROM outbox ORDER BY sequence")]

    def unlinked(self) -> int:
        """How many of its final entries are not known to be of a batch of its own."""
        with closing(BlockStore(self.home / "consortium/ledger/ledger.db", readonly=True)) as store:
            return store.unlinked(self.node)

    def sealed(self) -> int:
        """How many entries it has made: those that are final and those that wait."""
        waiting = self.outbox()
        return waiting[-1] + 1 if waiting else self.state().chain(self.node).sequence

    def committed(self) -> tuple[int, bytes, list[tuple[str, int]]]:
        """What must be the same everywhere: height and app hash of the last block with entries, entries a member."""
        path = self.home / "consortium/ledger/ledger.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            height, app_hash = database.execute("SELECT height, app_hash FROM consensus_state").fetchone() or (0, b"")
        state = self.state()
        return height, app_hash, sorted((each.name, state.chain(each.node).sequence) for each in state.members.values())

    def close_reading(self) -> None:
        """Close what the test holds open of it."""
        self.namespace.run(self.rpc.close)
        self._shared_closed()

    def _shared_closed(self) -> None:
        if self._shared is not None:
            self._shared.close()


def _associate(port: int) -> Association:
    entity = AE(ae_title="TESTER")
    entity.requested_contexts = [build_context(CT_IMAGE, ExplicitVRLittleEndian)]
    return entity.associate("127.0.0.1", port, ae_title="CAIRN")


def until(holds: Callable[[], Any], what: Callable[[], str]) -> None:
    """Until a condition holds; fails with the words when the time is over."""
    over = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < over, what()
        time.sleep(0.05)
