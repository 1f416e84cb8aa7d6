"""An archive of content without an index: real sealing, packs, manifest and engine, over a Kubo of its own or none."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bridge.config import Settings
from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.engine import each_of, open_content
from bridge.content.packs import PackStore
from bridge.content.pins import MemoryPins
from bridge.model import Block, BlockPosition, SealedObject, StudyTree
from bridge.services.sealed_object import BlockSink, SealedObjectReader, SealedObjectWriter

SYNC_AT_ONCE = 8 << 20  # bytes: what a few associations that send at once have between two synchronisations
METADATA = 2_000  # bytes of sealed metadata of an instance
ASSOCIATED = b"benchmark"
HASH: cids.HashName = "blake3"


class Sealed(NamedTuple):
    """A study that was sealed: its root, its sealed objects with the key of all, and bytes of plaintext."""

    root: bytes
    objects: tuple[SealedObject, ...]
    key: bytes
    size: int


class Archive:
    """Packs below a folder, with the engine over them that `api` (of Kubo's RPC) chooses; None is the embedded one.

    In the place of the index stands a table of where blocks lie, on disk, so that memory does not grow with it.
    """

    def __init__(self, home: Path, api: str | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._table = sqlite3.connect(home / "positions.db", check_same_thread=False, isolation_level=None)
        self._table.execute("PRAGMA synchronous = OFF")
        self._table.execute("PRAGMA journal_mode = MEMORY")
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS block(cid BLOB PRIMARY KEY, pack, offset, length) WITHOUT ROWID"
        )
        content = replace(Settings().content, engine="kubo" if api else "embedded")
        if api:
            content = replace(content, kubo=replace(content.kubo, api=api))
        settings = replace(Settings(), home=home, content=content)
        self.packs = PackStore(home, "benchmark", self._locate, committed_end=self._end)
        self.content = open_content(settings, self.packs, MemoryPins())

    def _locate(self, cid: bytes) -> BlockPosition | None:
        row = self._table.execute("SELECT * FROM block WHERE cid = ?", (cid,)).fetchone()
        return BlockPosition(*row) if row else None

    def _end(self, pack: int) -> int:
        row = self._table.execute("SELECT max(offset + length) FROM block WHERE pack = ?", (pack,)).fetchone()
        return row[0] or 0

    def placed(self, positions: Sequence[BlockPosition]) -> None:
        """Remember where blocks lie, as an index would."""
        self._table.executemany(
            "INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)", [(p.cid, p.pack, p.offset, p.length) for p in positions]
        )

    def seal(self, count: int, size: int, data: Callable[[int], bytes] = os.urandom) -> Sealed:
        """A study of `count` objects of `size` bytes, as the way in makes it: sealed, put, durable; the root last."""
        tag, key = os.urandom(16), os.urandom(32)
        objects: list[SealedObject] = []
        links: list[bytes] = []
        unsynced = 0
        for _ in range(count):
            sink = BlockSink(self.content)
            writer = SealedObjectWriter(sink, key, ASSOCIATED, HASH)
            for at in range(0, size, SYNC_AT_ONCE):
                writer.write(data(min(SYNC_AT_ONCE, size - at)))
            sealed = writer.finish()
            metadata = os.urandom(METADATA)
            meta = Block(cids.make(cids.RAW, metadata, HASH), metadata)
            sink.add(meta)
            encoded = manifest.encode_instance(
                manifest.InstanceBlock(tag, 0, os.urandom(16), sealed.root, meta.cid),
            )
            instance = Block(cids.make(cids.DAG_CBOR, encoded, HASH), encoded)
            sink.add(instance)
            sink.flush()
            self.placed(sink.positions)
            objects.append(sealed)
            links.append(instance.cid)
            unsynced += size
            if unsynced >= SYNC_AT_ONCE:
                self.content.sync()
                unsynced = 0
        growth = manifest.grow(StudyTree(tag, None, (), 0, tuple(links)), HASH)
        self.placed(self.content.put(growth.blocks))
        self.content.sync()
        return Sealed(growth.root, tuple(objects), key, count * size)

    def reader(self, study: Sealed, number: int, nodes: Callable[[bytes], bytes] | None = None) -> SealedObjectReader:
        """A reader of one object of a study, that has nothing yet, or the `nodes` above the leaves."""
        each = each_of(self.content)
        return SealedObjectReader(self.content, study.objects[number], study.key, ASSOCIATED, nodes, each)

    def close(self) -> None:
        """Release what is open."""
        self.content.close()
        self._table.close()


def stock(size: int) -> Callable[[int], bytes]:
    """Random bytes that are made beforehand and given out in other orders, so that making them costs no time."""
    pool = random.Random(size).randbytes(64 << 20)

    def some(length: int) -> bytes:
        at = random.randrange(len(pool) - length) if length < len(pool) else 0
        return pool[at : at + length]

    return some
