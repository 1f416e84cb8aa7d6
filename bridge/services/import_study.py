"""`cairn study import`: a study's sealed blocks from a CAR and, with its key, the study itself.

    (1) the key file: signed, for this node, opened
    (2) the CAR, read whole: every block verified, none missing
    (3) its manifest, strictly; it continues what is held of the same tree
    (4) the keys: those of the file, or those held here for the same study tag, or none
    (5) with keys: every instance opened and read again
    (6) the blocks put, synced and indexed; then those of the manifest, so that no pack ever names unknown instances
    (7) the keys adopted, durably
    (8) ONE transaction: the tree, its instances, block positions, the records
    (9) the batch closed, the root pinned

Nothing is written before (6), so that what is refused leaves nothing. Without keys the blocks are kept for others and
no search finds anything of them; the key may come later, with the CAR again. The tree stays that of its origin: its
CIDs are the same here as there.

What a member granted comes likewise (services.receive_share): there the file may lack what is held already, and
instances that were taken in before with the same tree are not opened again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, NamedTuple, Protocol

from bridge.content import cid as cids
from bridge.content import manifest
from bridge.content.car_transfer import Car, Kept, keep, missing
from bridge.content.incoming import Delivered
from bridge.crypto import derive, study_key_file
from bridge.crypto.keystore import Keystore
from bridge.crypto.study_key_file import Envelope, SealedKeys
from bridge.errors import CapacityError, CarInvalid, ContentMissing, EngineFault, KeyFileInvalid
from bridge.model import (
    Actor,
    Adopted,
    AdoptedTree,
    Batch,
    BlockPosition,
    Outcome,
    SealedRecord,
    StudyKey,
    Tree,
)
from bridge.ports import ContentStore, KeyStore
from bridge.services.close_batch import Batches
from bridge.services.provenance import Clock, Provenance, by, now_us
from bridge.services.received_study import (
    Keys,
    Received,
    ReceivedInstance,
    blocks_of,
    is_study,
    open_instances,
    read_manifest,
)
from ledger.keys import SigningKey

__all__ = ["Delivery", "Imported", "Recipient", "Take", "import_study"]

KIND: Final = "study.import"
TOLD_EVERY: Final = 200
Report = Callable[[str], None]
Recorded = tuple[Batch, Callable[[Sequence[Outcome]], Sequence[SealedRecord]]]
Take = Callable[
    [AdoptedTree, Sequence[ReceivedInstance], Sequence[BlockPosition], Recorded],
    "Future[Adopted]",
]
"""Step (8) at the index: the tree, its instances in order, where its new blocks lie, and what to record."""


class Keyring(KeyStore, Protocol):
    """The key store as one that takes in others' keys."""

    def origin_of(self, tag: bytes) -> bytes | None:
        """Whose key a study tag is of; None for this node. Raises ContentMissing."""

    def adopt(self, key: StudyKey, origin: bytes) -> None:
        """Hold another node's key. Raises KeyFileInvalid when another is held in its place, StorageFault."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who imports: this node's keys, and where its content, index, keys and records are.

    `tree` looks a study tag's tree up, `position` where a block lies (both None when not known); `index_blocks` tells
    the index where blocks lie; `require_room` raises StorageFull when the disk does not take so many bytes.
    """

    keystore: Keystore
    content: ContentStore
    keys: Keyring
    batches: Batches
    provenance: Provenance
    take: Take
    tree: Callable[[bytes], Tree | None]
    position: Callable[[bytes], BlockPosition | None]
    index_blocks: Callable[[Sequence[BlockPosition]], None]
    require_room: Callable[[int], None]
    clock: Clock = now_us


class Delivery(NamedTuple):
    """What an import is under a grant: the entries that it rests on, its purpose, and what of the tree came before.

    `known` gives the instance blocks (CIDs) that were taken in with a tree of this tag.
    """

    grant: bytes
    purpose: str
    known: Callable[[bytes], Collection[bytes]]


