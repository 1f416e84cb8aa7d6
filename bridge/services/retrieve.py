"""The way back: locate -> (authorised, access recorded) -> blocks -> CID verified -> opened -> frame -> stream.

    (1) the door has authorised the actor and opened a viewing       services.access: durable before the first byte
    (2) locate the instances                                         Index
    (3) note what is served                                          Viewing.saw
    (4) fetch the blocks that hold the range, verified by CID        ContentStore
    (5) open the segments                                            bridge.crypto.sealing
    (6) cut out the frame, the value, the file                       bridge.dicom.frames [pure]

What fails (4) or (5) is flagged damaged, so that the next time its sender sends it, it heals.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import cbor2

from bridge.content.located import Located, Packs
from bridge.crypto import derive
from bridge.dicom import frames, transfer_syntaxes
from bridge.dicom.bulk import BulkTable
from bridge.errors import ContentCorrupt, ContentMissing, IntegrityError, NotFound
from bridge.model import InstanceKey, StoredInstance
from bridge.ports import ContentStore, Index, KeyStore
from bridge.services.access import Viewing
from bridge.services.sealed_object import Blocks, SealedObjectReader

log = logging.getLogger(__name__)
INFLATED_LIMIT = 4 << 30
NODES_KEPT = 64
LOCATED_AT_ONCE = 256
"""Instances of one answer of which the index is asked at once where they lie."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bulk:
    """One bulk value: its VR and its bytes, little-endian as PS3.18 8.7.3.3.1 asks."""

    vr: str
    data: bytes


class Retrieve:
    """Serves what the index locates. Thread-safe."""

    def __init__(
        self,
        content: ContentStore,
        packs: Packs,
        index: Index,
        keys: KeyStore,
        damaged: Callable[[StoredInstance], None],
        each: Callable[[Iterable[bytes]], Iterator[bytes]] | None = None,
        refuse_erased: Callable[[str, bytes | None], None] = lambda study, tag: None,
    ) -> None:
        """`damaged` flags an instance; `each` reads blocks in order, ahead of their use, where `content` can.

        `refuse_erased` raises Gone for a study that was erased, or is being; with a tag for that one alone.
        """
        self._refuse_erased = refuse_erased
        self._content = content
        self._packs = packs
        self._index = index
        self._keys = keys
        self._damaged = damaged
        self._each = each
        self._node = lru_cache(NODES_KEPT)(content.get)  # verified and immutable: dag-pb nodes of large objects

    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        """(2) The served version of each instance below the resource. Raises NotFound, Gone for an erased study."""
        try:
            return self._index.locate(study, series, sop)
        except NotFound:
            self._refuse_erased(study, None)
            raise

    def files(self, viewing: Viewing, instances: Iterable[StoredInstance]) -> Iterator[Iterator[bytes]]:
        """The Part 10 file of each instance as of `part10`; each is to be read to its end before the next is taken."""
        left = iter(instances)
        while some := tuple(islice(left, LOCATED_AT_ONCE)):
            located = Located(self._packs, self._index.positions_of, self._content.get)
            if self._each is None:
                located.learn(instance.object.root for instance in some)
            for instance in some:
                yield self.part10(viewing, instance, located)

    def part10(self, viewing: Viewing, instance: StoredInstance, blocks: Blocks | None = None) -> Iterator[bytes]:
        """The Part 10 file as it was received, in pieces of at most 1 MiB. Raises ContentMissing, ContentCorrupt."""
        viewing.saw("instance", instance.key.sop)
        try:
            yield from self._open(instance, blocks).chunks()
        except IntegrityError:
            self._flag(instance)
            raise

    def frames(self, viewing: Viewing, instance: StoredInstance, numbers: Sequence[int]) -> Iterator[bytes]:
        """Frames by number from 1, native ones little-endian. Raises NotFound beyond the last, IntegrityError."""
        table = _decoded(frames.FrameTable.decode, instance.frames)
        if not numbers or max(numbers) > table.count or min(numbers) < 1:
            raise NotFound(f"the instance has {table.count} frames")
        big_endian = transfer_syntaxes.of(instance.transfer_syntax).big_endian
        source = self._data_set(instance)
        for number in numbers:
            viewing.saw("frame", instance.key.sop, str(number))
            try:
                raw = b"".join(source(offset, length) for offset, length in table.ranges(number))
            except IntegrityError:
                self._flag(instance)
                raise
            yield frames.frame_from(table, number, raw, big_endian=big_endian)

    def bulk(self, viewing: Viewing, instance: StoredInstance, path: str) -> Bulk:
        """One bulk value by its path in the data set. Raises NotFound, ContentMissing, ContentCorrupt."""
        value = _decoded(BulkTable.decode, instance.bulk).get(path)
        if value is None:
            raise NotFound("the instance has no such bulk value")
        viewing.saw("bulk", instance.key.sop, path)
        try:
            data = self._data_set(instance)(value.offset, value.length)
        except IntegrityError:
            self._flag(instance)
            raise
        if transfer_syntaxes.of(instance.transfer_syntax).big_endian:
            data = frames.swapped(data, value.vr)
        return Bulk(value.vr, data)

    def metadata(
        self, viewing: Viewing, study: str, series: str | None = None, sop: str | None = None
    ) -> Iterator[tuple[InstanceKey, bytes]]:
        """The DICOM JSON of each instance below the resource. Raises NotFound."""
        viewing.saw("metadata", sop or series or study)
        return self._index.metadata(study, series, sop)

    def verify(self, instance: StoredInstance) -> None:
        """Open the whole instance, for fsck. Raises ContentMissing, ContentCorrupt."""
        for _ in self._open(instance).chunks():
            pass

    def _open(self, instance: StoredInstance, blocks: Blocks | None = None) -> SealedObjectReader:
        """(4), (5) A reader of the instance's plaintext."""
        try:
            key = self._keys.open(instance.study_tag, instance.generation)
        except ContentMissing:
            self._refuse_erased(instance.key.study, instance.study_tag)
            raise
        return SealedObjectReader(
            blocks or self._content,
            instance.object,
            derive.object_key(key, instance.tag),
            derive.object_associated_data(key.tag, key.generation, instance.tag),
            self._node,
            self._each,
        )

    def _data_set(self, instance: StoredInstance) -> Callable[[int, int], bytes]:
        """A function (offset, length) -> bytes over the data set, inflated when its transfer syntax is deflated."""
        reader = self._open(instance)
        if not transfer_syntaxes.of(instance.transfer_syntax).deflated:
            return lambda offset, length: reader.read(instance.data_set + offset, length)
        inflated = _inflate(reader.chunks(instance.data_set, instance.object.length - instance.data_set))
        return lambda offset, length: inflated[offset : offset + length]

    def _flag(self, instance: StoredInstance) -> None:
        log.error("an instance is damaged", extra={"instance": instance.id})
        self._damaged(instance)


def _decoded(decode: Callable[[bytes], T], table: bytes) -> T:
    """A table of the index. Raises ContentCorrupt when it is damaged: fsck compares it with the sealed one."""
    try:
        return decode(table)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, cbor2.CBORError) as error:
        raise ContentCorrupt("the index's table of frames or bulk values is damaged") from error


def _inflate(chunks: Iterator[bytes]) -> bytes:
    """A raw deflate stream (PS3.5 A.5), bounded as it was at ingest. Raises ContentCorrupt."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    try:
        for chunk in chunks:
            out += inflater.decompress(chunk, INFLATED_LIMIT - len(out))
    except zlib.error as error:
        raise ContentCorrupt("the deflated data set cannot be inflated") from error
    return bytes(out)
