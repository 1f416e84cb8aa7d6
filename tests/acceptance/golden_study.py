"""One study of made-up sealed bytes, the same on every run: what its CIDs are is a promise of the format.

The bytes stand for ciphertext, which is random in a real study; layout and manifest are the product's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from bridge.content import cid as cids
from bridge.content import manifest, unixfs
from bridge.model import Block, StudyTree

MIB = 1 << 20
OBJECT_SIZES = (MIB, MIB + 1, 525_000, 56, 3 * MIB + 17, 2 * MIB)
METADATA_SIZE = 700
TAG = hashlib.shake_128(b"cairn-golden-study").digest(16)
ROOT = {
    "blake3": "bafyr4ib2rrun3m2gobrdsykqfpkajt7kmbkzve6wwu6zhndxhth6mf4ghq",
    "sha2-256": "bafyreibxgqr67l6muqcbwtbcf75mz7tfilttpe54akx2sfaroyyyfooukq",
}
CAR_SHA256 = {
    "blake3": "432cd3d94e5f118f74d07d880d61ffa77c04759fe011e27de36fb88e681bfef5",
    "sha2-256": "1ee50c6927d600df5d0723186626f571ac7a526cb937857ed26ca60dd10c6d90",
}


def sealed_bytes(name: str, size: int) -> bytes:
    """`size` bytes that nobody can compress, told by a name."""
    return hashlib.shake_128(f"cairn-golden-{name}".encode()).digest(size)


def file_blocks(data: bytes, hash: cids.HashName) -> tuple[bytes, list[Block]]:
    """The root's CID and all blocks of a file, in the layout of `bridge.content.unixfs`."""
    tree = unixfs.TreeBuilder(hash)
    blocks: list[Block] = []
    for at in range(0, len(data), unixfs.LEAF_SIZE):
        blocks += tree.leaf(data[at : at + unixfs.LEAF_SIZE])
    root, last = tree.finish()
    return root, [*blocks, *last]


def objects() -> Iterator[tuple[int, bytes]]:
    """The sealed objects of the study, numbered."""
    for number, size in enumerate(OBJECT_SIZES):
        yield number, sealed_bytes(f"object-{number}", size)


def study(hash: cids.HashName = "blake3") -> tuple[bytes, list[Block]]:
    """The StudyRoot's CID and every block of the study."""
    blocks: list[Block] = []
    links: list[bytes] = []
    for number, data in objects():
        sealed, made = file_blocks(data, hash)
        metadata = sealed_bytes(f"metadata-{number}", METADATA_SIZE)
        meta = Block(cids.make(cids.RAW, metadata, hash), metadata)
        tag = hashlib.shake_128(f"cairn-golden-instance-{number}".encode()).digest(16)
        encoded = manifest.encode_instance(manifest.InstanceBlock(TAG, 0, tag, sealed, meta.cid))
        instance = Block(cids.make(cids.DAG_CBOR, encoded, hash), encoded)
        blocks += [*made, meta, instance]
        links.append(instance.cid)
    growth = manifest.grow(StudyTree(TAG, None, (), 0, tuple(links)), hash)
    return growth.root, [*blocks, *growth.blocks]
