"""The verification recipe, pure: values in, findings out; it loads no database, clock or socket.

Of the log, entry by entry (`verify_log`):
 1. the envelope is strictly encoded, and its signature verifies under the node's key
 2. it names this ledger and node
 3. its sequence and previous hash continue the chain
 4. no other entry is over the same records
 5. its leaf grows the tree; each stored checkpoint is signed, of this origin, and of the tree at its size
 6. the newest checkpoint covers every entry
Of the files (`verify_tiles`):
 7. every tile and bundle holds, byte for byte, what the log says; none that the checkpoint needs is missing
Of the records (`verify_records`), given their source:
 8. each closed batch up to the cursor has its entry with equal fields, and each entry its batch
 9. the root over the record leaves is the entry's; each opened record is that leaf; one that cannot be opened is of a
    study that was erased
10. no record has been waiting for its entry longer than 60 s
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from ledger import checkpoint, entry, keys, merkle, record
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry, Who
from ledger.errors import CodecError, LedgerError, RecordUnreadable
from ledger.finding import Finding
from ledger.source import ClosedBatch, Cursor, RecordSource
from ledger.tiles import ENTRIES, HEIGHT, WIDTH, Tile, bundle_bytes, parse_path, tile_bytes, tiles

PENDING_LIMIT_US = 60 * 1_000_000
_PAGE = 256  # batches read at a time


class Trust(NamedTuple):
    """What a verifier knows beforehand: the node's key, the log's origin, the ledger's id, the node's id."""

    key: keys.PublicKey
    origin: str
    ledger: bytes
    node: bytes

    @classmethod
    def solo(cls, key: keys.PublicKey, origin: str) -> Trust:
        """What follows from a solo node's key and origin alone."""
        return cls(key, origin, entry.ledger_id(origin, key), keys.node_id(key))


@dataclass(slots=True)
class LogReport:
    """What reading the whole log gave: its findings, its tree, and what later steps need.

    `nodes` are the hashes of perfect subtrees at the levels of tiles above 0, by (level, index); `roots` the index of
    the entry over each records root; `digests` the SHA-256 of full tiles, as far as they are known; `erased` the tags
    of studies that have an erase entry.
    """

    findings: list[Finding] = field(default_factory=list)
    frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    roots: dict[bytes, int] = field(default_factory=dict)
    digests: dict[Tile, bytes] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)


#: Told of each envelope in order with the entry in it (None when it does not verify).
Visitor = Callable[[int, bytes, Entry | None], None]


class Stretch(NamedTuple):
    """Entries of one member in a row, in a shared log, that change nothing but its chain: signed with one key.

    From a sequence and a previous hash on, so many (`size`), the last of this hash.
    """

    node: bytes
    key: bytes
    sequence: int
    previous: bytes
    size: int
    last: bytes


class Stated(NamedTuple):
    """An entry of a shared log that says more: its envelope, and the key that its signature was verified with."""

    envelope: bytes
    key: bytes
    size: int = 1


Step: TypeAlias = Stretch | Stated


class Sound(NamedTuple):
    """A run of entries in which nothing is wrong by itself (`ledger.run`), as it goes into the whole.

    `first` and `previous` are the index and the hash of the former envelope that it was read with, `last` the hash of
    its last envelope; `size` and `frontier` are of its own leaves alone; `heads` the tree heads of its checkpoints,
    each with that frontier at its size; `nodes` the subtrees in it (level, index, hash) that are in tiles above level
    0; `roots` the records roots, each in the place of its entry (empty: none that is compared); `erased` the tags of
    erased studies; `tiles` the SHA-256 of its full tiles and bundles; `steps` what the members' state machine has to
    take in, of a shared log.
    """

    first: int
    previous: bytes
    last: bytes
    size: int
    frontier: tuple[bytes, ...]
    heads: tuple[tuple[Checkpoint, tuple[bytes, ...]], ...]
    nodes: tuple[tuple[int, int, bytes], ...]
    roots: tuple[bytes, ...]
    erased: frozenset[bytes]
    tiles: tuple[tuple[Tile, bytes], ...]
    steps: tuple[Step, ...] = ()


