"""Trees of blocks: what a block links to, the order of a whole tree, and what two trees have in common. Pure.

The order is that of Kubo's `dag export`: depth first, links as the block holds them, each block at its first place
only; so the CAR of a tree is the same bytes wherever it is made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

import cbor2

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.errors import ContentCorrupt
from bridge.model import Block

__all__ = ["Get", "links", "order", "shared", "walk"]

_IN_MEMORY: Final = 8192  # CIDs of about 36 bytes
_LINK: Final = 42
Get = Callable[[bytes], bytes]
"""The verified block of a CID. Raises ContentMissing, ContentCorrupt."""


def links(cid: bytes, data: bytes) -> tuple[bytes, ...]:
    """The CIDs that a block links to, in its order: none of a raw one, tag 42 of dag-cbor, file nodes of dag-pb.

    Raises ContentCorrupt for a block that is not canonical dag-cbor, or no UnixFS file node of our layout.
    """
    codec = cids.parse(cid).codec
    if codec == cids.RAW:
        return ()
    try:
        if codec == cids.DAG_PB:
            return tuple(child.cid for child in unixfs.decode_node(data))
        value = cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False)
        if cbor2.dumps(value, canonical=True) != data:  # refuses cycles too (tag 29)
            raise ValueError("not canonical dag-cbor")
        found: list[bytes] = []
        _collect(value, found)
        return tuple(found)
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise ContentCorrupt(f"block {cids.to_text(cid)} has no links to be read: {error}") from None


class _Passed:
    """CIDs that a walk has passed: the first some thousands in memory, all of them in a temporary file when there are
    more, so that memory stays the same whatever the tree's size."""

    def __init__(self) -> None:
        self._few: set[bytes] = set()
        self._many: sqlite3.Connection | None = None

    def add(self, cid: bytes) -> None:
        self._few.add(cid)
        if len(self._few) < _IN_MEMORY:
            return
        if self._many is None:
            self._many = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # goes with the connection
            self._many.execute("CREATE TABLE passed (cid BLOB PRIMARY KEY) WITHOUT ROWID")
            self._many.execute("BEGIN")
        self._many.executemany("INSERT INTO passed VALUES (?)", ((each,) for each in self._few))
        self._few.clear()

    def __contains__(self, cid: bytes) -> bool:
        if cid in self._few or self._many is None:
            return cid in self._few
        return self._many.execute("SELECT 1 FROM passed WHERE cid = ?", (cid,)).fetchone() is not None


def order(
    root: bytes, get: Get, skip: Callable[[bytes], bool] = lambda cid: False
) -> Iterator[tuple[bytes, bytes | None]]:
    """Every CID of the tree, in order, with the block where it had to be read; raw blocks are not, and come with None.

    `skip` says of which CIDs nothing is wanted, nor of what lies below them. Holds about two megabytes at most, and the
    links of the blocks above the one that it is at. Raises what `get` does, and ContentCorrupt as `links`.
    """
    seen = _Passed()
    ahead = [iter((root,))]
    while ahead:
        cid = next(ahead[-1], None)
        if cid is None:
            ahead.pop()
            continue
        if cid in seen or skip(cid):
            continue
        seen.add(cid)
        parts = cids.parse(cid)
        if parts.hash == cids.IDENTITY:  # its own block, which nobody needs to hold
            data = parts.digest
        elif parts.codec == cids.RAW:
            yield cid, None
            continue
        else:
            data = get(cid)
            yield cid, data
        ahead.append(iter(links(cid, data)))


def walk(root: bytes, get: Get, skip: Callable[[bytes], bool] = lambda cid: False) -> Iterator[Block]:
    """Every block of the tree below `root`, in order, one at a time; `skip`, memory and errors as `order`."""
    for cid, data in order(root, get, skip):
        yield Block(cid, get(cid) if data is None else data)


def shared(root: bytes, other: bytes, get: Get) -> set[bytes]:
    """CIDs that lie in both trees at the same depth, nothing below them; all that lies below those is common too.

    Compares level by level and reads only what differs: two states of a study cost two roots, their last pages and the
    instance blocks that are new. Raises what `get` does, and ContentCorrupt as `links`.
    """
    common: set[bytes] = set()
    mine, theirs = {root}, {other}
    while mine and theirs:
        both = mine & theirs
        common |= both
        mine, theirs = _below(mine - both, get), _below(theirs - both, get)
    return common


def _below(level: set[bytes], get: Get) -> set[bytes]:
    found: set[bytes] = set()
    for cid in level:
        parts = cids.parse(cid)
        if parts.codec != cids.RAW:
            found.update(links(cid, parts.digest if parts.hash == cids.IDENTITY else get(cid)))
    return found


def _collect(value: object, found: list[bytes]) -> None:
    """The links in a decoded value (IPLD data model), in the order in which the block holds them."""
    if isinstance(value, cbor2.CBORTag):
        link = value.value
        if value.tag != _LINK or type(link) is not bytes or link[:1] != b"\0":
            raise ValueError("a tag that is no link")
        cids.parse(link[1:])
        found.append(link[1:])
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise ValueError("a key that is no text")
            _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)
    elif value is not None and type(value) not in (bytes, str, int, bool, float):
        raise ValueError("a value outside the IPLD data model")
