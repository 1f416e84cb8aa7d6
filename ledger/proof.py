"""A proof that fits in a file: C2SP tlog-proof v1 of an entry, and optionally of one record in its batch.

The `extra` line holds canonical CBOR {"e": envelope} and, for a record, {"r": {"i": position in the batch, "l": leaf
hash, "n": records in the batch, "p": inclusion path, and "b": record bytes unless they are withheld}}. It is verified
with nothing but the log's origin and key.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger import checkpoint, codec, entry, keys, merkle, record
from ledger.checkpoint import Checkpoint
from ledger.entry import Entry
from ledger.errors import CodecError, ProofInvalid
from ledger.record import Record

FIRST_LINE = "c2sp.org/tlog-proof@v1"
MAX_SIZE = 256 * 1024  # characters of a proof
_MAX_EXTRA = 64 * 1024  # bytes: an envelope, a record, a path


@dataclass(frozen=True, slots=True)
class RecordPath:
    """One record of a batch: its position among `count`, leaf hash, inclusion path, and its bytes unless withheld."""

    position: int
    count: int
    leaf: bytes
    path: tuple[bytes, ...]
    record: bytes | None = None


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof has shown: the entry at an index of the checkpointed log, and the record it covers, if any."""

    index: int
    head: Checkpoint
    entry: Entry
    leaf: bytes
    record_leaf: bytes | None
    record: Record | None


def record_path(leaves: Sequence[bytes], position: int, encoded: bytes | None = None) -> RecordPath:
    """The path of the record at a position among a batch's leaf hashes. Raises ProofInvalid beyond them."""
    path = merkle.inclusion_proof(position, len(leaves), merkle.node_reader(leaves))
    return RecordPath(position, len(leaves), leaves[position], tuple(path), encoded)


def make(index: int, envelope: bytes, note: str, read: merkle.NodeReader, of: RecordPath | None = None) -> str:
    """The proof of the entry at `index` under a signed checkpoint whose tree `read` gives.

    Raises ProofInvalid when the checkpoint does not cover the index, CodecError when the note is none.
    """
    size = checkpoint.parse(checkpoint.split_note(note)[0]).size
    extra: dict[str, object] = {"e": envelope}
    if of is not None:
        said = {"i": of.position, "l": of.leaf, "n": of.count, "p": of.path}
        extra["r"] = said if of.record is None else {**said, "b": of.record}
    lines = [
        FIRST_LINE,
        f"extra {base64.b64encode(codec.encode(extra, _MAX_EXTRA)).decode()}",
        f"index {index}",
        *(base64.b64encode(item).decode() for item in merkle.inclusion_proof(index, size, read)),
    ]
    return "\n".join(lines) + "\n\n" + note


def verify(text: str, origin: str, public_key: keys.PublicKey) -> Proved:
    """What a proof shows under the key of a solo log, which signs its entries with the same key as its checkpoints.

    1. the checkpoint is signed, and of this origin     2. the envelope's leaf is in its tree at the index
    3. the envelope is strict and signed                4. the record's leaf is in the entry's batch
    5. the record's bytes are that leaf

    Raises LedgerError: CodecError when it is malformed, SignatureInvalid or ProofInvalid when it does not hold.
    """
    extra, index, path, note = _split(text)
    head = checkpoint.verify(note, origin, public_key)  # (1)
    envelope = extra.get("e")
    if not isinstance(envelope, bytes) or not set(extra) <= {"e", "r"}:
        raise CodecError("the extra data hold no envelope", "proof")
    leaf = entry.leaf_hash(envelope)
    merkle.verify_inclusion(leaf, index, head.size, path, head.root)  # (2)
    said = entry.open(envelope, public_key)  # (3)
    if "r" not in extra:
        return Proved(index, head, said, leaf, None, None)
    of = _record_path(extra["r"])
    merkle.verify_inclusion(of.leaf, of.position, of.count, of.path, said.records_root)  # (4)
    if of.record is not None and record.leaf_hash(of.record) != of.leaf:  # (5)
        raise ProofInvalid("the record does not hash to its leaf", "proof")
    return Proved(index, head, said, leaf, of.leaf, None if of.record is None else record.decode(of.record))


def _split(text: str) -> tuple[dict[str, Any], int, list[bytes], str]:
    """Extra data, index, inclusion path and checkpoint of a proof."""
    if len(text) > MAX_SIZE:
        raise CodecError("longer than 256 Ki characters", "proof")
    top, separator, note = text.partition("\n\n")
    lines = top.split("\n")
    if not separator or len(lines) < 3 or lines[0] != FIRST_LINE:
        raise CodecError("not a tlog-proof of version 1", "proof")
    kind, _, digits = lines[2].partition(" ")
    label, _, encoded = lines[1].partition(" ")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else -1
    if label != "extra" or kind != "index" or str(number) != digits:
        raise CodecError("an extra line and an index line are expected", "proof")
    extra = codec.decode(_base64(encoded), _MAX_EXTRA)
    path = [_base64(line) for line in lines[3:]]
    if not isinstance(extra, dict) or any(len(item) != merkle.HASH_SIZE for item in path):
        raise CodecError("extra data or a hash of the path are malformed", "proof")
    return extra, number, path, note


def _record_path(value: object) -> RecordPath:
    match value:
        case {"i": int() as position, "l": bytes() as leaf, "n": int() as count, "p": list() as path, **rest}:
            encoded = rest.pop("b", None)
            if not rest and (encoded is None or type(encoded) is bytes):
                hashes = tuple(item for item in path if type(item) is bytes and len(item) == merkle.HASH_SIZE)
                if len(hashes) == len(path):
                    return RecordPath(position, count, leaf, hashes, encoded)
    raise CodecError("the record's path is malformed", "proof")


def _base64(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CodecError("not base64", "proof") from error
    if base64.b64encode(value).decode() != text:
        raise CodecError("not the canonical base64", "proof")
    return value