class Imported(NamedTuple):
    """What was taken in: root, study (None: its key is not held), instances, outcomes by name, blocks, bytes, pinned.

    `sender` is the readable part of the key file, when there was one; `kept` the blocks of the tree and how many of
    them were new here. A root that is not `pinned` is pinned later, when the content engine is there again.
    """

    root: bytes
    study: str | None
    instances: int
    outcomes: Mapping[str, int]
    kept: Kept
    pinned: bool
    sender: Envelope | None


class _Opened(NamedTuple):
    """The keys of a study, and whose tree it is (None: this node's own)."""

    study: str
    keys: tuple[StudyKey, ...]
    origin: bytes | None


def import_study(
    recipient: Recipient,
    actor: Actor,
    file: BinaryIO,
    report: Report,
    *,
    key_file: bytes | None = None,
    sender_key: bytes | None = None,
    delivery: Delivery | None = None,
) -> Imported:
    """Take in a study.

    Parameters
    ----------
    file
        The CAR, seekable.
    key_file
        The contents of its key file.
    sender_key
        The Ed25519 public key that must have signed the key file; None: any that it names, and whose it is was not
        checked.
    delivery
        The grant that brings it, if one does: its blocks may then be partly in the file and partly held.

    Raises CarInvalid, naming the block that is wrong or missing, and KeyFileInvalid, both before anything is written;
    then StorageFull, StorageFault, Busy.
    """
    envelope, sealed = _open_key_file(recipient.keystore, key_file, sender_key)  # (1)
    car = _car(recipient, file, envelope, delivery)  # (2)
    if cids.parse(car.root).codec != cids.DAG_CBOR:
        raise CarInvalid(f"the root {cids.to_text(car.root)} is a file or folder of UnixFS, no study's manifest")
    report("every block of the CAR is what its CID says, and none is missing")
    if envelope is None and not is_study(car):
        return _keep_sealed(recipient, actor, car, report)
    received = read_manifest(car)  # (3)
    held = recipient.tree(received.tag)
    known = envelope is not None and sender_key is not None and envelope.sender == envelope.origin
    if held is not None and held.root not in (None, received.root) and not known:
        _continues(recipient.content, held.root, received)
    opened = _keys(recipient, received, envelope, sealed)  # (4)
    fresh = received if delivery is None else _fresh(received, delivery.known(received.tag))
    instances = _open(car, fresh, opened, report) if opened else []  # (5)
    if opened:
        report(f"all {len(instances)} instances verified; keeping them")
    kept, put = _keep(recipient, car, received)  # (6)
    if opened and envelope:
        for key in opened.keys:
            recipient.keys.adopt(key, envelope.origin)  # (7)
    placed = [_placed(recipient, car, each, opened) for each in instances]
    adopted = _take(recipient, actor, received, placed, put, opened, envelope, kept, delivery)  # (8), (9)
    outcomes = Counter(outcome.value for outcome in adopted.outcomes)
    tree = recipient.tree(received.tag)
    if tree is None or tree.root != received.root:
        report("a later state of this study's manifest is held; that one stays pinned")
        pinned = False
    else:
        pinned = _pin(recipient, received.root, report)
    return Imported(
        received.root, opened.study if opened else None, len(received.links), outcomes, kept, pinned, envelope
    )


def _car(recipient: Recipient, file: BinaryIO, envelope: Envelope | None, delivery: Delivery | None) -> Car:
    if delivery is None or envelope is None:
        return Car(file, envelope.root if envelope else None)
    return Delivered(file, envelope.root, recipient.content)


def _fresh(received: Received, known: Collection[bytes]) -> Received:
    """The manifest without the instances that were verified when they were taken in."""
    held = set(known)
    left = [pair for pair in zip(received.links, received.blocks, strict=True) if pair[0] not in held]
    return received._replace(links=tuple(link for link, _ in left), blocks=tuple(block for _, block in left))


