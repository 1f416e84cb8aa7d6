"""Backups of packs that the spool no longer has: their blocks come from the content engine.

Such a pack is made again in the backup, as a pack of the blocks that could be had, one after another; where each lies
in it is found by reading it, when it is restored.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path

from bridge.content import car
from bridge.content import cid as cids
from bridge.content.pack_format import HEADER, pack_path, sync_directory
from bridge.content.scan import rebuild
from bridge.errors import IntegrityError

__all__ = ["is_copy", "make_again", "take_back", "trimmed"]

Report = Callable[[str], None]
Get = Callable[[bytes], bytes]
# What a tree still needs; former pages and roots, and copies that were healed since, are nobody's loss.
_NEEDED = (
    "(instance IS NOT NULL AND NOT superseded)"
    " OR cid IN (SELECT root FROM tree WHERE root IS NOT NULL) OR cid IN (SELECT cid FROM study_page)"
)


def trimmed(index: Path) -> dict[int, int]:
    """The packs that an index database says were trimmed, and when; none for one that is not there or a former one."""
    if not index.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'trimmed'").fetchall():
            return {}
        return dict(connection.execute("SELECT pack, at FROM trimmed"))


def is_copy(index: Path, pack: Path, number: int) -> bool:
    """Whether a pack file is the one that an index means: the last block that it knows there lies where it says.

    An index that was made anew has its own pack of that number.
    """
    query = 'SELECT cid, "offset", length FROM block WHERE pack = ? ORDER BY "offset" DESC LIMIT 1'
    with contextlib.closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        row = connection.execute(query, (number,)).fetchone()
    if row is None or not pack.exists():
        return False
    cid, offset, length = row
    head = car.section_head(cid, length)
    with pack.open("rb") as file:
        file.seek(max(offset - len(head), 0))
        return file.read(len(head)) == head and pack.stat().st_size >= offset + length


def make_again(index: Path, packs: Path, number: int, get: Get, report: Report) -> int:
    """Make the pack of a number in `packs` of all its blocks that `get` gives; its size in bytes.

    Needed blocks that nobody has are told, and left out. Raises EngineFault when the engine does not answer, OSError.
    """
    target = pack_path(packs, number)
    fresh = target.with_name(target.name + ".new")
    query = f'SELECT cid, {_NEEDED} FROM block WHERE pack = ? ORDER BY "offset"'
    with (
        contextlib.closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection,
        fresh.open("wb") as writing,
    ):
        writing.write(HEADER)
        for cid, needed in connection.execute(query, (number,)):
            try:
                data = get(cid)
            except IntegrityError as error:
                if needed:
                    report(f"pack {target.name}, block {cids.to_text(cid)}: {error.detail}")
                continue
            writing.write(car.section_head(cid, len(data)))
            writing.write(data)
        writing.flush()
        os.fsync(writing.fileno())
        size = writing.tell()
    fresh.replace(target)
    sync_directory(packs)
    return size


def take_back(index: Path, packs: Path, made_again: Collection[int]) -> None:
    """Tell an index that is being restored where the blocks of packs `made_again` lie, and that no pack there is gone.

    Blocks that a tree needs and that are not there stay as they were, for fsck to find. Raises sqlite3.Error, OSError.
    """
    there = {number for number in trimmed(index) if pack_path(packs, number).exists()}
    if not there and not made_again:
        return
    with contextlib.closing(sqlite3.connect(index, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute('CREATE TEMP TABLE found (cid BLOB PRIMARY KEY, "offset" INTEGER, length INTEGER)')
        for number in made_again:
            connection.execute("DELETE FROM temp.found")
            places = ((place.cid, place.offset, place.length) for place in rebuild(pack_path(packs, number)))
            connection.executemany("INSERT OR REPLACE INTO temp.found VALUES (?, ?, ?)", places)
            connection.execute(
                f"DELETE FROM block WHERE pack = ? AND cid NOT IN (SELECT cid FROM temp.found) AND NOT ({_NEEDED})",
                (number,),
            )
            connection.execute(
                'UPDATE block SET "offset" = found."offset", length = found.length FROM temp.found AS found'
                " WHERE block.pack = ? AND found.cid = block.cid",
                (number,),
            )
        connection.executemany("DELETE FROM trimmed WHERE pack = ?", [(number,) for number in there])
        connection.execute("COMMIT")
