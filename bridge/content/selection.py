"""Which blocks a CAR of the trustless gateway holds: path, dag-scope and entity-bytes. Pure.

After the IPFS "Trustless Gateway Specification": the blocks that a path passes come first, then those that its end's
scope asks for, depth first, none twice unless that is asked for; identity CIDs never have a block of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import cbor2

from bridge.content import cid as cids
from bridge.content import dag, unixfs
from bridge.errors import ContentCorrupt, NotFound, RequestError
from bridge.model import Block

__all__ = ["Place", "Scope", "Span", "blocks", "is_whole", "nothing_there", "order", "range_of", "resolve"]

Scope = Literal["block", "entity", "all"]
Span = tuple[int, int | None]
"""entity-bytes: the first and the last byte, both included; negative ones count from the end, None is the end."""
_LINK: Final = 42


class Place(NamedTuple):
    """Where a path ends: the blocks passed, its own last; and, when it ends inside that one, what is linked there."""

    passed: tuple[bytes, ...]
    inside: tuple[bytes, ...] | None = None

    @property
    def end(self) -> bytes:
        return self.passed[-1]


def resolve(root: bytes, path: Sequence[str], get: dag.Get) -> Place:
    """Follow map keys and list indices of dag-cbor blocks, and the links between them (IPLD path resolution).

    Reads the blocks that the path enters; without a path none. Raises NotFound when nothing lies there, and as `get`.
    """
    passed = [root]
    link: bytes | None = root
    value: object = None
    for segment in path:
        if link is not None:
            value = _entered(link, get)
        value = _step(value, segment)
        link = value.value[1:] if isinstance(value, cbor2.CBORTag) and value.tag == _LINK else None
        if link is not None:
            passed.append(link)
    if link is not None:
        return Place(tuple(passed))
    return Place(tuple(passed), dag.links(passed[-1], cbor2.dumps(value, canonical=True)))


def range_of(span: Span, size: int) -> range:
    """The bytes of a file of `size` bytes that entity-bytes means; empty for a range of no length.

    What reaches beyond either end is cut there. Raises RequestError when the range begins behind the last byte.
    """
    first, last = span
    if 0 < size <= first:
        raise RequestError(f"entity-bytes begins behind the last of {size} bytes")
    start = first if first >= 0 else max(size + first, 0)
    stop = size if last is None else min((last if last >= 0 else size + last) + 1, size)
    return range(start, max(start, stop))


def blocks(place: Place, scope: Scope, wanted: range | None, duplicates: bool, get: dag.Get) -> Iterator[Block]:
    """The blocks of a CAR, in order, one at a time.

    Parameters
    ----------
    place
        Where the path ends.
    scope
        "block": the end's own block; "entity": those of the whole file that it is, or its own; "all": all below.
    wanted
        Of a file, the bytes whose blocks are wanted (`range_of`); None for all. An empty one leaves the file's root.
    duplicates
        Whether a block is given again each time it is met (dups=y).
    get
        The verified block of a CID.

    Holds one CID of every block it has given, with `duplicates` only the links above. Raises what `get` does, and
    ContentCorrupt for a block whose links cannot be read.
    """
    if is_whole(place, scope, wanted, duplicates):
        for cid, data in order(place, get):
            yield Block(cid, get(cid) if data is None else data)
        return
    *before, end = place.passed
    given: set[bytes] = set()
    for cid in before:
        given.add(cid)
        yield Block(cid, get(cid))
    if place.inside is not None or not _is_deep(end, scope):
        yield from _own(end, get)
        if scope == "all":
            given.add(end)
            for link in place.inside or ():
                for block in _below(link, duplicates, given, get):
                    given.add(block.cid)
                    yield block
    elif scope == "entity" and wanted is not None:
        for block in _ranged(end, wanted, get):
            if duplicates or block.cid not in given:
                given.add(block.cid)
                yield block
    else:
        yield from _below(end, duplicates, given, get)


def is_whole(place: Place, scope: Scope, wanted: range | None, duplicates: bool) -> bool:
    """Whether a CAR holds every block below the path's end, each once: `order` tells them then."""
    return wanted is None and not duplicates and place.inside is None and _is_deep(place.passed[-1], scope)


def order(
    place: Place, get: dag.Get, told: Callable[[Sequence[bytes]], object] = lambda links: None
) -> Iterator[tuple[bytes, bytes | None]]:
    """The CIDs of such a CAR, in order, with the block where it had to be read for its links; raw ones come with None.

    Holds one CID of every block it has given; `told` is told the links of each block that is read. Raises as `blocks`.
    """
    *before, end = place.passed
    for cid in before:
        yield cid, get(cid)
    yield from dag.order(end, get, set(before).__contains__, told=told)


def _is_deep(end: bytes, scope: Scope) -> bool:
    return scope == "all" or (scope == "entity" and cids.parse(end).codec == cids.DAG_PB)


def _own(cid: bytes, get: dag.Get) -> Iterator[Block]:
    if cids.parse(cid).hash != cids.IDENTITY:
        yield Block(cid, get(cid))


def _below(root: bytes, duplicates: bool, given: set[bytes], get: dag.Get) -> Iterator[Block]:
    """All of a tree; without `duplicates` nothing that is among `given`."""
    if not duplicates:
        yield from dag.walk(root, get, given.__contains__)
        return
    ahead = [iter((root,))]
    while ahead:
        cid = next(ahead[-1], None)
        if cid is None:
            ahead.pop()
            continue
        parts = cids.parse(cid)
        data = parts.digest if parts.hash == cids.IDENTITY else get(cid)
        if parts.hash != cids.IDENTITY:
            yield Block(cid, data)
        ahead.append(iter(dag.links(cid, data)))


def _ranged(root: bytes, wanted: range, get: dag.Get) -> Iterator[Block]:
    """The nodes and leaves of a file that hold a range, depth first; its root alone when the range is empty."""
    nodes: list[Block] = []

    def noted(cid: bytes) -> bytes:
        data = get(cid)
        nodes.append(Block(cid, data))
        return data

    size = unixfs.size_of(root, get)
    if not wanted:
        yield from _own(root, get)
        return
    for leaf in unixfs.leaves(root, noted, size, wanted.start, wanted.stop):
        yield from nodes
        nodes.clear()
        yield Block(leaf.cid, get(leaf.cid))


def _entered(cid: bytes, get: dag.Get) -> object:
    """What a dag-cbor block holds. Raises NotFound for another codec: no path leads into it."""
    if cids.parse(cid).codec != cids.DAG_CBOR:
        raise nothing_there()
    data = get(cid)
    try:
        return cbor2.loads(data)
    except (cbor2.CBORError, ValueError) as error:
        raise ContentCorrupt(f"block {cids.to_text(cid)} is not dag-cbor: {error}") from None


def _step(value: object, segment: str) -> object:
    if isinstance(value, dict) and segment in value:
        return value[segment]
    if isinstance(value, list) and segment.isascii() and segment.isdecimal() and len(segment) < 10:
        index = int(segment)
        if index < len(value) and str(index) == segment:
            return value[index]
    raise nothing_there()


def nothing_there() -> NotFound:
    """What is answered in equal words whether a CID is not held, not granted, or a path leads nowhere."""
    return NotFound("nothing that you may fetch has this CID or path")
