"""The shared log's database: the ledger's own, with what consensus decided beside it, all of it committed together.

The tables of `ledger.store` hold the entries of all members in the order of the consortium. Beside them lie

block            what each height with entries or evidence gave: its record, whose hash is the app hash
consensus_state  which was the last of them; state_row, the state after it, in pieces that are written when they change
outbox           this node's signed entries that wait for their block
linked           entries of this node whose batch was found again, after the disk of the log was lost
cosignature      members' lines for checkpoints of this log
evidence         what was proved against a member

An entry of another member has the batch `FOREIGN`; which closed batch it is of is known where it was made alone.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ledger import members
from ledger.engine import Sealed
from ledger.entry import leaf_hash
from ledger.errors import TreeMismatch
from ledger.members import Rows, State
from ledger.merkle import Frontier
from ledger.source import ClosedBatch, Cursor
from ledger.store import SCHEMA, SEGMENT, SEGMENTS, LedgerStore, StoredEntry

_SHARED: Final = (
    """CREATE TABLE block (
        height INTEGER PRIMARY KEY, first INTEGER NOT NULL, size INTEGER NOT NULL, time INTEGER NOT NULL,
        hash BLOB NOT NULL, record BLOB NOT NULL)""",
    "CREATE INDEX block_size ON block (size)",
    """CREATE TABLE consensus_state (
        id INTEGER PRIMARY KEY CHECK (id = 1), height INTEGER NOT NULL, app_hash BLOB NOT NULL)""",
    """CREATE TABLE state_row (
        kind TEXT NOT NULL, key BLOB NOT NULL, row BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID""",
    "CREATE TABLE linked (id INTEGER PRIMARY KEY, idx INTEGER NOT NULL)",
    """CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY, leaf BLOB NOT NULL, root BLOB NOT NULL, envelope BLOB NOT NULL,
        epoch BLOB NOT NULL, batch INTEGER NOT NULL, records INTEGER NOT NULL)""",
    """CREATE TABLE cosignature (
        size INTEGER NOT NULL, name TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY (size, name)) WITHOUT ROWID""",
    """CREATE TABLE evidence (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, node BLOB NOT NULL, height INTEGER NOT NULL, time INTEGER NOT NULL,
        detail BLOB NOT NULL, UNIQUE (kind, node, height))""",
    """CREATE TABLE snapshot (
        height INTEGER PRIMARY KEY, size INTEGER NOT NULL, record BLOB NOT NULL, state BLOB NOT NULL)""",
)
# Roots are chosen by whoever signs: two members may have sealed the same one, and only own batches have a number.
_OWN_INDEXES: Final = {
    "CREATE UNIQUE INDEX entries_root": "CREATE INDEX entries_root",
    "ON entries (epoch, batch)": "ON entries (epoch, batch) WHERE epoch <> x''",
}
_BY_NODE: Final = "CREATE UNIQUE INDEX entries_node ON entries (node, seq)"


def _adapted(statement: str) -> str:
    for text, other in _OWN_INDEXES.items():
        statement = statement.replace(text, other)
    return statement


class StoredBlock(NamedTuple):
    """A decided block that left something: entries of indices [first, size), or evidence alone.

    `time_ns` is CometBFT's block time in nanoseconds since the epoch, to the microsecond; `hash`, SHA-256 of `record`,
    is the app hash.
    """

    height: int
    first: int
    size: int
    time_ns: int
    hash: bytes
    record: bytes


class Consensus(NamedTuple):
    """What was committed last: height 0, no app hash and no state before the first block."""

    height: int
    app_hash: bytes
    rows: Rows

    def state(self) -> State | None:
        """The members' state; None before the first block. Raises CodecError when it is damaged."""
        return members.of_rows(self.rows) if self.height else None


class Waiting(NamedTuple):
    """An entry of this node that waits for its block, with the batch that it is of."""

    sequence: int
    leaf: bytes
    root: bytes
    envelope: bytes
    epoch: bytes
    batch: int
    records: int

    @property
    def of(self) -> Cursor:
        """The closed batch; FOREIGN when the engine made the entry itself."""
        return Cursor(self.epoch, self.batch)


class Proved(NamedTuple):
    """Evidence against a member: a kind ("double-sign", "equivocation", ...), its node id, height, time, and detail."""

    kind: str
    node: bytes
    height: int
    time_ns: int
    detail: bytes


