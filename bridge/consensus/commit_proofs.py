"""Proofs of a commit: what this node's CometBFT and shared log say of an entry, as files for who has the genesis alone.

(1) the block that the shared log ends with, and the state after it
(2) the entry's proof under that block's tree
(3) the header that holds the block record's hash, and the commit on it: of the height after
(4) light blocks that lead there from the genesis, of CometBFT or kept; all of it is verified before it is given
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from bridge.consensus.light_blocks import LightBlocks
from bridge.consensus.rpc import Rpc, RpcFault
from bridge.errors import Busy, EngineFault, NotFound, StorageFault
from ledger import commit_proof, light_block_json, lightclient, members
from ledger.block_store import BlockStore
from ledger.errors import LedgerError
from ledger.genesis import Genesis
from ledger.light_block import LightBlock, Time
from ledger.lightclient import Trusting

POLL_S: Final = 0.1


class Log(Protocol):
    """The shared log."""

    def prove_at(self, id: bytes, size: int) -> str:
        """The proof of an entry or record under the checkpoint of that size. Raises NotFound."""


class CommitProof(NamedTuple):
    """A proof of an entry (C2SP tlog-proof), and of the commit on its tree (`ledger.commit_proof`)."""

    proof: str
    commit: bytes


class _Block(NamedTuple):
    height: int
    size: int
    record: bytes
    state: bytes


def prove(
    database: Path, genesis: Genesis, rpc: Rpc, kept: LightBlocks, log: Log, id: bytes, until: float
) -> CommitProof:
    """The proof of an entry or record by its id; waits until `until` (monotonic) for entry and header.

    Raises NotFound when there is no such entry in the shared log yet, EngineFault when CometBFT does not answer or has
    no such heights any more, Busy when the header is not there in time, StorageFault.
    """
    while True:
        try:
            block = _newest(database)  # (1)
            text = commit_proof.bare(log.prove_at(id, block.size), genesis)  # (2)
            break
        except NotFound:
            if time.monotonic() >= until:
                raise
        time.sleep(POLL_S)
    trusting = Trusting(_now(), None)
    try:
        target = _header_after(rpc, block, until)  # (3)
        between = lightclient.among(kept.heights(), rpc.status().earliest)
        path = commit_proof.find_path(genesis, target, trusting, _fetching(rpc, kept), between)  # (4)
        encoded = commit_proof.encode(block.record, block.state, path)
        commit_proof.verify_entry(text, commit_proof.verify(encoded, genesis, trusting), genesis)
    except RpcFault as error:
        raise EngineFault(f"{error}") from error
    except LedgerError as error:
        raise EngineFault(f"what CometBFT holds does not prove the entry: {error}") from error
    return CommitProof(text, encoded)


def _newest(database: Path) -> _Block:
    try:
        with closing(BlockStore(database, readonly=True)) as store, store.snapshot():
            held = store.consensus()
            block = store.block_at(held.height) if held.height else None
    except (LedgerError, OSError) as error:
        raise StorageFault(f"the shared log cannot be read ({type(error).__name__})") from error
    if block is None:
        raise NotFound("the shared log has no block yet")
    return _Block(block.height, block.size, block.record, members.encode(members.of_rows(held.rows)))


def _header_after(rpc: Rpc, block: _Block, until: float) -> int:
    """The height whose header holds the hash of the block's record; CometBFT makes it when the block changed that."""
    while rpc.status().height <= block.height:
        if time.monotonic() >= until:
            raise Busy("the header after the entry's block is not there yet; ask again, or with --wait")
        time.sleep(POLL_S)
    return block.height + 1


def _fetching(rpc: Rpc, kept: LightBlocks) -> Callable[[int], LightBlock]:
    def fetch(height: int) -> LightBlock:
        if height in kept.heights():
            return light_block_json.light_block(*kept.at(height))
        return light_block_json.light_block(rpc.commit(height), rpc.validators(height))

    return fetch


def _now() -> Time:
    return Time(*divmod(time.time_ns(), 10**9))
