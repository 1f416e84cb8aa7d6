"""kill -9 between any two calls of ABCI and at each step of a commit, with a real CometBFT: the same app hash after."""

import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

from bridge import consortium_setup
from bridge.config import load
from bridge.consensus.daemon import ManagedCometBFT, Plan
from bridge.consensus.home import abci_of
from bridge.crypto.keystore import open_keystore
from ledger import genesis
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.abci.server import AbciServer
from ledger.block_store import BlockStore
from tests.cometbft_node import COMETBFT, until
from tests.ledger.shared_log import Hospital
from tests.node.running_node import free_ports

STEPS = (
    "init_chain",
    "append.1",
    "append.2",
    "submit",
    "process_proposal",
    "finalize_block.1",
    "finalize_block.2",
    "commit.1",
    "commit.2",
    "commit.3",
    "commit.4",
)
ENTRIES = 3 + 2 * len(STEPS)


def make_home(home: Path) -> genesis.Genesis:
    """A consortium of this member alone."""
    rpc, p2p = free_ports(2)
    home.mkdir()
    cometbft = {"binary": str(COMETBFT), "rpc": f"http://127.0.0.1:{rpc}", "p2p_port": p2p}
    consortium_setup.settle(home, {"ledger.cometbft": cometbft})
    settings, _ = load(None, {"CAIRN_HOME": str(home)})
    card = consortium_setup.make_card(settings, open_keystore(home, None), consortium_setup.place_of(settings, "alone"))
    made = consortium_setup.found("one", time.time_ns() // 1000, [card])
    consortium_setup.join(settings, made)
    return made


def run(home: Path, entries: int, crash: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if crash is None else {"CAIRN_CRASH_AT": crash})}
    command = [sys.executable, "-m", "tests.bridge.consensus.sealing_participant", str(home), str(entries)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def executed_anew(home: Path, made: genesis.Genesis, place: Path) -> bytes:
    """The app hash that an application which was never killed gives for every block that CometBFT holds.

    On the way each is compared with the one in the next header. CometBFT executes its blocks anew by itself when it
    finds an application that has none.
    """
    settings, _ = load(None, {"CAIRN_HOME": str(home)})
    someone = Hospital("auditor")
    place.mkdir()
    store = BlockStore(place / "ledger.db")
    signers = Signers(someone.node, someone.signer, someone.cosigner, "auditor")
    application = ConsortiumApplication(store, made, signers, lambda: 0)
    faults: queue.Queue[Exception] = queue.Queue()
    server = AbciServer(abci_of(settings), application, faults.put)
    server.start()
    daemon = ManagedCometBFT(settings, lambda: Plan(made, "alone", ()))
    try:
        daemon.prepare()
        daemon.start()
        until(daemon.ready, "the blocks were not executed anew in time")
        assert faults.empty()
        return application.info().app_hash
    finally:
        daemon.stop()
        server.close()
        store.close()


def test_killed_at_any_step_a_member_goes_on_with_the_same_app_hash_and_loses_no_entry(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = make_home(home)
    for number, step in enumerate(STEPS):
        count = "" if step == "init_chain" else ":2"
        killed = run(home, ENTRIES, step + count)
        assert killed.returncode == -signal.SIGKILL, f"{step} ({number}): {killed.stdout}{killed.stderr}"
        assert "Traceback" not in killed.stderr, killed.stderr
    finished = run(home, ENTRIES)
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    assert told["entries"] == ENTRIES
    store = BlockStore(home / "consortium" / "ledger" / "ledger.db", readonly=True)
    try:
        entries = list(store.all_entries())
        assert [item.sequence for item in entries] == list(range(ENTRIES))
        assert [item.batch for item in entries] == list(range(ENTRIES))
        assert (store.waiting(), store.consensus().app_hash.hex()) == (0, told["app_hash"])
        last = store.blocks(limit=10_000)[-1]
    finally:
        store.close()
    assert last.hash.hex() == told["app_hash"]
    assert executed_anew(home, made, tmp_path / "anew").hex() == told["app_hash"]
