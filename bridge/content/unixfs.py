"""UnixFS files in the layout "unixfs-v1-2025" (IPIP-499): 1 MiB raw leaves, balanced tree of dag-pb nodes, width 1024.

The CIDs equal those of Kubo byte for byte, and the layout is a function of the size alone; so the reader knows what
every node must say before it reads it, and refuses anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from bridge.content import cid as cids
from bridge.errors import ContentCorrupt
from bridge.model import Block

__all__ = ["LEAF_SIZE", "WIDTH", "Child", "Leaf", "TreeBuilder", "decode_node", "encode_node", "leaves", "size_of"]

LEAF_SIZE: Final = 1 << 20
WIDTH: Final = 1024
_MAX_DEPTH: Final = 4  # 1 MiB * 1024**4 is beyond any file

# protobuf tags (field number << 3 | wire type) of dag-pb and of unixfs.proto
_PB_NODE_DATA: Final = 0x0A
_PB_NODE_LINK: Final = 0x12
_PB_LINK_HASH: Final = 0x0A
_PB_LINK_NAME: Final = b"\x12\x00"
_PB_LINK_TSIZE: Final = 0x18
_UNIXFS_FILE: Final = b"\x08\x02"
_UNIXFS_FILESIZE: Final = 0x18
_UNIXFS_BLOCKSIZE: Final = 0x20


class Child(NamedTuple):
    """What a node says of one child: CID, size of the file bytes below it, Tsize (bytes of all blocks below it)."""

    cid: bytes
    size: int
    tsize: int


class Leaf(NamedTuple):
    """One raw leaf: its number from 0, its CID, the offset in the file of its first byte, its length in bytes."""

    number: int
    cid: bytes
    offset: int
    length: int


def encode_node(children: Sequence[Child]) -> bytes:
    """The dag-pb block of a file node.

    dag-pb writes Links before Data, and an empty Name in each link as go-merkledag does; UnixFS Data holds Type,
    filesize and one unpacked blocksize per child (unixfs.proto).
    """
    out = bytearray()
    for child in children:
        link = _field(_PB_LINK_HASH, child.cid) + _PB_LINK_NAME + bytes((_PB_LINK_TSIZE,)) + cids.varint(child.tsize)
        out += _field(_PB_NODE_LINK, link)
    data = bytearray(_UNIXFS_FILE)
    data.append(_UNIXFS_FILESIZE)
    data += cids.varint(sum(child.size for child in children))
    for child in children:
        data.append(_UNIXFS_BLOCKSIZE)
        data += cids.varint(child.size)
    return bytes(out + _field(_PB_NODE_DATA, data))


def decode_node(data: bytes) -> tuple[Child, ...]:
    """Read a file node strictly: only what `encode_node` writes. Raises ValueError for anything else."""
    links: list[tuple[bytes, int]] = []
    position = 0
    while position < len(data) and data[position] == _PB_NODE_LINK:
        if len(links) == WIDTH:
            raise ValueError("more than 1024 links")
        link, position = _read_field(data, position + 1)
        hash_end = cids.read(link, 2)[1] if link[:1] == bytes((_PB_LINK_HASH,)) else 0
        tsize, end = cids.read_varint(link, hash_end + len(_PB_LINK_NAME) + 1)
        if end != len(link):
            raise ValueError("bytes behind a link")
        links.append((link[2:hash_end], tsize))
    if data[position : position + 1] != bytes((_PB_NODE_DATA,)):
        raise ValueError("no UnixFS data behind the links")
    unixfs, _ = _read_field(data, position + 1)
    sizes: list[int] = []
    _, at = cids.read_varint(unixfs, len(_UNIXFS_FILE) + 1)
    while at < len(unixfs):
        size, at = cids.read_varint(unixfs, at + 1)
        sizes.append(size)
    if len(sizes) != len(links):
        raise ValueError("as many blocksizes as links are required")
    children = tuple(Child(cid, size, tsize) for (cid, tsize), size in zip(links, sizes, strict=True))
    if encode_node(children) != data:
        raise ValueError("not the canonical encoding of a file node")
    return children


class TreeBuilder:
    """Builds the tree as leaves arrive, holding only the links of the nodes that are not yet full.

    Parameters
    ----------
    hash
        The multihash of every CID in the tree.
    """

    def __init__(self, hash: cids.HashName = "blake3") -> None:
        self._hash = hash
        self._levels: list[list[Child]] = [[]]
        self._closed = False

    def leaf(self, data: bytes | bytearray) -> list[Block]:
        """Add the next leaf: 1 to 1,048,576 bytes, and every one but the last full.

        Returns the leaf's block and those of the nodes it completed. Raises ValueError for a leaf of another size, or
        after a short one.
        """
        cid = cids.make(cids.RAW, data, self._hash)
        return [Block(cid, data), *self.link(cid, len(data))]

    def link(self, cid: bytes, size: int) -> list[Block]:
        """Add the next leaf by CID and size in bytes, for who holds no bytes; as `leaf` otherwise."""
        if self._closed or not 0 < size <= LEAF_SIZE:
            raise ValueError("leaves hold 1 to 1,048,576 bytes, and only the last may be short")
        self._closed = size < LEAF_SIZE
        self._levels[0].append(Child(cid, size, size))
        blocks: list[Block] = []
        level = 0
        while len(self._levels[level]) == WIDTH:
            blocks.append(self._close(level))
            level += 1
        return blocks

    def finish(self) -> tuple[bytes, list[Block]]:
        """End the file: the root's CID and the blocks not yet given; an empty file is one empty raw leaf."""
        self._closed = True
        blocks: list[Block] = []
        if self._levels == [[]]:
            empty = Block(cids.make(cids.RAW, b"", self._hash), b"")
            return empty.cid, [empty]
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            if self._levels[level]:
                blocks.append(self._close(level))
            level += 1
        return self._levels[level][0].cid, blocks

    def _close(self, level: int) -> Block:
        children = self._levels[level]
        data = encode_node(children)
        block = Block(cids.make(cids.DAG_PB, data, self._hash), data)
        if level + 1 == len(self._levels):
            self._levels.append([])
        tsize = len(data) + sum(child.tsize for child in children)
        self._levels[level + 1].append(Child(block.cid, sum(child.size for child in children), tsize))
        self._levels[level] = []
        return block