class LogCheck:
    """Steps 1 to 6 over a log, from its first entry on: `checkpoint` and `entry`, or `sound`, in order; then `end`.

    Without `signatures`, envelopes are hashed alone: steps 1 to 4 are left out.
    """

    steps: Sequence[Step] = ()
    """As `Sound` has them, of a check that reads a run of a shared log."""

    def __init__(self, trust: Trust | None = None, signatures: bool = True) -> None:
        self.report = LogReport()
        self.sequence, self.previous = 0, entry.GENESIS  # what the next entry must say
        self._signatures = signatures
        self._newest = -1
        if trust is not None:  # a shared log has its own (`ledger.verify_shared`)
            self._trust = trust
            self._key = keys.raw(trust.key)
            self._kid = keys.key_id(self._key)

    def opened(self, index: int, envelope: bytes) -> Entry | None:
        """Steps 1 to 3 of the next entry; None when it does not verify, or is not to be."""
        if not self._signatures:
            self.sequence += 1
            return None
        said: Entry | None = None
        try:
            said = entry.open(envelope, self._key, self._kid)  # (1)
        except LedgerError as error:
            self._found(f"entry {index}", error.detail)
        if said is not None:
            for what in _chain_faults(said, self._trust, self.sequence, self.previous):
                self._found(f"entry {index}", what)
            if said.type == "study.erase" and said.study is not None:
                self.report.erased.add(said.study)
        self.sequence = (said.sequence if said is not None else self.sequence) + 1
        self.previous = entry.envelope_hash(envelope)
        return said

    def entry(self, envelope: bytes) -> Entry | None:
        """The next entry; None when it does not verify, or is not to be."""
        index = self.report.frontier.size
        said = self.opened(index, envelope)
        self._grow(entry.leaf_hash(envelope), self.root(said) if said is not None else b"")
        return said

    def root(self, said: Entry) -> bytes:
        """The records root of an entry that no other may have (4); empty when others may."""
        return said.records_root

    def sound(self, run: Sound) -> bool:
        """The next run; False, and nothing done, when it does not continue the log here or disagrees with it."""
        report, tree = self.report, self.report.frontier
        if not self._continues(run):
            return False
        compared = [(root, index) for index, root in enumerate(run.roots, tree.size) if root]
        roots = dict(compared)
        if len(roots) != len(compared) or not report.roots.keys().isdisjoint(roots):  # (4)
            return False
        for head, within in run.heads:  # (5)
            if head.root != _joined(tree.copy(), head.size - tree.size, within).root():
                return False
        if not self._takes(run):
            return False
        _joined(tree, run.size, run.frontier, self._keep)
        report.nodes.update({(level, index): hash for level, index, hash in run.nodes})
        report.roots.update(roots)
        report.digests.update(run.tiles)
        report.erased |= run.erased
        if run.heads:
            self._newest = run.heads[-1][0].size
        self.sequence, self.previous = tree.size, run.last
        return True

    def _continues(self, run: Sound) -> bool:
        """Whether this is where a run was read from."""
        size = self.report.frontier.size
        return (run.first, run.first, run.previous) == (size, self.sequence, self.previous)

    def _takes(self, run: Sound) -> bool:
        """Whether the steps of a run can be taken here; they are, when they can."""
        return True

    def checkpoint(self, size: int, note: str) -> None:
        """A stored checkpoint, given when the log has grown to its size (5)."""
        self._newest = size
        head = self.head(size, note)
        if head is not None and head.size == size and head.root != self.report.frontier.root():
            self._found(f"checkpoint {size}", _OTHER_ROOT)

    def head(self, size: int, note: str) -> Checkpoint | None:
        """The tree head of a stored checkpoint, signed and of this log; None when it is not."""
        found, head = read_checkpoint(note, self._trust, size)
        self.report.findings += found
        return head

    def end(self, beyond: int | None) -> LogReport:
        """Step 6, and the whole report; `beyond` is the size of the first checkpoint that the log does not reach."""
        size = self.report.frontier.size
        if beyond is not None:
            self._found(f"checkpoint {beyond}", f"the log holds only {size} entries")
        elif self._newest != size:
            self._found("checkpoint", f"none is of all {size} entries")
        return self.report

    def _grow(self, leaf: bytes, root: bytes) -> None:
        index = self.report.frontier.size
        if root:
            other = self.report.roots.setdefault(root, index)  # (4)
            if other != index:
                self._found(f"entry {index}", f"it is over the same records as entry {other}")
        self.report.frontier.append(leaf, self._keep)  # (5)

    def _keep(self, level: int, index: int, value: bytes) -> None:
        if level and level % HEIGHT == 0:
            self.report.nodes[level, index] = value

    def _found(self, place: str, what: str) -> None:
        self.report.findings.append(Finding(place, what))


