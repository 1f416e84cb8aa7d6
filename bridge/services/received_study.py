"""A sealed study from elsewhere: its manifest read strictly, and each of its instances opened and read again.

What the sender's sealed metadata says of an instance is believed only where the instance's own bytes say the same:
digest, UIDs, SOP Class, transfer syntax, frames, bulk values and DICOM JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from blake3 import blake3

from bridge.content import cid as cids
from bridge.content import dag, manifest, sealed_metadata
from bridge.content.car_transfer import Car, Source
from bridge.content.manifest import PAGE_LINKS, InstanceBlock
from bridge.content.sealed_metadata import SealedMetadata
from bridge.crypto import derive
from bridge.dicom import attributes, part10, storage_classes
from bridge.dicom.instance import InstanceReader, ScannedInstance
from bridge.errors import CarInvalid, ContentCorrupt, ContentMissing, IntegrityError, RequestError
from bridge.model import Attributes, BlockPosition, SealedObject, StudyKey
from bridge.services.metadata import open_metadata
from bridge.services.sealed_object import SealedObjectReader

__all__ = ["Keys", "Received", "ReceivedInstance", "blocks_of", "is_study", "open_instances", "read_manifest"]

T = TypeVar("T")
_PEEK: Final = 16  # bytes of the data set that tell where the file meta information ends


class Received(NamedTuple):
    """A manifest: root, study tag, pages, and the instance blocks that these name, by CID and read, in order."""

    root: bytes
    tag: bytes
    pages: tuple[bytes, ...]
    links: tuple[bytes, ...]
    blocks: tuple[InstanceBlock, ...]

    @property
    def generations(self) -> frozenset[int]:
        """The generations of keys that its instances are sealed under."""
        return frozenset(block.generation for block in self.blocks)


class ReceivedInstance(NamedTuple):
    """An instance that was opened and found to be what its metadata says; `placed` is where its blocks lie here."""

    link: bytes
    block: InstanceBlock
    metadata: SealedMetadata
    attributes: Attributes
    placed: tuple[BlockPosition, ...] = ()


class Keys:
    """The keys that came with a study."""

    def __init__(self, keys: Iterable[StudyKey]) -> None:
        self._keys = {(key.tag, key.generation): key for key in keys}

    def open(self, study_tag: bytes, generation: int) -> StudyKey:
        """The key that a sealed object names. Raises ContentMissing."""
        key = self._keys.get((study_tag, generation))
        if key is None:
            raise ContentMissing(f"the key of study {study_tag.hex()}, generation {generation}, did not come with it")
        return key


def is_study(car: Car) -> bool:
    """Whether the root of a CAR is a StudyRoot."""
    try:
        manifest.decode_root(car.get(car.root))
    except ContentCorrupt:
        return False
    return True


def read_manifest(car: Source) -> Received:
    """The manifest below the root of a tree. Raises CarInvalid, naming the block that is no part of one."""
    root = _decoded(manifest.decode_root, car, car.root)
    links: list[bytes] = []
    for number, page in enumerate(root.pages):
        named = _decoded(manifest.decode_page, car, page)
        last = number == len(root.pages) - 1
        if not named or (not last and len(named) != PAGE_LINKS):
            raise CarInvalid(f"page {cids.to_text(page)} is not filled as pages of a manifest are")
        links += named
    if not links or len(set(links)) != len(links):
        raise CarInvalid(f"the manifest {cids.to_text(car.root)} names no instance, or one twice")
    blocks = []
    for link in links:
        block = _decoded(manifest.decode_instance, car, link)
        if block.study != root.study:
            raise CarInvalid(f"instance block {cids.to_text(link)} is of another study")
        blocks.append(block)
    return Received(car.root, root.study, root.pages, tuple(links), tuple(blocks))


def open_instances(car: Car, received: Received, study: str, keys: Keys) -> Iterator[ReceivedInstance]:
    """Every instance in order, opened whole and read again, with the memory of one; of `study` and no other.

    Raises CarInvalid, naming the instance block of what does not open or is not what its metadata says.
    """
    for link, block in zip(received.links, received.blocks, strict=True):
        try:
            metadata = open_metadata(car, keys, link)
            found = _read_again(car, block, metadata, keys.open(block.study, block.generation))
        except (IntegrityError, RequestError) as error:
            raise CarInvalid(f"the instance {cids.to_text(link)}: {error.detail}") from None
        except ValueError:
            raise CarInvalid(f"the instance {cids.to_text(link)}: its sizes contradict each other") from None
        if metadata.study != study:
            raise CarInvalid(f"the instance {cids.to_text(link)} is of another study than its key")
        yield ReceivedInstance(link, block, metadata, attributes.extract(found.attributes_json))


def blocks_of(car: Car, link: bytes) -> Iterator[bytes]:
    """The CIDs of an instance's blocks: its own, its sealed object's and its sealed metadata's."""
    return (cid for cid, _ in dag.order(link, car.get))


def _decoded(decode: Callable[[bytes], T], car: Source, cid: bytes) -> T:
    try:
        return decode(car.get(cid))
    except ContentCorrupt as error:
        raise CarInvalid(
            f"block {cids.to_text(cid)} is not the part of a study's manifest that it must be: {error}"
        ) from None


def _read_again(car: Car, block: InstanceBlock, metadata: SealedMetadata, key: StudyKey) -> ScannedInstance:
    """Open the whole object and compare what it is with what is said of it. Raises CarInvalid and as the reading."""
    reader = SealedObjectReader(
        car,
        SealedObject(block.object, metadata.header, metadata.length),
        derive.object_key(key, block.tag),
        derive.object_associated_data(block.study, block.generation, block.tag),
    )
    syntax, begin = metadata.transfer_syntax, metadata.data_set
    if begin > metadata.length:
        raise CarInvalid("its data set begins behind its end")
    meta = part10.read_meta(reader.read(0, min(begin + _PEEK, metadata.length)))
    if meta is None or (meta.data_set, meta.transfer_syntax) != (begin, syntax):
        raise CarInvalid("its file meta information is not what its metadata says")
    digest = blake3(syntax.encode("ascii") + b"\0")
    scanner = InstanceReader(syntax)
    for chunk in reader.chunks(begin):
        digest.update(chunk)
        scanner.feed(memoryview(chunk))
    found = scanner.finish()
    wrong = _differences(found, digest.digest(), metadata)
    if wrong:
        raise CarInvalid(f"it is not what its metadata says: {', '.join(wrong)}")
    if not storage_classes.is_storable(metadata.sop_class):
        raise CarInvalid("its SOP Class is not one of composite instances")
    return found


def _differences(found: ScannedInstance, digest: bytes, metadata: SealedMetadata) -> list[str]:
    pairs = {
        "digest": (digest, metadata.digest),
        "UIDs": (tuple(found.identity.key), (metadata.study, metadata.series, metadata.sop)),
        "SOP Class": (found.identity.sop_class, metadata.sop_class),
        "frames": (found.frames.encode(), metadata.frames),
        "bulk values": (found.bulk.encode(), metadata.bulk),
        "JSON": (found.json, sealed_metadata.inflate(metadata.json)),
    }
    return [name for name, (is_, said) in pairs.items() if is_ != said]
