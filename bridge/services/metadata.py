"""From an instance block's CID to the sealed metadata behind it: how the index is checked, and rebuilt."""

from __future__ import annotations

from bridge.content import manifest, sealed_metadata, unixfs
from bridge.crypto import derive, sealing
from bridge.model import SealedObject
from bridge.ports import ContentStore, KeyStore
from bridge.services.sealed_object import SealedObjectReader


def open_metadata(content: ContentStore, keys: KeyStore, link: bytes) -> sealed_metadata.SealedMetadata:
    """The metadata of the instance block `link`. Raises ContentMissing (block or key), ContentCorrupt."""
    block = manifest.decode_instance_block(content.get(link))
    key = keys.open(block.study_tag, block.generation)
    size = unixfs.size_of(block.metadata, content.get)
    first = next(iter(unixfs.leaves(block.metadata, content.get, size, 0, 1)))
    header = content.get(first.cid)[: sealing.HEADER_LENGTH]
    sealed = SealedObject(block.metadata, header, sealing.plaintext_length(size))
    reader = SealedObjectReader(
        content, sealed, derive.metadata_key(key.secret, block.tag), derive.metadata_data(block.study_tag, block.tag)
    )
    return sealed_metadata.decode(reader.read(0, sealed.length))
