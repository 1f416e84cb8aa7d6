"""The values that pass between the parts of a node. Nothing here touches the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from ledger.block import FinalEntry as FinalEntry


class Role(StrEnum):
    """What a credential may do (DESIGN section 8): a closed set."""

    VIEWER = "viewer"
    CLINICIAN = "clinician"
    DEVICE = "device"
    AUDITOR = "auditor"
    ADMIN = "admin"


class ActorKind(StrEnum):
    """Who acts: the node itself, a person or application with a token, an AE, another member."""

    SYSTEM = "system"
    USER = "user"
    DEVICE = "device"
    PEER = "peer"


class Action(StrEnum):
    """What can be asked for; `bridge.access.policy` says which roles may."""

    STORE = "store"
    SEARCH = "search"
    RETRIEVE = "retrieve"
    FETCH = "fetch"
    AUDIT = "audit"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, as established by a front door.

    `name` is a token's name, a calling AE title or a member; `address` the network address it came from; `how` the door
    ("dimse", "http", "gateway", "members", "command"). `study` is the Study Instance UID whose sealed blocks are all
    that the credential is good for; None for one that is good for what its role says.
    """

    kind: ActorKind
    name: str
    role: Role | None
    address: str
    how: str
    study: str | None = None


OPERATOR = Actor(ActorKind.SYSTEM, "operator", Role.ADMIN, "", "command")
"""Whoever runs commands on the node's machine."""


class InstanceKey(NamedTuple):
    """Study (0020,000D), Series (0020,000E) and SOP Instance UID (0008,0018)."""

    study: str
    series: str
    sop: str


class Block(NamedTuple):
    """One IPLD block: its binary CIDv1 and its bytes."""

    cid: bytes
    data: bytes | bytearray


class BlockPosition(NamedTuple):
    """Where a block lies: pack number, offset of its data in the pack, length of its data in bytes."""

    cid: bytes
    pack: int
    offset: int
    length: int


class StudyKey(NamedTuple):
    """An unwrapped study key: 32 secret bytes, the generation it belongs to, the study's random 16-byte tag."""

    study: str
    generation: int
    tag: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"StudyKey(study=..., generation={self.generation}, tag={self.tag.hex()}, secret=...)"


class SealedObject(NamedTuple):
    """What is needed to find and open one sealed object.

    `root` is its binary CID (raw leaf for one block, dag-pb for more), `header` the 40-byte stream header of
    segment 0 (so that any segment opens without it), `length` the plaintext length in bytes.
    """

    root: bytes
    header: bytes
    length: int


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One committed version of an instance, as the index keeps it and retrieval needs it.

    `data_set` is the offset of the data set in the Part 10 plaintext; `frames` and `bulk` are the encoded frame and
    bulk-value tables (`bridge.dicom.frames`, `bridge.dicom.bulk`), whose offsets count from the data set's first byte.
    `study_tag` and `generation` name the key that it is sealed under, which may be another node's.
    """

    id: int
    key: InstanceKey
    sop_class: str
    transfer_syntax: str
    digest: bytes
    study_tag: bytes
    tag: bytes
    generation: int
    object: SealedObject
    data_set: int
    frames: bytes
    bulk: bytes
    damaged: bool
    served: bool = True


@dataclass(frozen=True, slots=True)
class Attributes:
    """Index values of one instance by query level: tag ("00100010") -> DICOM JSON attribute object (PS3.18 F.2)."""

    patient: Mapping[str, Mapping[str, object]]
    study: Mapping[str, Mapping[str, object]]
    series: Mapping[str, Mapping[str, object]]
    instance: Mapping[str, Mapping[str, object]]


class SealedRecord(NamedTuple):
    """A provenance record: its RFC 6962 leaf hash, and its bytes sealed (under the study's key, or the node's)."""

    leaf: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """An open run of records that will become one ledger entry.

    `id` is 16 random bytes; `owner` the process that must close it ("dimse-0", "web-0", "command"): what a process
    finds open under its own name when it starts was left by a crash. `type` is an entry type of `ledger.types`;
    `study` the Study Instance UID or None; `study_tag` its random tag; `purpose` an HL7 purpose of use code;
    `opened` microseconds since the epoch; `outcome` 0 (success), 4, 8 or 12 (PS3.15 A.5 EventOutcomeIndicator). What
    its entry states besides the records is `body` (canonical CBOR, `ledger.terms`), which goes beyond this node, and
    `refs`, the ids of the entries it is about (32 bytes each).
    """

    id: bytes
    owner: str
    type: str
    actor: Actor
    study: str | None
    study_tag: bytes | None
    purpose: str
    opened: int
    outcome: int = 0
    body: bytes | None = None
    refs: tuple[bytes, ...] = ()


STORES = frozenset({"study.store", "study.import"})
"""The types of batches that instances are stored in; their closing makes the study's manifest grow."""