def verify_log(
    envelopes: Iterable[bytes],
    checkpoints: Iterable[tuple[int, str]],
    trust: Trust | LogCheck,
    visit: Visitor | None = None,
) -> LogReport:
    """Steps 1 to 6 over every envelope of a log in order and its stored (size, checkpoint), ascending.

    By the key that is trusted, or by a check of one's own.
    """
    check = LogCheck(trust) if isinstance(trust, Trust) else trust
    waiting = iter(checkpoints)
    due = next(waiting, None)

    def check_due() -> None:
        nonlocal due
        while due is not None and due[0] <= check.report.frontier.size:
            check.checkpoint(*due)
            due = next(waiting, None)

    check_due()
    for index, envelope in enumerate(envelopes):
        said = check.entry(envelope)
        check_due()
        if visit:
            visit(index, envelope, said)
    return check.end(None if due is None else due[0])


def _chain_faults(said: Entry, trust: Trust, sequence: int, previous: bytes) -> Iterator[str]:
    if said.ledger != trust.ledger:  # (2)
        yield "it names another ledger"
    if said.node != trust.node:
        yield "it names another node"
    if said.sequence != sequence:  # (3)
        yield f"its sequence is {said.sequence}, not {sequence}"
    if said.previous != previous:
        yield "it does not name the entry before it"


def _joined(
    tree: merkle.Frontier, size: int, hashes: tuple[bytes, ...], visit: Callable[[int, int, bytes], None] | None = None
) -> merkle.Frontier:
    """A tree with another joined to its right, of that size and frontier."""
    levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
    for level, subtree in zip(levels, hashes, strict=True):
        tree.join(level, subtree, visit)
    return tree


_OTHER_ROOT = "its root is not that of the entries"


def read_checkpoint(note: str, trust: Trust, size: int) -> tuple[list[Finding], Checkpoint | None]:
    """Whether a stored checkpoint is signed, of this log, and of this size (step 5 without the tree), and its head."""
    return read_head(note, size, lambda signed: checkpoint.verify(signed, trust.origin, trust.key))


def read_head(note: str, size: int, verified: Callable[[str], Checkpoint]) -> tuple[list[Finding], Checkpoint | None]:
    """As `read_checkpoint`; `verified` gives the tree head of a note that is signed as it ought to be."""
    place = f"checkpoint {size}"
    try:
        head = verified(note)
    except LedgerError as error:
        return [Finding(place, error.detail)], None
    findings = []
    if head.size != size:
        findings.append(Finding(place, f"it is signed for {head.size} entries"))
    if note != Checkpoint(head.origin, size, head.root).body() + note[note.rfind("\n\n") + 1 :]:
        findings.append(Finding(place, "its text has more than origin, size and root"))
    return findings, head


class LogReader(NamedTuple):
    """The log as `verify_tiles` needs it: its size, ranges [start, end) of leaves and envelopes, subtrees' hashes."""

    size: int
    leaves: Callable[[int, int], list[bytes]]
    envelopes: Callable[[int, int], list[bytes]]
    nodes: Mapping[tuple[int, int], bytes]
    digests: Mapping[Tile, bytes] = MappingProxyType({})

    def digest(self, tile: Tile) -> bytes:
        """SHA-256 of what a tile must hold."""
        return self.digests.get(tile) or hashlib.sha256(self.content(tile)).digest()

    def content(self, tile: Tile) -> bytes:
        """What a tile must hold."""
        first = tile.number * WIDTH
        if tile.level == ENTRIES:
            return bundle_bytes(self.envelopes(first, first + tile.width))
        if tile.level == 0:
            return b"".join(self.leaves(first, first + tile.width))
        return tile_bytes(tile, lambda level, index: self.nodes[level, index])


