"""What CometBFT asks of an application, and what it is answered (ABCI 2.0, CometBFT v0.38 to v0.40), as values.

Names and meanings are those of the specification (abci++_methods.md), field numbers are `ledger.abci.wire`'s. Times are
nanoseconds since the epoch; hashes, addresses and keys are raw bytes. The methods of one connection are called in
order; those of different connections at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

OK: Final = 0
"""The code of a transaction that is taken; every other is the application's own reason to refuse it."""
ACCEPT, REJECT = 1, 2
"""Of ProcessProposal."""
SNAPSHOT_ACCEPT, SNAPSHOT_ABORT, SNAPSHOT_REJECT, SNAPSHOT_REJECT_FORMAT, SNAPSHOT_REJECT_SENDER = 1, 2, 3, 4, 5
"""Of OfferSnapshot."""
CHUNK_ACCEPT, CHUNK_ABORT, CHUNK_RETRY, CHUNK_RETRY_SNAPSHOT, CHUNK_REJECT_SNAPSHOT = 1, 2, 3, 4, 5
"""Of ApplySnapshotChunk."""
DUPLICATE_VOTE, LIGHT_CLIENT_ATTACK = 1, 2
"""Kinds of misbehavior."""


class Info(NamedTuple):
    """What the application last committed: height 0 and an empty app hash before the first block."""

    height: int
    app_hash: bytes
    data: str = ""
    version: str = ""
    app_version: int = 1


class ValidatorUpdate(NamedTuple):
    """An Ed25519 public key (32 bytes) and its voting power; 0 removes it."""

    public_key: bytes
    power: int


class InitChain(NamedTuple):
    """What the genesis says; the validators are CometBFT's own reading of it."""

    time_ns: int
    chain_id: str
    validators: Sequence[ValidatorUpdate]
    app_state: bytes
    initial_height: int


class Checked(NamedTuple):
    """The verdict on one transaction: OK or why not, in words that hold no PHI."""

    code: int
    log: str = ""


class Misbehavior(NamedTuple):
    """Evidence that a validator lied: kind, its address (20 bytes), the height and time at which, the total power."""

    kind: int
    address: bytes
    height: int
    time_ns: int
    total_power: int
    power: int = 0


class Proposal(NamedTuple):
    """A block that is being proposed or voted on."""

    txs: Sequence[bytes]
    height: int
    time_ns: int
    proposer: bytes
    misbehavior: Sequence[Misbehavior] = ()
    max_tx_bytes: int = 0
    hash: bytes = b""


class Block(NamedTuple):
    """A decided block, to be executed: its transactions in order, who proposed it (20 bytes), and evidence."""

    txs: Sequence[bytes]
    height: int
    time_ns: int
    proposer: bytes
    hash: bytes
    misbehavior: Sequence[Misbehavior] = ()


class Finalized(NamedTuple):
    """What executing a block gave: a verdict for each transaction, changes of validators, the new app hash."""

    results: Sequence[Checked]
    validator_updates: Sequence[ValidatorUpdate]
    app_hash: bytes


class Answer(NamedTuple):
    """What a query is answered."""

    code: int
    value: bytes = b""
    log: str = ""
    height: int = 0


class Snapshot(NamedTuple):
    """A state that others can start from: at a height, in so many chunks; hash and metadata are the application's."""

    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes = b""


class Application(Protocol):
    """One state machine. Nothing may be raised for what a peer sends: refuse it by code.

    What is raised stands for a fault of this node (disk, database): the server then closes all connections, CometBFT
    ends, and both are started afresh from what was committed.
    """

    def info(self) -> Info:
        """Height and app hash of the last commit."""

    def init_chain(self, request: InitChain) -> bytes:
        """The app hash before the first block; may be called again when a crash came before the first commit."""

    def check_tx(self, tx: bytes, recheck: bool) -> Checked:
        """Whether a transaction may enter the mempool."""

    def prepare_proposal(self, proposal: Proposal) -> Sequence[bytes]:
        """The transactions to propose, in order, at most `max_tx_bytes` together."""

    def process_proposal(self, proposal: Proposal) -> bool:
        """Whether another's proposal is structurally possible."""

    def finalize_block(self, block: Block) -> Finalized:
        """Execute; nothing is durable before `commit`. A function of the block and the committed state alone."""

    def commit(self) -> int:
        """Make the last executed block durable, atomically; below which height CometBFT may drop blocks (0: none)."""

    def query(self, path: str, data: bytes, height: int) -> Answer:
        """Answer a query; paths below "/p2p/filter/" tell whether a peer may connect (code OK)."""

    def list_snapshots(self) -> Sequence[Snapshot]:
        """At most ten snapshots that others may start from."""

    def load_snapshot_chunk(self, height: int, format: int, chunk: int) -> bytes:
        """A chunk of a listed snapshot, at most 10 MB; empty when there is none."""

    def offer_snapshot(self, snapshot: Snapshot, app_hash: bytes) -> int:
        """Whether to start from a snapshot whose app hash the light client has verified."""

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> int:
        """Take in the next chunk of the accepted snapshot."""