@dataclass(frozen=True, slots=True)
class BatchClosing:
    """What closing adds: time (microseconds), Merkle root over the batch's leaves in order, and the manifest made.

    `records` is how many records the root covers: closing fails (StorageFault) when the batch holds another number.
    `root` is the StudyRoot's CID, `pages` its pages' CIDs in order, `instances` how many instances it covers;
    `commitment` = SHA-256(salt || root CID) with the 16-byte `salt` kept beside it.
    """

    closed: int
    records: int
    records_root: bytes
    root: bytes | None = None
    pages: tuple[bytes, ...] = ()
    instances: int = 0
    salt: bytes | None = None
    commitment: bytes | None = None
    blocks: tuple[BlockPosition, ...] = ()


class PinReceipt(NamedTuple):
    """That everything below a root is held and kept: its CID, how many copies there are, when (microseconds)."""

    root: bytes
    replicas: int
    at: int


class ContentStatus(NamedTuple):
    """How a content engine fares: its name, what is wrong (empty when nothing is), and what was asked of one root.

    Of a root: `replicas` held of `wanted` copies (None when the root is not pinned, or none was asked about).
    """

    engine: str
    reasons: tuple[str, ...] = ()
    replicas: int | None = None
    wanted: int = 1


class Tree(NamedTuple):
    """Whose manifest a root is, without its links.

    `id` is the row; `study` the Study Instance UID, None when the key is not held (sealed blocks kept for others);
    `origin` the node id of the member that made it, None for this node, empty when nobody said; `tag` the study's tag
    there; `root` the last root's CID, None before the first closing; `covered` how many instances it covers.
    """

    id: int
    study: str | None
    origin: bytes | None
    tag: bytes
    root: bytes | None
    covered: int


class AdoptedTree(NamedTuple):
    """A manifest that is taken in as it is: its study tag, root, pages, and the instance blocks these name, in order.

    `study` and `origin` as in `Tree`: None and empty while its key is not held.
    """

    study: str | None
    origin: bytes | None
    tag: bytes
    root: bytes
    pages: tuple[bytes, ...]
    links: tuple[bytes, ...]


class StudyTree(NamedTuple):
    """A tree's manifest: tag, last root, its pages, how many instances they cover, all instance blocks' CIDs.

    One that is not this node's `own` stays as its node made it.
    """

    tag: bytes
    root: bytes | None
    pages: tuple[bytes, ...]
    covered: int
    instances: tuple[bytes, ...]
    own: bool = True


class Outcome(StrEnum):
    """What step (6) decided under the unique key (study, series, SOP, digest)."""

    NEW = "new"
    VERSION = "version"
    AGAIN = "again"
    HEALED = "healed"


@dataclass(frozen=True, slots=True)
class WriteUnit:
    """Everything that step (6) makes visible at once.

    `record` is the record for the outcome that is `expected`; `record_of` makes that of another, since only the
    transaction decides. `link` is the CID of the instance block (dag-cbor) that the study's page will name; `json` the
    DICOM JSON object (UTF-8, deflated by zlib) and `attributes` the values that searches match; `blocks` the positions
    of every block of this instance (object, sealed metadata, instance block); `received` microseconds since the epoch.
    """

    batch: Batch
    record: SealedRecord
    key: InstanceKey
    sop_class: str
    transfer_syntax: str
    digest: bytes
    tag: bytes
    generation: int
    object: SealedObject
    link: bytes
    data_set: int
    frames: bytes
    bulk: bytes
    json: bytes
    attributes: Attributes
    blocks: tuple[BlockPosition, ...]
    received: int
    source: str
    expected: Outcome = Outcome.NEW
    record_of: Callable[[Outcome], SealedRecord] | None = None

    def recorded(self, outcome: Outcome) -> SealedRecord:
        """The record to write when this is what was decided; to be asked once."""
        if outcome is self.expected or self.record_of is None:
            return self.record
        return self.record_of(outcome)


class Committed(NamedTuple):
    """The row id of the instance, what was decided, the record's position in its batch from 0, and the record."""

    instance: int
    outcome: Outcome
    position: int
    record: SealedRecord


class Adopted(NamedTuple):
    """What was decided of each instance of a tree taken in, the first record's position, and the records written."""

    outcomes: tuple[Outcome, ...]
    position: int
    records: tuple[SealedRecord, ...]


