"""From an instance block's CID to the sealed metadata behind it: how the index is checked, and rebuilt."""

from __future__ import annotations

from typing import Protocol

from bridge.content import manifest, sealed_metadata, unixfs
from bridge.crypto import derive, sealing
from bridge.errors import ContentCorrupt
from bridge.model import SealedObject, StudyKey
from bridge.services.sealed_object import Blocks, SealedObjectReader


class Keys(Protocol):
    """Where study keys are found: the keyring, or what came with a study."""

    def open(self, study_tag: bytes, generation: int) -> StudyKey:
        """The key that a sealed object names. Raises ContentMissing."""


def open_metadata(content: Blocks, keys: Keys, link: bytes) -> sealed_metadata.SealedMetadata:
    """The metadata of the instance block `link`. Raises ContentMissing (block or key), ContentCorrupt."""
    block = manifest.decode_instance(content.get(link))
    key = keys.open(block.study, block.generation)
    size = unixfs.size_of(block.metadata, content.get)
    first = next(unixfs.leaves(block.metadata, content.get, size, 0, 1))
    header = content.get(first.cid)[: sealing.HEADER_SIZE]
    sealed = SealedObject(block.metadata, header, plaintext_length(size))
    reader = SealedObjectReader(
        content,
        sealed,
        derive.metadata_key(key, block.tag),
        derive.metadata_associated_data(block.study, block.generation, block.tag),
    )
    return sealed_metadata.decode(reader.read(0, sealed.length))


def plaintext_length(ciphertext: int) -> int:
    """The plaintext length of all segments of `ciphertext` bytes. Raises ContentCorrupt for an impossible length."""
    segments = -(-ciphertext // sealing.SEGMENT_SIZE)
    length = ciphertext - sealing.HEADER_SIZE - sealing.TAG_SIZE * segments
    if length < 0 or sealing.ciphertext_length(length) != ciphertext:
        raise ContentCorrupt("no sealed object has this length")
    return length