def verify_tiles(log: LogReader, published: int, files: Iterable[tuple[str, bytes]]) -> list[Finding]:
    """Step 7: every file (path, SHA-256 of its bytes) against the log; `published` is the size that is checkpointed.

    Tiles beyond `published` may be there (a crash before the checkpoint file), those up to it must.
    """
    findings = []
    missing = {tile.path() for tile in tiles(published)}
    for path, digest in files:
        missing.discard(path)
        tile = parse_path(path)
        hashes = log.size >> (max(tile.level, 0) * HEIGHT) if tile else 0
        if tile is None or tile.number * WIDTH + tile.width > hashes:
            findings.append(Finding(path, "it is no file of this log"))
        elif digest != log.digest(tile):
            findings.append(Finding(path, "it does not hold what the log says"))
    # A partial tile may give way to the wider full one.
    findings += [Finding(path, "it is missing") for path in sorted(missing) if not _replaced(path, log.size)]
    return findings


def _replaced(path: str, size: int) -> bool:
    tile = parse_path(path)
    assert tile is not None
    return tile.width < WIDTH and (tile.number + 1) * WIDTH <= size >> (max(tile.level, 0) * HEIGHT)


def verify_records(
    source: RecordSource,
    cursor: Cursor,
    report: LogReport,
    entry_at: Callable[[int], Entry | None],
    current: Iterable[int],
    now_us: int,
    place: Callable[[int], str] = "entry {}".format,
) -> list[Finding]:
    """Steps 8 to 10. `current` are the indices of entries made under the source's present epoch.

    `place` names the entry at an index; `entry_at` gives the verified one there, or None for one that did not verify (a
    finding already).
    """
    findings: list[Finding] = []
    unseen = set(current)
    after = 0
    limit = cursor.id if cursor.epoch == source.epoch() else 0
    while batches := source.closed_batches(after, _PAGE):
        for batch in batches:
            index = report.roots.get(batch.records_root)
            if index is None:
                if batch.id <= limit and batch.records:  # (8)
                    findings.append(Finding(f"batch {batch.id}", "it has no entry"))
                continue
            unseen.discard(index)
            said = entry_at(index)
            if said is not None:
                findings += _batch_faults(batch, said, place(index))
                findings += _record_faults(source, batch, said, place(index), report.erased)
        after = batches[-1].id
    findings += [Finding(place(index), "its batch is not in the index") for index in sorted(unseen)]
    oldest = source.oldest_pending_us(limit)
    if oldest is not None and now_us - oldest > PENDING_LIMIT_US:  # (10)
        waited = (now_us - oldest) // 1_000_000
        findings.append(Finding("records", f"one has been waiting for its entry for {waited} s, more than 60"))
    return findings


def _batch_faults(batch: ClosedBatch, said: Entry, place: str) -> Iterator[Finding]:
    stated = {
        "type": (batch.type, said.type),
        "time": (batch.time_us, said.time_us),
        "purpose": (batch.purpose, said.purpose),
        "outcome": (batch.outcome, said.outcome),
        "actor": (Who(batch.actor_kind, batch.actor_tag, batch.role, batch.address_tag), said.who),
        "study": (batch.study_tag, said.study),
        "commitment": (batch.commitment, said.commitment),
        "body": (batch.body, said.body),
        "references": (batch.refs, said.refs),
    }
    for name, (closed, sealed) in stated.items():
        if closed != sealed:
            yield Finding(place, f"its {name} is not that of batch {batch.id}")


def _record_faults(
    source: RecordSource, batch: ClosedBatch, said: Entry, of: str, erased: set[bytes]
) -> Iterator[Finding]:
    place = f"batch {batch.id}"
    try:
        held = source.records(batch.id)
    except RecordUnreadable as error:
        yield Finding(place, f"its records cannot be read: {error.detail}")
        return
    if len(held) != batch.records:  # (9)
        yield Finding(place, f"{len(held)} records are held of {batch.records}")
    if merkle.root(item.leaf for item in held) != said.records_root:
        yield Finding(place, f"the root over its records is not that of {of}")
    for number, item in enumerate(held):
        where = f"{place} record {number}"
        if item.record is None:
            if said.study is None or said.study not in erased:
                yield Finding(where, "it cannot be opened, and there is no erase entry for its study")
            continue
        if record.leaf_hash(item.record) != item.leaf:
            yield Finding(where, "it does not hash to its leaf")
        try:
            record.decode(item.record)
        except CodecError as error:
            yield Finding(where, error.detail)
