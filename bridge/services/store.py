"""The way in, steps (0) to (7) of DESIGN section 3: the one recipe behind C-STORE, STOW-RS and `cairn import`.

    (0) the door has authorised the sender; it opens a reception (an association, a request, an import)
    (1) read the header from the first bytes, bounded             bridge.dicom.instance   [pure]
    (2) identity, and the study's key                             KeyStore
    (3) as bytes arrive: digest, frame table, seal, blocks, CIDs  [pure; constant memory]
    (4) put the blocks                                            ContentStore
    (5) make them durable     \\  by whoever commits the index, for all instances that wait:
    (6) make them visible     /  one fdatasync, then one transaction
    (7) the receipt
    (8) closing the batch is in bridge.services.close_batch

Of objects up to 8 MiB nothing is written before their digest is known, so that sending one again writes its record
alone. Larger ones are sealed and put as they arrive; what turns out superfluous is garbage in the pack, never visible.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from blake3 import blake3

from bridge import crash
from bridge.content import cid as cids
from bridge.content import manifest, sealed_metadata
from bridge.crypto import derive
from bridge.dicom import attributes, part10, storage_classes, transfer_syntaxes
from bridge.dicom.instance import Identity, InstanceReader, ScannedInstance
from bridge.errors import (
    IdentityMismatch,
    SopClassMismatch,
    SopClassUnsupported,
    TransferSyntaxUnsupported,
    Unreadable,
)
from bridge.model import (
    Actor,
    Batch,
    Block,
    BlockPosition,
    Committed,
    InstanceKey,
    Outcome,
    SealedObject,
    SealedRecord,
    StudyKey,
    WriteUnit,
)
from bridge.ports import ContentStore, Index, KeyStore
from bridge.services.close_batch import Batches, OpenBatch
from bridge.services.provenance import Clock, Provenance, by, now_us
from bridge.services.sealed_object import BlockSink, SealedObjectWriter

HELD_IN_MEMORY = 8 << 20


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request says the instance is; None where it says nothing."""

    study: str | None = None
    sop_class: str | None = None
    sop_instance: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was stored, as step (7) answers it."""

    key: InstanceKey
    sop_class: str
    outcome: Outcome
    warnings: tuple[str, ...]


class Store:
    """The recipe's tools, shared by all doors of a process."""

    def __init__(
        self,
        content: ContentStore,
        index: Index,
        keys: KeyStore,
        batches: Batches,
        provenance: Provenance,
        hash_name: cids.HashName,
        clock: Clock = now_us,
    ) -> None:
        self.content = content
        self.index = index
        self.keys = keys
        self.batches = batches
        self.provenance = provenance
        self.hash_name = hash_name
        self.clock = clock
        self._lasting: dict[tuple[Actor, str, str], OpenBatch] = {}
        self._lock = threading.Lock()

    def reception(self, actor: Actor, purpose: str = "TREAT") -> Reception:
        """(0) One association, request or import by an authorised actor."""
        crash.step("store.0")
        return Reception(self, actor, purpose)

    def lasting_batch(self, actor: Actor, purpose: str, key: StudyKey) -> OpenBatch:
        """The open batch that the requests of one actor about one study share, until it is idle, old or full."""
        with self._lock:
            found = self._lasting.get((actor, purpose, key.study))
            if found is None or found.closed or found.batch.study_tag != key.tag:
                self._lasting = {name: batch for name, batch in self._lasting.items() if not batch.closed}
                found = self.batches.open("study.store", actor, key, purpose)
                self._lasting[actor, purpose, key.study] = found
            return found