class SearchPage(NamedTuple):
    """Matches as DICOM JSON objects (dicts keyed by tag, ascending), and how many more there are beyond this page.

    Retrieve URL (0008,1190) is left to the door, which knows its own address.
    """

    matches: tuple[Mapping[str, object], ...]
    remaining: int


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """How fresh and how whole the ledger is; times in microseconds since the epoch, None where there is none.

    `size` counts entries, `last_sequence` is the newest one's number, `checkpoint` when the newest was written. Closed
    batches wait for their entry (`waiting_...`), open ones are not over yet. `stepped_back_us` is by how much the clock
    of an entry was ever behind that of the entry before, among the newest. `forwarded` entries have gone to the audit
    repository; None when there is none.

    In a consortium `size` counts the entries of all members, and `numbered` those that have this node's numbers (None:
    all have); `pending` entries of this node wait for consensus.
    """

    size: int
    last_sequence: int | None
    checkpoint: int | None
    waiting_batches: int
    waiting_records: int
    waiting_since: int | None
    open_batches: int
    open_since: int | None
    stepped_back_us: int
    forwarded: int | None
    numbered: int | None = None
    pending: int = 0


@dataclass(frozen=True, slots=True)
class StorageOverview:
    """What a node holds: rows by name, counted at `at` (microseconds since the epoch); packs and disk in bytes.

    `full` says of each disk on which there is no room any more what that means.
    """

    counts: Mapping[str, int]
    at: int
    packs: int
    pack_bytes: int
    disk_free: int
    disk_size: int
    full: tuple[str, ...] = ()


class BlockCount(NamedTuple):
    """How many blocks, and the bytes in them."""

    blocks: int = 0
    octets: int = 0


class ManifestInstance(NamedTuple):
    """An instance in a study's tree: CIDs of its block and its sealed object, the object's leaves, all bytes below."""

    cid: bytes
    object: bytes
    leaves: int
    octets: int


class ManifestPage(NamedTuple):
    """A page of a study's tree: its CID, how many instances it names, and some: the first, and that of most leaves."""

    cid: bytes
    instances: int
    some: tuple[ManifestInstance, ...] = ()


class PackShare(NamedTuple):
    """What of a tree lies in one pack; `trimmed`: its file is gone, and the content engine has the blocks."""

    pack: int
    blocks: int
    octets: int
    trimmed: bool


BLOCK_KINDS = ("root", "page", "instance", "metadata", "node", "leaf")
"""What a block of a study's tree is: StudyRoot, page, instance block, sealed metadata, and of a sealed object the file
nodes (of more than one leaf) and the leaves of at most 1 MiB."""


@dataclass(frozen=True, slots=True)
class TreeContent:
    """A study's tree as it lies in the archive; times in microseconds since the epoch.

    `kinds` has every one of BLOCK_KINDS. `counted` instances of `tree.covered` were looked at for it. `unread` blocks
    could not be read or are not known to the index, so that what lies below them is not counted. Of the content engine:
    when it `pinned` the root, when everything was last `verified`, `replicas` held of `wanted` (None: not pinned).
    """

    tree: Tree
    kinds: Mapping[str, BlockCount]
    pages: tuple[ManifestPage, ...]
    packs: tuple[PackShare, ...]
    counted: int
    unread: int
    pinned: int | None = None
    verified: int | None = None
    replicas: int | None = None
    wanted: int | None = None

    @property
    def total(self) -> BlockCount:
        """All blocks counted."""
        return BlockCount(*map(sum, zip(*self.kinds.values(), strict=True)))


@dataclass(frozen=True, slots=True)
class StudyContent:
    """Where a study lies: its trees, this node's own first, in which content engine, and what is wrong with that."""

    study: str
    engine: str
    faults: tuple[str, ...]
    trees: tuple[TreeContent, ...]


@dataclass(frozen=True, slots=True)
class ContentOverview:
    """How the archive stands with its content engine; times in microseconds since the epoch.

    `faults` are what is wrong now, each with since when. Of the studies' trees: how many wait for the engine, are
    `pinned`, were `verified` (the one longest ago at `oldest`), have too few copies (`short`). `trimmed` packs are in
    the engine alone. The scrub reads everything once in `days` (0: never); its pass began at `begun` (None: none yet),
    has read the `share` of everything, and found `wrong` blocks, of which it `mended` some.
    """

    engine: str
    faults: tuple[tuple[int, str], ...] = ()
    waiting: int = 0
    pinned: int = 0
    verified: int = 0
    oldest: int | None = None
    short: int = 0
    trimmed: int = 0
    days: int = 0
    begun: int | None = None
    share: float = 0.0
    wrong: int = 0
    mended: int = 0
