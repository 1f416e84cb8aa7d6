"""The interfaces between the recipes and what touches the world: small, synchronous, each with one contract suite.

Each method names its errors; an adapter lets nothing else out. No port mentions SQL, HTTP, DIMSE or a vendor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from bridge.dicom.matching import Query
from bridge.model import (
    Action,
    Actor,
    Batch,
    BatchClosing,
    Block,
    BlockPosition,
    Committed,
    ContentStatus,
    FinalEntry,
    InstanceKey,
    PinReceipt,
    SealedRecord,
    SearchPage,
    StoredInstance,
    StudyKey,
    StudyTree,
    WriteUnit,
)
from ledger.event import Detail, Event, EventQuery
from ledger.members import Member, Proposal, State


class ContentStore(Protocol):
    """Blocks by CID, and whole trees of them by root. `put` then `sync`: what was put is on stable storage.

    What CAR files hold goes in and out by these alone (`bridge.content.car_transfer`), the same for every engine.
    """

    def put(self, blocks: Sequence[Block]) -> Sequence[BlockPosition]:
        """Append blocks to this node's spool; not yet durable. Raises StorageFull, StorageFault."""

    def sync(self) -> None:
        """Make everything put so far durable: one fdatasync for all that wait. Raises StorageFull, StorageFault."""

    def get(self, cid: bytes) -> bytes:
        """The block, verified against its CID, wherever it lies.

        Raises ContentMissing when nobody has it, ContentCorrupt when no copy is whole, EngineFault when somebody who
        may have it cannot be asked now.
        """

    def has(self, cid: bytes) -> bool:
        """Whether the block is held by this node (neither read nor verified)."""

    def pin(self, root: bytes, replaces: bytes | None = None) -> PinReceipt:
        """Hold and keep everything below a root, durably; then let go of the root that it `replaces`.

        What lies below `replaces`, when that is pinned, is taken to be held. Raises ContentMissing when a block cannot
        be had, ContentCorrupt, StorageFull, StorageFault, EngineFault.
        """

    def unpin(self, root: bytes) -> None:
        """No longer keep a root; without effect when it is not pinned. Raises EngineFault, StorageFault."""

    def status(self, root: bytes | None = None) -> ContentStatus:
        """How the engine fares, asked now; with a root, how many copies of it are kept. Raises nothing."""

    def close(self) -> None:
        """Sync and release what is held open."""