class Reception:
    """A run of instances from one sender. One thread at a time uses it.

    Leaving an association's or import's closes its batches. HTTP knows no release, only requests, so its batches last
    from one request to the next.
    """

    def __init__(self, store: Store, actor: Actor, purpose: str) -> None:
        self.store = store
        self.actor = actor
        self.purpose = purpose
        self.kind = "study.import" if actor.how == "command" else "study.store"
        self._lasting = actor.how == "http"
        self._batches: dict[str, OpenBatch] = {}

    def begin(self, study: str | None = None) -> Incoming:
        """A Part 10 file follows; `study` is the study that the request's URL names."""
        return Incoming(self, Expected(study=study), source=self.actor.name)

    def begin_data_set(self, sop_class: str, sop_instance: str, transfer_syntax: str, source_ae: str) -> Incoming:
        """A bare data set follows, as in C-STORE; the Part 10 meta is made in front of it (PS3.10 section 7.1)."""
        made = part10.make_meta(sop_class, sop_instance, transfer_syntax, source_ae)
        meta = part10.Meta(sop_class, sop_instance, transfer_syntax, len(made))
        incoming = Incoming(self, Expected(None, sop_class, sop_instance), source=source_ae)
        incoming.begin_data_set(made, meta)
        return incoming

    def batch(self, key: StudyKey) -> OpenBatch:
        """The open batch for a study, a new one when there is none or it was closed for age."""
        if self._lasting:
            return self.store.lasting_batch(self.actor, self.purpose, key)
        found = self._batches.get(key.study)
        if found is not None and found.batch.study_tag != key.tag:  # erased, and sent again
            self.store.batches.close_or_log([found])
            found = None
        if found is None or found.closed:
            found = self._batches[key.study] = self.store.batches.open(self.kind, self.actor, key, self.purpose)
        return found

    def close(self) -> None:
        """Close this reception's batches; one that cannot be closed now is tried again by the process's clock."""
        self.store.batches.close_or_log(self._batches.values())
        self._batches.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Incoming:
    """One instance on its way in: `write` its bytes in order, then `commit` or `abort`."""

    def __init__(self, reception: Reception, expected: Expected, source: str) -> None:
        self._reception = reception
        self._store = reception.store
        self._expected = expected
        self._source = source
        self._held: list[bytes] = []
        self._size = 0
        self._meta: part10.Meta | None = None
        self._reader: InstanceReader | None = None
        self._bare = False
        self._digest = blake3()
        self._served: bytes | None = None
        self._tag = os.urandom(16)
        self._key: StudyKey | None = None
        self._sink = BlockSink(reception.store.content)
        self._writer: SealedObjectWriter | None = None

    @property
    def key(self) -> InstanceKey | None:
        """The instance's identity as soon as its header has been read."""
        identity = self._reader.identity if self._reader else None
        return identity.key if identity else None

    @property
    def sop_class(self) -> str | None:
        """The SOP Class as soon as it is known, from the data set or else the file meta."""
        identity = self._reader.identity if self._reader else None
        return identity.sop_class if identity else (self._meta.sop_class if self._meta else None)

    def begin_data_set(self, made: bytes, meta: part10.Meta) -> None:
        """The file meta was made by us and is known; the data set follows. Raises TransferSyntaxUnsupported."""
        self._held.append(made)
        self._meta = meta
        self._reader = self._new_reader(meta.transfer_syntax)

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises Unreadable, Identity..., SopClass..., TransferSyntaxUnsupported, StorageFull."""
        chunk = bytes(data)
        self._size += len(chunk)
        if self._writer is None:
            self._held.append(chunk)
        self._read(chunk)
        if self._writer is not None:
            self._writer.write(chunk)
        elif self._size > HELD_IN_MEMORY and self.key is not None:
            self._begin_sealing()

    def _read(self, chunk: bytes) -> None:
        """(1) The file meta, then the data set, into the incremental reader; (3) the digest along with it."""
        if self._reader is not None:
            self._feed(self._reader, memoryview(chunk))
            return
        prefix = chunk if len(self._held) == 1 else b"".join(self._held)
        if part10.lacks_preamble(prefix):
            prefix = part10.PREAMBLE + prefix
        self._held = [prefix]
        self._meta = self._read_meta(prefix)
        if self._meta is None:
            return
        self._reader = self._new_reader(self._meta.transfer_syntax)
        self._feed(self._reader, memoryview(prefix)[self._meta.data_set :])

    def _new_reader(self, syntax: str) -> InstanceReader:
        if not transfer_syntaxes.is_uid(syntax):
            raise TransferSyntaxUnsupported("the transfer syntax is not a UID")
        self._digest.update(syntax.encode("ascii") + b"\0")
        return InstanceReader(syntax)

    def _read_meta(self, prefix: bytes) -> part10.Meta | None:
        """The file meta; for a data set that came as a file without it, what its first bytes tell."""
        try:
            return part10.read_meta(prefix)
        except Unreadable:
            syntax = part10.bare_syntax(prefix)
            if syntax is None:
                raise
            self._bare = True
            return part10.Meta("", "", syntax, 0)

    def _feed(self, reader: InstanceReader, data: memoryview) -> None:
        known = reader.identity is not None
        self._digest.update(data)
        reader.feed(data)
        if not known and reader.identity is not None:
            self._identify(reader.identity)

    def _identify(self, identity: Identity) -> None:
        """(2) What the request says and what the data set says must be one instance; what of it is held."""
        crash.step("store.1")
        expected = self._expected
        if expected.sop_class is not None and expected.sop_class != identity.sop_class:
            raise SopClassMismatch("the SOP Class UID (0008,0016) differs from the command's")
        if expected.sop_instance is not None and expected.sop_instance != identity.key.sop:
            raise IdentityMismatch("the SOP Instance UID (0008,0018) differs from the command's")
        if expected.study is not None and expected.study != identity.key.study:
            raise IdentityMismatch("the Study Instance UID (0020,000D) differs from the request's")
        if not storage_classes.is_storable(identity.sop_class):
            raise SopClassUnsupported("the SOP Class is not one of composite instances")
        self._served = self._store.index.served_digest(identity.key)

    def _study_key(self, key: InstanceKey) -> StudyKey:
        if self._key is None:
            self._key = self._store.keys.study_key(key.study)
            crash.step("store.2")
        return self._key

    def _begin_sealing(self) -> None:
        """(3) Seal and put from now on as bytes arrive, beginning with what is held."""
        key, meta = self.key, self._meta
        if key is None or meta is None:
            raise Unreadable("the header has not been read")
        study_key = self._study_key(key)
        self._writer = SealedObjectWriter(
            self._sink,
            derive.object_key(study_key, self._tag),
            derive.object_associated_data(study_key.tag, study_key.generation, self._tag),
            self._store.hash_name,
        )
        if self._bare:
            made = part10.make_meta(self.sop_class or "", key.sop, meta.transfer_syntax, self._source)
            self._meta = meta._replace(data_set=len(made))
            self._writer.write(made)
        held, self._held = b"".join(self._held), []
        self._writer.write(held)

    def abort(self) -> None:
        """Forget it: nothing of it was or becomes visible."""
        self._held = []
        self._writer = None

    def commit(self) -> Receipt:
        """Finish: what returns is durable and visible (0x0000, 200).

        Raises
        ------
        Unreadable, IdentityMissing
            the bytes end early or do not name an instance.
        StorageFull, StorageFault, Busy
            it could not be made durable; nothing of it is visible.
        """
        return self.submit()()

    def submit(self) -> Callable[[], Receipt]:
        """The same without waiting: what is returned waits for it. Either may raise what `commit` does.

        Who has several instances to store goes on with the next and waits for many at once: they share a commit.
        """
        if self._reader is None or self._meta is None:
            raise Unreadable("the file ends within its header")
        scanned = self._reader.finish()
        if self.key is None:
            self._identify(scanned.identity)
        key = scanned.identity.key
        study_key = self._study_key(key)
        digest = self._digest.digest()
        if self._writer is None:
            if self._served == digest:
                again = self._again(study_key, scanned, digest)
                return lambda: again
            self._begin_sealing()
        unit = self._put(study_key, scanned, digest)
        return self._make_visible(study_key, scanned, unit)

    def _record(self, study_key: StudyKey, scanned: ScannedInstance, digest: bytes, outcome: Outcome) -> SealedRecord:
        """The record of this store. `conflict`: other bytes are held under this SOP Instance UID; both are kept."""
        key = scanned.identity.key
        body = {
            "actor": by(self._reception.actor),
            "study": key.study,
            "series": key.series,
            "instance": key.sop,
            "class": scanned.identity.sop_class,
            "digest": digest,
            "source": self._source,
            "outcome": outcome.value,
            "conflict": outcome is Outcome.VERSION,
        }
        return self._store.provenance.seal(self._reception.kind, body, derive.record_key(study_key))

    def _again(self, study_key: StudyKey, scanned: ScannedInstance, digest: bytes) -> Receipt:
        """The very bytes are held: only the fact that they came again is recorded."""
        store = self._store
        record = self._record(study_key, scanned, digest, Outcome.AGAIN)
        while not store.batches.append(self._reception.batch(study_key), [record]):
            pass  # closed for age between the two calls: the next call opens a new one
        crash.step("store.7")
        return Receipt(scanned.identity.key, scanned.identity.sop_class, Outcome.AGAIN, scanned.warnings)

    def _put(self, study_key: StudyKey, scanned: ScannedInstance, digest: bytes) -> _Put:
        """(3) the last segment, the sealed metadata and the instance block; (4) put them."""
        store, meta, writer = self._store, self._meta, self._writer
        if meta is None or writer is None:
            raise Unreadable("the header has not been read")
        crash.step("store.3")
        sealed = writer.finish()
        json = sealed_metadata.deflate(scanned.json)
        identity = scanned.identity
        metadata = sealed_metadata.encode(
            sealed_metadata.SealedMetadata(
                study=identity.key.study,
                series=identity.key.series,
                sop=identity.key.sop,
                sop_class=identity.sop_class,
                transfer_syntax=meta.transfer_syntax,
                digest=digest,
                json=json,
                frames=scanned.frames.encode(),
                bulk=scanned.bulk.encode(),
                data_set=meta.data_set,
                header=sealed.header,
                length=sealed.length,
                received=store.clock(),
                source=self._source,
            )
        )
        metadata_writer = SealedObjectWriter(
            self._sink,
            derive.metadata_key(study_key, self._tag),
            derive.metadata_associated_data(study_key.tag, study_key.generation, self._tag),
            store.hash_name,
        )
        metadata_writer.write(metadata)
        described = metadata_writer.finish()
        instance = manifest.InstanceBlock(study_key.tag, study_key.generation, self._tag, sealed.root, described.root)
        encoded = manifest.encode_instance(instance)
        block = Block(cids.make(cids.DAG_CBOR, encoded, store.hash_name), encoded)
        self._sink.add(block)
        self._sink.flush()
        crash.step("store.4")
        return _Put(sealed, block.cid, digest, json, tuple(self._sink.positions))

    def _make_visible(self, study_key: StudyKey, scanned: ScannedInstance, put: _Put) -> Callable[[], Receipt]:
        """(5) and (6) through the index; what waits for them, and gives (7) the receipt."""
        store, meta = self._store, self._meta
        if meta is None:
            raise Unreadable("the header has not been read")
        syntax, data_set = meta.transfer_syntax, meta.data_set

        def record_of(outcome: Outcome) -> SealedRecord:
            return self._record(study_key, scanned, put.digest, outcome)

        expected = Outcome.NEW if self._served is None else Outcome.VERSION
        record = record_of(expected)

        def unit(batch: Batch) -> WriteUnit:
            return WriteUnit(
                batch=batch,
                record=record,
                key=scanned.identity.key,
                sop_class=scanned.identity.sop_class,
                transfer_syntax=syntax,
                digest=put.digest,
                tag=self._tag,
                generation=study_key.generation,
                object=put.object,
                link=put.link,
                data_set=data_set,
                frames=scanned.frames.encode(),
                bulk=scanned.bulk.encode(),
                json=put.json,
                attributes=attributes.extract(scanned.attributes_json),
                blocks=put.blocks,
                received=store.clock(),
                source=self._source,
                expected=expected,
                record_of=record_of,
            )

        committed = None
        while committed is None:  # None: the batch was closed for age between the two calls
            committed = store.batches.store(self._reception.batch(study_key), unit)
        return partial(_receipt, committed, scanned)


def _receipt(committed: Future[Committed], scanned: ScannedInstance) -> Receipt:
    outcome = committed.result().outcome
    crash.step("store.7")
    return Receipt(scanned.identity.key, scanned.identity.sop_class, outcome, scanned.warnings)


@dataclass(frozen=True, slots=True)
class _Put:
    """What step (4) put: the object, the instance block's CID, the digest, deflated JSON, where every block lies."""

    object: SealedObject
    link: bytes
    digest: bytes
    json: bytes
    blocks: tuple[BlockPosition, ...]
