"""Where many blocks lie at once: positions by CID, two hundred to a statement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from sqlalchemy import bindparam, select

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.model import BlockPosition

_AT_ONCE: Final = 200
_b = s.block.c
_NAMES: Final = tuple(f"c{number}" for number in range(_AT_ONCE))
_SOME: Final = sql(select(_b.cid, _b.pack, _b.offset, _b.length).where(_b.cid.in_([bindparam(n) for n in _NAMES])))


def positions_of(database: Database, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
    """The positions of those of the blocks that the index knows. Raises StorageFault."""
    found: dict[bytes, BlockPosition] = {}
    left = iter(blocks)
    while some := tuple(islice(left, _AT_ONCE)):
        values = dict.fromkeys(_NAMES, some[0]) | dict(zip(_NAMES, some, strict=False))
        found |= {row[0]: BlockPosition(*row) for row in database.rows(_SOME, values)}
    return found