class Index(Protocol):
    """What is stored, where, and the provenance records; one transaction per group of units."""

    def commit(self, unit: WriteUnit) -> Future[Committed]:
        """Step (6): rows, frame table, block positions and the record, atomically and durably.

        Written with all that wait, at the latest when the future is asked for its result, as of every method here that
        gives one. The future raises StorageFull, StorageFault; Busy is raised at once when the queue is full.
        """

    def append(self, batch: Batch, records: Sequence[SealedRecord]) -> Future[int]:
        """Add records to an open batch (created by its first use); the first one's position. Errors as `commit`."""

    def close_batch(self, batch: Batch, closing: BatchClosing) -> Future[None]:
        """Close a batch: its StudyRoot (if any), records root and time; the ledger reads only closed batches."""

    def study_tree(self, tag: bytes) -> StudyTree:
        """The manifest so far of a study tag, and every instance block of it, in order. Raises NotFound."""

    def served_digest(self, key: InstanceKey) -> bytes | None:
        """The content digest of the instance's version that is served; None when there is none or it is damaged."""

    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        """The served version of each instance below the resource, in series and instance order. Raises NotFound."""

    def metadata(
        self, study: str, series: str | None = None, sop: str | None = None
    ) -> Iterator[tuple[InstanceKey, bytes]]:
        """The DICOM JSON of each instance below the resource, as stored (UTF-8). Raises NotFound."""

    def positions_of(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        """Where those of many blocks lie that it knows. Raises StorageFault."""

    def search(self, query: Query) -> SearchPage:
        """One page of matches at the query's level. Raises QueryInvalid."""


class KeyStore(Protocol):
    """Study keys, wrapped at rest under the node's key-encryption key."""

    def study_key(self, study: str) -> StudyKey:
        """The current key of a study, created and durable at its first use. Raises StorageFault."""

    def open(self, study_tag: bytes, generation: int) -> StudyKey:
        """The key that a sealed object names. Raises ContentMissing when it is not (or no longer) held."""


class AuditTrail(Protocol):
    """The ledger as events, searchable; derived from ledger, index and keys, and made again from them at any time."""

    def search(self, query: EventQuery) -> Sequence[Event]:
        """Matching events, newest first, at most `query.limit`. Raises StorageFault."""

    def event(self, id: bytes) -> Event:
        """The event of an entry, by the entry's leaf hash or that of one of its records. Raises NotFound."""

    def details(self, id: bytes) -> Sequence[Detail]:
        """The records of an entry in order, opened where the key is held. Raises NotFound."""

    def facets(self, query: EventQuery) -> Mapping[str, Sequence[tuple[str, int]]]:
        """How many matching events there are for each value of "type", "actor", "role", "purpose", "outcome"."""

    def histogram(self, query: EventQuery, bins: int) -> Sequence[tuple[int, int]]:
        """Matching events in at most `bins` spans of equal length: (start in microseconds, count) by time."""

    def follow(self) -> int:
        """Take in what the ledger has sealed since; how many entries. One thread at a time. Raises StorageFault."""


class LedgerLog(Protocol):
    """The log of this node's ledger, to be read and proved from; every method may raise StorageFault."""

    def key(self, of: bytes | None = None) -> str:
        """The verifier key (C2SP signed-note) of the log, or of the one that the entry with this id is in."""

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint (C2SP tlog-checkpoint); None while there is no entry."""

    def signed(self, size: int | None = None) -> str | None:
        """A checkpoint as this node signed it, the newest unless a size is given; None when there is none."""

    def policy(self) -> str:
        """What trusting the log asks for: whose keys sign it, whose cosignatures it needs (C2SP tlog-policy)."""

    def file(self, path: str) -> bytes:
        """A tile or entry bundle by its C2SP tlog-tiles path below the log's prefix. Raises NotFound."""

    def envelope(self, id: bytes) -> bytes:
        """The signed envelope of an entry, by its leaf hash. Raises NotFound."""

    def prove(self, id: bytes) -> str:
        """The proof (C2SP tlog-proof) of an entry, or of one record, by its leaf hash. Raises NotFound."""

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        """The consistency proof between two sizes of the tree (RFC 9162 section 2.1.4). Raises NotFound beyond it."""


class Consortium(Protocol):
    """What this node holds of the shared log: all of it final. Read-only; every method may raise StorageFault."""

    def own(self) -> Member | None:
        """This node as a member; None before it is enrolled."""

    def members(self) -> Sequence[Member]:
        """All members by name, those that are retired too, after the active ones."""

    def entry(self, id: bytes) -> FinalEntry | None:
        """The entry of an id (leaf hash), whoever's it is; None when it is not final here."""

    def follow(self, after: int, types: Sequence[str]) -> Sequence[FinalEntry]:
        """The first entries of these types behind an index (-1: from the start), in order, at most some hundreds."""

    def proposals(self) -> Sequence[Proposal]:
        """What is proposed, and the latest that was decided, in the order it was made."""

    def state(self) -> State:
        """The whole state after the last block that left something; that of the genesis before the first."""

    def made(self, root: bytes, final: bool) -> bytes | None:
        """The id of this node's entry over a records root; one that is not final yet only when not `final`."""


class Authoriser(Protocol):
    """Who asks, and whether they may."""

    def identify(self, credential: str, address: str) -> Actor:
        """The actor of a bearer token or session. Raises Unauthenticated."""

    def allow(self, actor: Actor, action: Action) -> None:
        """Return when the actor may; raises Forbidden."""
