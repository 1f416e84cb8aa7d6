"""A study's manifest: instance blocks, pages of links to them, and the StudyRoot, all dag-cbor.

Canonical dag-cbor (IPLD "DAG-CBOR": keys by length then bytes, smallest integers, links as tag 42 over 0x00 || CID) and
nothing else is read. Only links and random tags are readable; `prev` is bytes, not a link, so that a pin of a root
does not keep its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import cbor2

from bridge.content import cid as cids
from bridge.errors import ContentCorrupt
from bridge.model import Block, StudyTree

__all__ = [
    "PAGE_LINKS",
    "InstanceBlock",
    "StudyGrowth",
    "StudyRoot",
    "decode_instance",
    "decode_page",
    "decode_root",
    "encode_instance",
    "encode_page",
    "encode_root",
    "grow",
]

PAGE_LINKS: Final = 1000
_LINK: Final = 42
_TAG_SIZE: Final = 16
_VERSION: Final = 1
_MAX_GENERATION: Final = 0xFFFF_FFFF
T = TypeVar("T")


class InstanceBlock(NamedTuple):
    """One instance: 16-byte study tag, key generation, 16-byte instance tag, CIDs of sealed object and metadata."""

    study: bytes
    generation: int
    tag: bytes
    object: bytes
    metadata: bytes


class StudyRoot(NamedTuple):
    """One state of a study: its 16-byte tag, the CIDs of its pages in order, the CID of the state before."""

    study: bytes
    pages: tuple[bytes, ...]
    previous: bytes | None


class StudyGrowth(NamedTuple):
    """What `grow` made: the blocks to put, the root's CID, all pages' CIDs, how many instances they cover."""

    blocks: tuple[Block, ...]
    root: bytes
    pages: tuple[bytes, ...]
    covered: int


def encode_instance(instance: InstanceBlock) -> bytes:
    """{"v": 1, "s": study tag, "g": generation, "i": instance tag, "d": link object, "x": link metadata}."""
    return _encode(
        {
            "v": _VERSION,
            "s": instance.study,
            "g": instance.generation,
            "i": instance.tag,
            "d": _link(instance.object),
            "x": _link(instance.metadata),
        }
    )


def decode_instance(data: bytes) -> InstanceBlock:
    """Read an instance block. Raises ContentCorrupt for anything that `encode_instance` would not write."""
    fields = _decode(data, {"v", "s", "g", "i", "d", "x"})
    generation = fields["g"]
    if type(generation) is not int or not 0 <= generation <= _MAX_GENERATION:
        raise ContentCorrupt("a generation is a 32-bit number")
    found = InstanceBlock(_tag(fields["s"]), generation, _tag(fields["i"]), _cid(fields["d"]), _cid(fields["x"]))
    return _same(found, encode_instance(found), data)


def encode_page(links: Sequence[bytes]) -> bytes:
    """{"v": 1, "i": [links to instance blocks]}, at most 1000. Raises ValueError beyond."""
    if len(links) > PAGE_LINKS:
        raise ValueError("a page holds at most 1000 links")
    return _encode({"v": _VERSION, "i": [_link(cid) for cid in links]})


def decode_page(data: bytes) -> tuple[bytes, ...]:
    """The CIDs that a page names. Raises ContentCorrupt for anything that `encode_page` would not write."""
    links = _list(_decode(data, {"v", "i"})["i"])
    if len(links) > PAGE_LINKS:
        raise ContentCorrupt("a page holds at most 1000 links")
    found = tuple(_cid(link) for link in links)
    return _same(found, encode_page(found), data)


def encode_root(root: StudyRoot) -> bytes:
    """{"v": 1, "s": study tag, "p": [links to pages], "prev": former root CID as bytes, or null}."""
    pages = [_link(cid) for cid in root.pages]
    return _encode({"v": _VERSION, "s": root.study, "p": pages, "prev": root.previous})


def decode_root(data: bytes) -> StudyRoot:
    """Read a StudyRoot. Raises ContentCorrupt for anything that `encode_root` would not write."""
    fields = _decode(data, {"v", "s", "p", "prev"})
    previous = fields["prev"]
    if previous is not None:
        previous = _checked(previous)
    found = StudyRoot(_tag(fields["s"]), tuple(_cid(link) for link in _list(fields["p"])), previous)
    return _same(found, encode_root(found), data)


def grow(tree: StudyTree, hash: cids.HashName = "blake3") -> StudyGrowth:
    """Extend a study's manifest to all of `tree.instances`: only the touched pages and a root are new.

    Pages but the last are full, so the instances after the first `tree.covered` touch the last page and those after
    it. With nothing new and a root there, no block is made and the root stays; so does that of another node's tree.
    Raises ValueError when the tree's numbers contradict each other.
    """
    if not tree.own:
        if tree.root is None:
            raise ValueError("another node's tree has a root")
        return StudyGrowth((), tree.root, tree.pages, tree.covered)
    covered, links = tree.covered, tree.instances
    if not 0 <= covered <= len(links) or len(tree.pages) != -(-covered // PAGE_LINKS):
        raise ValueError("pages, covered and instances contradict each other")
    if tree.root is not None and covered == len(links):
        return StudyGrowth((), tree.root, tree.pages, covered)
    first = covered // PAGE_LINKS
    blocks = [
        _block(encode_page(links[at : at + PAGE_LINKS]), hash)
        for at in range(first * PAGE_LINKS, len(links), PAGE_LINKS)
    ]
    pages = (*tree.pages[:first], *(block.cid for block in blocks))
    root = _block(encode_root(StudyRoot(tree.tag, pages, tree.root)), hash)
    return StudyGrowth((*blocks, root), root.cid, pages, len(links))


def _block(data: bytes, hash: cids.HashName) -> Block:
    return Block(cids.make(cids.DAG_CBOR, data, hash), data)


def _encode(value: dict[str, object]) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _decode(data: bytes, keys: set[str]) -> dict[str, object]:
    try:
        value = cbor2.loads(data)
    except cbor2.CBORError as error:
        raise ContentCorrupt(f"not CBOR: {error}") from None
    if not isinstance(value, dict) or set(value) != keys or type(value["v"]) is not int or value["v"] != _VERSION:
        raise ContentCorrupt("not a manifest block of version 1")
    return value


def _same(found: T, encoded: bytes, data: bytes) -> T:
    if encoded != data:
        raise ContentCorrupt("not canonical dag-cbor")
    return found


def _link(cid: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(_LINK, b"\0" + cid)


def _cid(value: object) -> bytes:
    if not isinstance(value, cbor2.CBORTag) or value.tag != _LINK:
        raise ContentCorrupt("a link is tag 42")
    if type(value.value) is not bytes or value.value[:1] != b"\0":
        raise ContentCorrupt("a link is bytes that begin with zero")
    return _checked(value.value[1:])


def _checked(cid: object) -> bytes:
    if type(cid) is not bytes:
        raise ContentCorrupt("a CID is bytes")
    try:
        cids.parse(cid)
    except ValueError as error:
        raise ContentCorrupt(f"a link: {error}") from None
    return cid


def _tag(value: object) -> bytes:
    if type(value) is not bytes or len(value) != _TAG_SIZE:
        raise ContentCorrupt("a tag has 16 bytes")
    return value


def _list(value: object) -> list[object]:
    if type(value) is not list:
        raise ContentCorrupt("links are a list")
    return value
