"""Trees of blocks: what a block links to, the order of a whole tree, and what two trees have in common. Pure.

The order is that of Kubo's `dag export`: depth first, links as the block holds them, each block at its first place
only; so the CAR of a tree is the same bytes wherever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final, Protocol

import cbor2

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.errors import ContentCorrupt
from bridge.model import Block

__all__ = ["Get", "links", "order", "shared", "walk"]

_LINK: Final = 42
Get = Callable[[bytes], bytes]
"""The verified block of a CID. Raises ContentMissing, ContentCorrupt."""


def links(cid: bytes, data: bytes) -> tuple[bytes, ...]:
    """The CIDs that a block links to, in its order: none of a raw one, tag 42 of dag-cbor, file nodes of dag-pb.

    Raises ContentCorrupt for a block that is not canonical dag-cbor, or no UnixFS file node of our layout.
    """
    codec, _ = cids.kind(cid)
    if codec == cids.RAW:
        return ()
    try:
        if codec == cids.DAG_PB:
            return tuple(child.cid for child in unixfs.decode_node(data))
        value = cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False)
        # Canonical but for the order of keys, which `_collect` asks for, in half the time; refuses cycles too (tag 29).
        if cbor2.dumps(value) != data:
            raise ValueError("not canonical dag-cbor")
        found: list[bytes] = []
        _collect(value, found)
        return tuple(found)
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise ContentCorrupt(f"block {cids.to_text(cid)} has no links to be read: {error}") from None


class Passed(Protocol):
    """CIDs that a walk has passed: a set, or `bridge.content.passed` where a tree may be of any size."""

    def add(self, cid: bytes, /) -> None:
        """Remember a CID."""

    def __contains__(self, cid: bytes, /) -> bool: ...


def order(
    root: bytes,
    get: Get,
    skip: Callable[[bytes], bool] = lambda cid: False,
    passed: Passed | None = None,
    told: Callable[[Sequence[bytes]], object] = lambda links: None,
) -> Iterator[tuple[bytes, bytes | None]]:
    """Every CID of the tree, in order, with the block where it had to be read; raw blocks are not, and come with None.

    `skip` says of which CIDs nothing is wanted, nor of what lies below them; `told` is told the links of each block
    that is read, before any of them is. What it has passed is kept in `passed` (an empty one), else in memory with
    about 100 bytes each; so are the links of the blocks above the one that it is at. Raises what `get` does, and
    ContentCorrupt as `links`.
    """
    seen = set() if passed is None else passed
    ahead = [iter((root,))]
    while ahead:
        cid = next(ahead[-1], None)
        if cid is None:
            ahead.pop()
            continue
        if cid in seen or skip(cid):
            continue
        seen.add(cid)
        codec, hash_code = cids.kind(cid)
        if hash_code == cids.IDENTITY:  # its own block, which nobody needs to hold
            data = cids.parse(cid).digest
        elif codec == cids.RAW:
            yield cid, None
            continue
        else:
            data = get(cid)
            yield cid, data
        below = links(cid, data)
        told(below)
        ahead.append(iter(below))


def walk(
    root: bytes, get: Get, skip: Callable[[bytes], bool] = lambda cid: False, passed: Passed | None = None
) -> Iterator[Block]:
    """Every block of the tree below `root`, in order, one at a time; the rest as of `order`."""
    for cid, data in order(root, get, skip, passed):
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
        cid = link[1:]
        cids.kind(cid)
        found.append(cid)
    elif isinstance(value, dict):
        if not _in_order(tuple(value)):
            raise ValueError("keys that are no text, or not in canonical order")
        for item in value.values():
            if type(item) not in _PLAIN:
                _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            if type(item) not in _PLAIN:
                _collect(item, found)
    elif type(value) not in _PLAIN:
        raise ValueError("a value outside the IPLD data model")


_PLAIN: Final = frozenset({bytes, str, int, bool, float, type(None)})


@lru_cache(16)  # few: a stranger's block may hold megabytes of keys
def _in_order(keys: tuple[object, ...]) -> bool:
    """Whether keys are text, in the canonical order of DAG-CBOR: the shorter first, then by their bytes."""
    texts = [key.encode() for key in keys if type(key) is str]
    return len(texts) == len(keys) and texts == sorted(texts, key=lambda text: (len(text), text))