def size_of(root: bytes, get: Callable[[bytes], bytes]) -> int:
    """The size in bytes of the file below `root`. Raises ContentCorrupt for no file node, and as `get`."""
    data = get(root)
    if cids.parse(root).codec == cids.RAW:
        return len(data)
    return sum(child.size for child in _node(root, data))


def leaves(
    root: bytes, get: Callable[[bytes], bytes], size: int, start: int = 0, stop: int | None = None
) -> Iterator[Leaf]:
    """The leaves that hold bytes `start` to `stop` (exclusive; default the end) of a file of `size` bytes, in order.

    Only the nodes on the way are fetched, by `get` (verified bytes of a CID); leaves are not. Raises ContentCorrupt
    when a node does not say what the layout of `size` bytes demands, and whatever `get` raises.
    """
    end = size if stop is None else min(stop, size)
    depth = 0
    while LEAF_SIZE * WIDTH**depth < size:
        depth += 1
    if depth > _MAX_DEPTH:
        raise ContentCorrupt("the size is beyond any file")
    if start < end or size == 0:
        yield from _walk(root, get, depth, 0, size, max(start, 0), end)


def _walk(
    cid: bytes, get: Callable[[bytes], bytes], depth: int, offset: int, size: int, start: int, stop: int
) -> Iterator[Leaf]:
    codec = cids.parse(cid).codec
    if codec != (cids.RAW if depth == 0 else cids.DAG_PB):
        raise ContentCorrupt(f"block {cids.to_text(cid)} has a codec that the layout does not allow there")
    if depth == 0:
        yield Leaf(offset // LEAF_SIZE, cid, offset, size)
        return
    span = LEAF_SIZE * WIDTH ** (depth - 1)
    children = _node(cid, get(cid))
    expected = [min(span, size - at) for at in range(0, size, span)]
    if [child.size for child in children] != expected:
        raise ContentCorrupt(f"node {cids.to_text(cid)} is not laid out for a file of this size")
    first, last = max(start - offset, 0) // span, (min(stop, offset + size) - 1 - offset) // span
    for index in range(first, last + 1):
        child = children[index]
        yield from _walk(child.cid, get, depth - 1, offset + index * span, child.size, start, stop)


def _node(cid: bytes, data: bytes) -> tuple[Child, ...]:
    try:
        return decode_node(data)
    except ValueError as error:
        raise ContentCorrupt(f"node {cids.to_text(cid)}: {error}") from None


def _field(tag: int, value: bytes | bytearray) -> bytes:
    return bytes((tag,)) + cids.varint(len(value)) + value


def _read_field(data: bytes, position: int) -> tuple[bytes, int]:
    length, start = cids.read_varint(data, position)
    if start + length > len(data):
        raise ValueError("field cut short")
    return data[start : start + length], start + length