def _open_key_file(
    keystore: Keystore, data: bytes | None, sender_key: bytes | None
) -> tuple[Envelope | None, SealedKeys | None]:
    """(1) Signed by whom it says, for this node, and its sealed part opens with this node's key."""
    if data is None:
        return None, None
    envelope = study_key_file.read(data)
    if sender_key is not None and envelope.sender_key != sender_key:
        raise KeyFileInvalid("the key file is signed by another key than the one given")
    own = SigningKey(keystore.signing_seed).public_key()
    if keystore.node_id in (envelope.origin, envelope.sender) and envelope.sender_key != own:
        raise KeyFileInvalid("the key file claims to be of a key that this node made, but another signed it")
    return envelope, study_key_file.open_keys(envelope, keystore.node_id, keystore.agreement_seed)


def _continues(content: ContentStore, held: bytes, received: Received) -> None:
    """(3) A manifest of a tree that is held is an earlier or a later state of it, or CarInvalid.

    Whoever knows a study tag could otherwise put another manifest in the place of the one that is held. Only the node
    that made the tree may, its key being given: it names a healed copy where it named a damaged one before.
    """
    pages = manifest.decode_root(content.get(held)).pages
    links = [link for page in pages for link in manifest.decode_page(content.get(page))]
    common = min(len(links), len(received.links))
    if tuple(links[:common]) != received.links[:common]:
        raise CarInvalid(f"the manifest {cids.to_text(received.root)} does not continue the one that is held")


def _keys(
    recipient: Recipient, received: Received, envelope: Envelope | None, sealed: SealedKeys | None
) -> _Opened | None:
    """(4) The keys of every generation that the instances name, and whose they are; None without any."""
    if envelope is not None and sealed is not None:
        if envelope.tag != received.tag or not received.generations <= set(envelope.generations):
            raise KeyFileInvalid("the key file is of another study, or lacks a generation of its keys")
        origin = None if envelope.origin == recipient.keystore.node_id else envelope.origin
        return _Opened(sealed.study, sealed.keys, origin)
    try:
        keys = tuple(recipient.keys.open(received.tag, generation) for generation in sorted(received.generations))
        return _Opened(keys[0].study, keys, recipient.keys.origin_of(received.tag))
    except ContentMissing:
        return None


def _open(car: Car, received: Received, opened: _Opened, report: Report) -> list[ReceivedInstance]:
    """(5) All instances; the memory of their index rows, not of their bytes."""
    found: list[ReceivedInstance] = []
    for instance in open_instances(car, received, opened.study, Keys(opened.keys)):
        found.append(instance)
        if len(found) % TOLD_EVERY == 0:
            report(f"{len(found)} of {len(received.links)} instances verified")
    return found


def _keep(recipient: Recipient, car: Car, received: Received) -> tuple[Kept, list[BlockPosition]]:
    """(6) All blocks; where those of the manifest lie, which are not indexed yet.

    Nothing is begun for which there is no room: blocks that nothing refers to would be left on a full disk.
    """
    recipient.require_room(missing(recipient.content, car))
    top = {received.root, *received.pages}
    put: list[BlockPosition] = []
    come = [cid for cid in car.order() if car.has(cid)]  # a delivery may lack what is held
    below = keep(recipient.content, car, recipient.index_blocks, (cid for cid in come if cid not in top))
    above = keep(recipient.content, car, put.extend, [cid for cid in come if cid in top])
    return Kept(below.blocks + above.blocks, below.size + above.size, below.new + above.new), put