class Commit(NamedTuple):
    """What one block changes: its row, its entries, the tree after it, and those pieces of the state that it changed.

    `superseded`: this node has other entries at the places of those in its outbox, which is emptied. `snapshot`: the
    whole state, encoded, when others may start from it.
    """

    block: StoredBlock
    rows: Sequence[StoredEntry]
    frontier: Frontier
    state: Rows
    evidence: Sequence[Proved] = ()
    superseded: bool = False
    snapshot: bytes | None = None


SNAPSHOTS: Final = 4
"""States that are kept for others to start from."""


class BlockStore(LedgerStore):
    """The shared log's database at `path`. Errors as `LedgerStore`.

    Several threads of one process work with it: each holds `mutex` while it reads several things that belong together,
    and `writing` takes it.
    """

    VERSION, READ = 4, frozenset({4})

    def __init__(self, path: Path, readonly: bool = False) -> None:
        self.mutex = threading.RLock()
        self._counted = 0, 0  # up to which size entries were counted that are of a known batch, and how many there are
        super().__init__(path, readonly)

    @classmethod
    def statements(cls) -> tuple[str, ...]:
        """What makes the tables and indexes of a new database."""
        return (*map(_adapted, SCHEMA), _BY_NODE, *_SHARED)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """As `LedgerStore.writing`, and alone among the threads of this process."""
        with self.mutex, super().writing():
            yield

    def consensus(self) -> Consensus:
        """Height, app hash and state after the last block that left something."""
        with self.mutex:
            # In one statement, for a reader may have no transaction.
            found = self._all("SELECT height, app_hash, kind, key, row FROM consensus_state LEFT JOIN state_row")
        rows = {(kind, key): row for _, _, kind, key, row in found if kind is not None}
        return Consensus(found[0][0], found[0][1], rows) if found else Consensus(0, b"", rows)

    def commit_block(self, commit: Commit, note: str | None) -> None:
        """ONE transaction: entries, frontier, checkpoint, block record, state; own entries leave the outbox.

        Raises TreeMismatch when the rows do not continue the log. Under `writing`.
        """
        block = commit.block
        with self._transaction() as execute:
            self._grow(execute, commit.rows, commit.frontier, note)
            execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)", block)
            self._decided(execute, block, commit.state)
            for proved in commit.evidence:
                execute(_EVIDENCE, proved)
            if commit.superseded:
                _supersede(execute)
            else:
                execute("DELETE FROM outbox WHERE leaf IN (SELECT leaf FROM entries WHERE idx >= ?)", (block.first,))
            if commit.snapshot is not None:
                values = (block.height, block.size, block.record, commit.snapshot)
                execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", values)
                execute(_OLD_SNAPSHOTS, (SNAPSHOTS,))

    def put(self, entries: Sequence[Sealed], cursor: Cursor) -> None:
        """ONE transaction: entries of this node to the outbox, the cursor behind their batches. Under `writing`."""
        with self._transaction() as execute:
            for one in entries:
                said, envelope = one.entry, one.envelope
                values = (said.sequence, leaf_hash(envelope), said.records_root, envelope, *one.batch, one.records)
                execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            execute("UPDATE state SET epoch = ?, batch = ?", (*cursor,))

    def supersede(self) -> None:
        """Empty the outbox; all batches are to be sealed again. Under `writing`."""
        with self._transaction() as execute:
            _supersede(execute)

    def outbox(self, limit: int = -1, first: int = 0) -> list[Waiting]:
        """This node's entries that wait, in order, from a sequence on; at most `limit`."""
        sql = "SELECT * FROM outbox WHERE sequence >= ? ORDER BY sequence LIMIT ?"
        with self.mutex:
            return list(map(Waiting._make, self._all(sql, first, limit)))

    def waiting(self) -> int:
        """How many of this node's entries wait for their block."""
        with self.mutex:
            return int(self._one("SELECT count(*) FROM outbox")[0])

    def waiting_at(self, *, leaf: bytes | None = None, root: bytes | None = None) -> Waiting | None:
        """The entry that waits with this leaf hash (its id), or over this records root."""
        column, value = ("leaf", leaf) if leaf is not None else ("root", root)
        with self.mutex:
            found = self._one(f"SELECT * FROM outbox WHERE {column} = ?", value)
        return Waiting(*found) if found else None

    def last_waiting(self) -> Waiting | None:
        """The newest of this node's entries that wait."""
        with self.mutex:
            found = self._one("SELECT * FROM outbox ORDER BY sequence DESC LIMIT 1")
        return Waiting(*found) if found else None

    def tip_of(self, node: bytes) -> tuple[int, bytes] | None:
        """Sequence and envelope of a node's last entry in the log; None when it has none."""
        with self.mutex:
            found = self._one("SELECT seq, envelope FROM entries WHERE node = ? ORDER BY seq DESC LIMIT 1", node)
        return (found[0], found[1]) if found else None

    def count_of(self, node: bytes) -> int:
        """How many entries of a node the log holds."""
        with self.mutex:
            return int(self._one("SELECT count(*) FROM entries WHERE node = ?", node)[0])

    def entry_of(self, node: bytes, sequence: int) -> StoredEntry | None:
        """A node's entry by its sequence; None when it is not in the log."""
        with self.mutex:
            found = self._one("SELECT idx FROM entries WHERE node = ? AND seq = ?", node, sequence)
            return self.entry(found[0]) if found else None

    def entry_over(self, root: bytes, node: bytes) -> StoredEntry | None:
        """A node's entry over a records root; None when it is not in the log."""
        sql = f"{SEGMENTS} SELECT idx FROM segment CROSS JOIN entries ON {SEGMENT} = number AND root = ? AND node = ?"
        with self.mutex:
            found = self._one(sql, root, node)
            return self.entry(found[0]) if found else None

    def cosigned_sizes(self, least: int) -> Iterator[tuple[int, frozenset[str]]]:
        """The sizes, from the largest down to `least`, whose checkpoints others cosigned, and who did, by name."""
        below = 1 << 62
        while True:
            with self.mutex:
                found = self._one("SELECT max(size) FROM cosignature WHERE size < ? AND size >= ?", below, least)
            if found is None or found[0] is None:
                return
            below = int(found[0])
            yield below, frozenset(self.cosignatures(below))

    def own_sealed(self, roots: Sequence[bytes], node: bytes) -> set[bytes]:
        """Those of the records roots that this node has an entry over, in the log or waiting; at most thousands."""
        marks = ", ".join("?" * len(roots))
        sql = f"""{SEGMENTS} SELECT root FROM segment
                  CROSS JOIN entries ON {SEGMENT} = number AND root IN ({marks}) AND node = ?"""
        with self.mutex:
            held = self._all(sql, *roots, node)
            waiting = self._all(f"SELECT root FROM outbox WHERE root IN ({marks})", *roots)
        return {root for (root,) in (*held, *waiting)}

    def unlinked(self, node: bytes) -> int:
        """How many of this node's entries are of a batch that is not known here: its disk was lost, and is restored."""
        with self.mutex:
            tip, size = self.tip_of(node), self.size()
            counted, known = self._counted
            if counted:  # what is added is looked at alone
                known += int(self._one("SELECT count(*) FROM entries WHERE idx >= ? AND +epoch <> x''", counted)[0])
            else:
                known = int(self._one("SELECT count(*) FROM entries WHERE epoch <> x''")[0])
            self._counted = size, known
        return 0 if tip is None else tip[0] - known  # the first entry is of no batch

    def link(self, batches: Sequence[ClosedBatch], epoch: bytes, node: bytes) -> int:
        """ONE transaction: this node's entries over the records of these batches get them, unless one has; how many.

        Under `writing`.
        """
        of = {batch.records_root: batch for batch in batches}
        marks = ", ".join("?" * len(of))
        sql = f"""{SEGMENTS} SELECT idx, root FROM segment CROSS JOIN entries
                  ON {SEGMENT} = number AND root IN ({marks}) AND node = ? AND epoch = x'' ORDER BY idx"""
        linked, self._counted = 0, (0, 0)
        found = self._all(sql, *of, node)
        with self._transaction() as execute:
            for idx, root in found:
                values = (epoch, of[root].id, of[root].records, idx)
                if execute(_LINK, values).rowcount:
                    linked += execute("INSERT INTO linked (idx) VALUES (?)", (idx,)).rowcount
        return linked

    def linked(self, after: int, limit: int) -> list[tuple[int, StoredEntry]]:
        """Entries that got their batch again, in the order in which they did, each with its number in it from 1 on."""
        with self.mutex:
            found = self._all("SELECT id, idx FROM linked WHERE id > ? ORDER BY id LIMIT ?", after, limit)
            held = [(number, self.entry(idx)) for number, idx in found]
        return [(number, stored) for number, stored in held if stored is not None]

    def newest_linked(self) -> int:
        """How many entries got their batch again."""
        with self.mutex:
            return int(self._one("SELECT coalesce(max(id), 0) FROM linked")[0])

    def sealed_otherwise(self, node: bytes, epoch: bytes) -> bool:
        """Whether this node has entries over batches of another epoch, not known any more, or behind the cursor."""
        other = """SELECT 1 FROM entries WHERE epoch <> x'' AND epoch < ? UNION ALL
                   SELECT 1 FROM entries WHERE epoch <> x'' AND epoch > ? UNION ALL
                   SELECT 1 FROM outbox WHERE epoch <> x'' AND epoch <> ? LIMIT 1"""
        with self.mutex:
            if self._one(other, epoch, epoch, epoch) is not None or self._one(_BEHIND, epoch) is not None:
                return True
        return self.unlinked(node) > 0

    def blocks(self, after: int = 0, limit: int = 100) -> list[StoredBlock]:
        """At most `limit` blocks of heights above `after`, ascending."""
        sql = "SELECT * FROM block WHERE height > ? ORDER BY height LIMIT ?"
        with self.mutex:
            return list(map(StoredBlock._make, self._all(sql, after, limit)))

    def blocks_from(self, number: int, limit: int) -> list[StoredBlock]:
        """At most `limit` blocks in the order of heights, from the one that so many came before."""
        sql = "SELECT * FROM block ORDER BY height LIMIT ? OFFSET ?"
        with self.mutex:
            return list(map(StoredBlock._make, self._all(sql, limit, number)))

    def blocks_until(self, height: int) -> int:
        """How many blocks of heights up to this one left something."""
        with self.mutex:
            return int(self._one("SELECT count(*) FROM block WHERE height <= ?", height)[0])

    def block_of(self, index: int) -> StoredBlock | None:
        """The block in which the entry at an index of the log was decided."""
        with self.mutex:
            found = self._one("SELECT * FROM block WHERE size > ? ORDER BY size, height LIMIT 1", index)
        return StoredBlock(*found) if found else None

    def blocks_of(self, start: int, end: int) -> list[StoredBlock]:
        """The blocks in which the entries of indices [start, end) were decided, ascending."""
        sql = "SELECT * FROM block WHERE size > ? AND first < ? AND size > first ORDER BY size"
        with self.mutex:
            return list(map(StoredBlock._make, self._all(sql, start, end)))

    def block_at(self, height: int) -> StoredBlock | None:
        """The newest block up to a height that left something: its hash is the app hash after that height."""
        with self.mutex:
            found = self._one("SELECT * FROM block WHERE height <= ? ORDER BY height DESC LIMIT 1", height)
        return StoredBlock(*found) if found else None

    def cosignatures(self, size: int) -> dict[str, str]:
        """Members' lines for the checkpoint of a size, by the name of the key."""
        with self.mutex:
            return dict(self._all("SELECT name, line FROM cosignature WHERE size = ? ORDER BY name", size))

    def newest_cosigners(self, limit: int) -> list[tuple[int, str]]:
        """Size and name of the newest lines of members, the largest sizes first."""
        with self.mutex:
            return self._all("SELECT size, name FROM cosignature ORDER BY size DESC, name LIMIT ?", limit)

    def add_cosignature(self, size: int, name: str, line: str) -> None:
        """Keep a member's line, which was verified; takes the writers' lock."""
        with self.writing(), self._transaction() as execute:
            execute("INSERT OR REPLACE INTO cosignature VALUES (?, ?, ?)", (size, name, line))

    def evidence(self) -> list[Proved]:
        """All that was proved against members, in order."""
        with self.mutex:
            return list(map(Proved._make, self._all(f"SELECT {_PROVED} FROM evidence ORDER BY id")))

    def add_evidence(self, proved: Proved) -> bool:
        """Keep evidence that is not of a block; False when it is held already. Takes the writers' lock."""
        with self.writing(), self._transaction() as execute:
            return execute(_EVIDENCE, proved).rowcount > 0

    def snapshots(self) -> list[tuple[int, int, bytes, bytes]]:
        """Height, size, block record and state of what others may start from, newest first."""
        with self.mutex:
            return self._all("SELECT height, size, record, state FROM snapshot ORDER BY height DESC")

    def oldest_snapshot(self) -> int:
        """The height of the oldest of `snapshots`; 0 when there is none."""
        with self.mutex:
            return int(self._one("SELECT min(height) FROM snapshot")[0] or 0)

    def grow_unfinished(self, rows: Sequence[StoredEntry], blocks: Sequence[StoredBlock], frontier: Frontier) -> None:
        """Entries and blocks of a snapshot that is being taken in, one transaction; no state yet. Under `writing`."""
        with self._transaction() as execute:
            self._grow(execute, rows, frontier, None)
            for block in blocks:
                execute("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)", block)

    def finish_snapshot(self, block: StoredBlock, state: State, note: str | None, node: bytes) -> None:
        """The state that belongs to what `grow_unfinished` has taken in; one transaction. Under `writing`.

        When this node (`node`) has other entries there than in its outbox, that is emptied.
        """
        self._counted = 0, 0
        with self._transaction() as execute:
            if self.size() != block.size:
                raise TreeMismatch(f"the snapshot is of {block.size} entries, {self.size()} are there", "snapshot")
            execute("DELETE FROM state_row")
            self._decided(execute, block, members.rows(state))
            if note is not None:
                execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?)", (block.size, note))
            tip = self.tip_of(node)
            for sequence, leaf in execute("SELECT sequence, leaf FROM outbox ORDER BY sequence").fetchall():
                if tip is None or sequence > tip[0]:
                    break
                if self.find(leaf=leaf) is None:
                    _supersede(execute)
                    break
                execute(_LINK_WAITING, (sequence,))
                execute("DELETE FROM outbox WHERE sequence = ?", (sequence,))

    def _decided(self, execute: Callable[..., sqlite3.Cursor], block: StoredBlock, state: Rows) -> None:
        execute("INSERT OR REPLACE INTO consensus_state VALUES (1, ?, ?)", (block.height, block.hash))
        rows = ((*key, row) for key, row in state.items())
        self._connection.executemany("INSERT OR REPLACE INTO state_row VALUES (?, ?, ?)", rows)

    def drop_unfinished(self) -> None:
        """Forget what of a snapshot was taken in when it was not finished. Under `writing`."""
        height, *_ = self._one("SELECT height FROM consensus_state") or (0,)
        found = self._one("SELECT size FROM block WHERE height = ?", height) if height else (0,)
        size = int(found[0])
        if self.size() == size and self._one("SELECT max(height) FROM block")[0] in (None, height):
            return
        frontier, self._counted = Frontier(), (0, 0)
        for leaf in self.leaves(0, size):
            frontier.append(leaf)
        with self._transaction() as execute:
            execute("DELETE FROM entries WHERE idx >= ?", (size,))
            execute("DELETE FROM block WHERE height > ?", (height,))
            execute("UPDATE state SET size = ?, frontier = ?", (size, b"".join(frontier.hashes)))


