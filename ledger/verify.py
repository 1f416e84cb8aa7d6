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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ledger import checkpoint, entry, keys, merkle, record
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
    the entry over each records root; `erased` the tags of studies that have an erase entry.
    """

    findings: list[Finding] = field(default_factory=list)
    frontier: merkle.Frontier = field(default_factory=merkle.Frontier)
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    roots: dict[bytes, int] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)


#: Told of each envelope in order with the entry in it (None when it does not verify).
Visitor = Callable[[int, bytes, Entry | None], None]


def verify_log(
    envelopes: Iterable[bytes], checkpoints: Iterable[tuple[int, str]], trust: Trust, visit: Visitor | None = None
) -> LogReport:
    """Steps 1 to 6 over every envelope of a log in order and its stored (size, checkpoint), ascending."""
    report = LogReport()
    waiting = iter(checkpoints)
    newest = -1
    due = next(waiting, None)
    key = keys.verifier(trust.key)
    sequence, previous = 0, entry.GENESIS

    def check_due() -> None:  # (5)
        nonlocal due, newest
        while due is not None and due[0] <= report.frontier.size:
            newest = due[0]
            report.findings += verify_checkpoint(due[1], trust, report.frontier, due[0])
            due = next(waiting, None)

    check_due()
    for index, envelope in enumerate(envelopes):
        place = f"entry {index}"
        said: Entry | None = None
        try:
            said = entry.open(envelope, key)  # (1)
        except LedgerError as error:
            report.findings.append(Finding(place, error.detail))
        if said is not None:
            report.findings += [Finding(place, what) for what in _chain_faults(said, trust, sequence, previous)]
            other = report.roots.setdefault(said.records_root, index)  # (4)
            if other != index:
                report.findings.append(Finding(place, f"it is over the same records as entry {other}"))
            if said.type == "study.erase" and said.study is not None:
                report.erased.add(said.study)
        sequence, previous = (said.sequence if said is not None else sequence) + 1, entry.envelope_hash(envelope)
        report.frontier.append(entry.leaf_hash(envelope), lambda *node: _keep_node(report.nodes, *node))  # (5)
        check_due()
        if visit:
            visit(index, envelope, said)
    if due is not None:
        report.findings.append(Finding(f"checkpoint {due[0]}", f"the log holds only {report.frontier.size} entries"))
    elif newest != report.frontier.size:  # (6)
        report.findings.append(Finding("checkpoint", f"none is of all {report.frontier.size} entries"))
    return report


def _chain_faults(said: Entry, trust: Trust, sequence: int, previous: bytes) -> Iterator[str]:
    if said.ledger != trust.ledger:  # (2)
        yield "it names another ledger"
    if said.node != trust.node:
        yield "it names another node"
    if said.sequence != sequence:  # (3)
        yield f"its sequence is {said.sequence}, not {sequence}"
    if said.previous != previous:
        yield "it does not name the entry before it"


def _keep_node(nodes: dict[tuple[int, int], bytes], level: int, index: int, value: bytes) -> None:
    if level and level % HEIGHT == 0:
        nodes[level, index] = value


def verify_checkpoint(note: str, trust: Trust, frontier: merkle.Frontier, size: int) -> list[Finding]:
    """Whether a signed checkpoint is of this log at this size (step 5)."""
    place = f"checkpoint {size}"
    try:
        head = checkpoint.verify(note, trust.origin, trust.key)
    except LedgerError as error:
        return [Finding(place, error.detail)]
    findings = []
    if head.size != size:
        findings.append(Finding(place, f"it is signed for {head.size} entries"))
    elif head.root != frontier.root():
        findings.append(Finding(place, "its root is not that of the entries"))
    if note != checkpoint.Checkpoint(trust.origin, size, head.root).body() + note[note.rfind("\n\n") + 1 :]:
        findings.append(Finding(place, "its text has more than origin, size and root"))
    return findings


class LogReader(NamedTuple):
    """The log as `verify_tiles` needs it: its size, ranges [start, end) of leaves and envelopes, subtrees' hashes."""

    size: int
    leaves: Callable[[int, int], list[bytes]]
    envelopes: Callable[[int, int], list[bytes]]
    nodes: Mapping[tuple[int, int], bytes]

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
        elif digest != hashlib.sha256(log.content(tile)).digest():
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
) -> list[Finding]:
    """Steps 8 to 10. `current` are the indices of entries made under the source's present epoch.

    `entry_at` gives the verified entry at an index, or None for one that did not verify (a finding already).
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
                findings += _batch_faults(batch, said, index)
                findings += _record_faults(source, batch, said, index, report.erased)
        after = batches[-1].id
    findings += [Finding(f"entry {index}", "its batch is not in the index") for index in sorted(unseen)]
    oldest = source.oldest_pending_us(limit)
    if oldest is not None and now_us - oldest > PENDING_LIMIT_US:  # (10)
        waited = (now_us - oldest) // 1_000_000
        findings.append(Finding("records", f"one has been waiting for its entry for {waited} s, more than 60"))
    return findings


def _batch_faults(batch: ClosedBatch, said: Entry, index: int) -> Iterator[Finding]:
    stated = {
        "type": (batch.type, said.type),
        "time": (batch.time_us, said.time_us),
        "purpose": (batch.purpose, said.purpose),
        "outcome": (batch.outcome, said.outcome),
        "actor": (Who(batch.actor_kind, batch.actor_tag, batch.role, batch.address_tag), said.who),
        "study": (batch.study_tag, said.study),
        "commitment": (batch.commitment, said.commitment),
    }
    for name, (closed, sealed) in stated.items():
        if closed != sealed:
            yield Finding(f"entry {index}", f"its {name} is not that of batch {batch.id}")


def _record_faults(
    source: RecordSource, batch: ClosedBatch, said: Entry, index: int, erased: set[bytes]
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
        yield Finding(place, f"the root over its records is not that of entry {index}")
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