def _placed(recipient: Recipient, car: Car, instance: ReceivedInstance, opened: _Opened | None) -> ReceivedInstance:
    """The instance with the places of its blocks, and with its origin as its source.

    Another node does not choose in whose name an instance comes: of several versions the one that its own source sent
    last is served.
    """
    places = map(recipient.position, blocks_of(car, instance.link))
    metadata = instance.metadata
    if opened is not None and opened.origin is not None:
        metadata = replace(metadata, source=f"node {opened.origin.hex()}")
    return instance._replace(metadata=metadata, placed=tuple(place for place in places if place is not None))


def _take(
    recipient: Recipient,
    actor: Actor,
    received: Received,
    instances: Sequence[ReceivedInstance],
    put: Sequence[BlockPosition],
    opened: _Opened | None,
    envelope: Envelope | None,
    kept: Kept,
    delivery: Delivery | None,
) -> Adopted:
    """(8) Tree, instances, positions and records at once; (9) the batch closed."""
    tree = AdoptedTree(
        study=opened.study if opened else None,
        origin=opened.origin if opened else b"",
        tag=received.tag,
        root=received.root,
        pages=received.pages,
        links=received.links,
    )
    key = opened.keys[-1] if opened else None
    # Sealed under this node's own key of the study: the records stay when the keys of a grant are gone.
    secret = (
        derive.record_key(recipient.keys.study_key(opened.study))
        if opened
        else derive.node_record_key(recipient.keystore.audit_key)
    )
    purpose, refs = ("TREAT", ()) if delivery is None else (delivery.purpose, (delivery.grant,))
    said: dict[str, object] = {"actor": by(actor), "root": cids.to_text(received.root), "blocks": kept.blocks}
    if envelope is not None:
        said |= {"sender": envelope.sender.hex(), "verifier": envelope.verifier}

    def records(outcomes: Sequence[Outcome]) -> list[SealedRecord]:
        bodies = [said | ({"study": opened.study} if opened else {})]
        bodies += [_body(actor, instance, outcome) for instance, outcome in zip(instances, outcomes, strict=True)]
        return [recipient.provenance.seal(KIND, body, secret) for body in bodies]

    adopted = None
    while adopted is None:
        open_batch = recipient.batches.open(KIND, actor, key, purpose, refs=refs)
        adopted = recipient.batches.adopt(
            open_batch, lambda batch: recipient.take(tree, instances, put, (batch, records))
        )
    recipient.batches.close_or_log([open_batch])
    return adopted


def _body(actor: Actor, instance: ReceivedInstance, outcome: Outcome) -> dict[str, object]:
    """The record of one instance, as `bridge.services.store` writes it."""
    metadata = instance.metadata
    return {
        "actor": by(actor),
        "study": metadata.study,
        "series": metadata.series,
        "instance": metadata.sop,
        "class": metadata.sop_class,
        "digest": metadata.digest,
        "source": metadata.source,
        "outcome": outcome.value,
        "conflict": outcome is Outcome.VERSION,
    }


def _keep_sealed(recipient: Recipient, actor: Actor, car: Car, report: Report) -> Imported:
    """Keep and pin a tree that is no study's manifest: blocks are blocks, and nothing of them is shown to anybody."""
    recipient.require_room(missing(recipient.content, car))
    kept = keep(recipient.content, car, recipient.index_blocks)
    open_batch = recipient.batches.open(KIND, actor, None, "TREAT")
    body = {"actor": by(actor), "root": cids.to_text(car.root), "blocks": kept.blocks}
    secret = derive.node_record_key(recipient.keystore.audit_key)
    recipient.batches.append(open_batch, [recipient.provenance.seal(KIND, body, secret)])
    recipient.batches.close_or_log([open_batch])
    return Imported(car.root, None, 0, {}, kept, _pin(recipient, car.root, report), None)


def _pin(recipient: Recipient, root: bytes, report: Report) -> bool:
    """(9) Pin the root; what cannot be done now is done by the node's content process later."""
    try:
        recipient.content.pin(root)
    except (EngineFault, CapacityError) as error:
        report(f"not pinned yet: {error.detail}")
        return False
    return True