def _supersede(execute: Callable[..., sqlite3.Cursor]) -> None:
    """What waits was signed by a node that did not know its own entries: its batches are to be sealed again."""
    execute("DELETE FROM outbox")
    execute("UPDATE state SET epoch = x'', batch = 0")


_BEHIND: Final = """SELECT 1 FROM entries WHERE epoch = ?1 AND batch > (
    SELECT CASE WHEN epoch = ?1 THEN batch ELSE 0 END FROM state) LIMIT 1"""
_LINK: Final = "UPDATE OR IGNORE entries SET epoch = ?, batch = ?, records = ? WHERE idx = ?"
_LINK_WAITING: Final = f"""{SEGMENTS} UPDATE OR IGNORE entries SET (epoch, batch, records) = (
    SELECT epoch, batch, records FROM outbox WHERE sequence = ?1) WHERE idx = (
    SELECT idx FROM segment CROSS JOIN entries ON {SEGMENT} = number AND leaf = (
        SELECT leaf FROM outbox WHERE sequence = ?1))"""
_OLD_SNAPSHOTS: Final = """DELETE FROM snapshot
    WHERE height <= (SELECT height FROM snapshot ORDER BY height DESC LIMIT 1 OFFSET ?)"""
_PROVED: Final = "kind, node, height, time, detail"
_EVIDENCE: Final = f"INSERT OR IGNORE INTO evidence ({_PROVED}) VALUES (?, ?, ?, ?, ?)"
