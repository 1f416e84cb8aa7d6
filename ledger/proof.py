"""A proof that fits in a file: C2SP tlog-proof v1 of an entry, and optionally of one record in its batch.

The `extra` line holds canonical CBOR {"e": envelope} and, for a record, {"r": {"i": position in the batch, "l": leaf
hash, "n": records in the batch, "p": inclusion path, and "b": record bytes unless they are withheld}}. It is verified
with nothing but the log's verifier key or a trust policy. What does not hold is named by its step, the error's place.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ledger import checkpoint, codec, entry, keys, merkle, record
from ledger.checkpoint import Checkpoint, Verifier, decode_base64
from ledger.entry import Entry
from ledger.errors import CodecError, LedgerError, ProofInvalid
from ledger.policy import Accepted, Cosigned, Policy
from ledger.record import Record

STEPS = ("format", "checkpoint", "witnesses", "inclusion", "entry", "batch", "record")
"""What is checked, in order; the place of an error is one of these."""
FIRST_LINE = "c2sp.org/tlog-proof@v1"
MAX_SIZE = 512 * 1024  # characters of a proof; its checkpoint may have many cosignatures
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
class Parts:
    """What a proof says, unverified: envelope, index, inclusion path, checkpoint, and a record's path in the batch."""

    envelope: bytes
    index: int
    path: tuple[bytes, ...]
    note: str
    of: RecordPath | None


@dataclass(frozen=True, slots=True)
class Proved:
    """What a proof has shown: the entry at an index of the checkpointed log, and the record it covers, if any.

    `leaf` is the entry's id, `record_leaf` the record's; `record` is None when its bytes are withheld. `log` is the
    key that signed, `cosigned` are the witnesses of the policy that cosigned the checkpoint.
    """

    index: int
    head: Checkpoint
    entry: Entry
    leaf: bytes
    record_leaf: bytes | None
    record: Record | None
    log: Verifier
    cosigned: tuple[Cosigned, ...] = ()


def record_path(leaves: Sequence[bytes], position: int, encoded: bytes | None = None) -> RecordPath:
    """The path of the record at a position among a batch's leaf hashes. Raises ProofInvalid beyond them."""
    path = merkle.inclusion_proof(position, len(leaves), merkle.node_reader(leaves))
    return RecordPath(position, len(leaves), leaves[position], tuple(path), encoded)


def make(index: int, envelope: bytes, note: str, read: merkle.NodeReader, of: RecordPath | None = None) -> str:
    """The proof of the entry at `index` under a signed checkpoint whose tree `read` gives.

    Raises ProofInvalid when the checkpoint does not cover the index, CodecError when the note is none.
    """
    size = checkpoint.parse(checkpoint.split_note(note)[0]).size
    return encode(envelope, index, merkle.inclusion_proof(index, size, read), note, of)


def encode(envelope: bytes, index: int, path: Sequence[bytes], note: str, of: RecordPath | None = None) -> str:
    """The text of a proof from its parts; raises CodecError when they are larger than a proof may be."""
    extra: dict[str, object] = {"e": envelope}
    if of is not None:
        said = {"i": of.position, "l": of.leaf, "n": of.count, "p": of.path}
        extra["r"] = said if of.record is None else {**said, "b": of.record}
    lines = [
        FIRST_LINE,
        f"extra {base64.b64encode(codec.encode(extra, _MAX_EXTRA)).decode()}",
        f"index {index}",
        *(base64.b64encode(item).decode() for item in path),
    ]
    return "\n".join(lines) + "\n\n" + note


def verify(text: str, origin: str, public_key: keys.PublicKey) -> Proved:
    """What a proof shows to who knows the log's name and key and asks for no witnesses. Raises as `verify_under`."""
    return verify_under(text, Policy.of_log(origin, public_key))


def verify_under(text: str, policy: Policy) -> Proved:
    """What a proof shows under a policy. Entries are signed with keys of the log: a solo log has but one.

    1. the checkpoint is signed by a log of the policy     2. and cosigned by a quorum of its witnesses
    3. the envelope's leaf is in its tree at the index     4. the envelope is strict and signed
    5. the record's leaf is in the entry's batch           6. the record's bytes are that leaf

    Raises LedgerError: CodecError when it is malformed, SignatureInvalid or ProofInvalid when it does not hold; its
    place is the step that failed.
    """
    parts = parse(text)
    accepted = policy.accept(parts.note)  # (1), (2)
    return verify_parts(parts, accepted, _signer(parts.envelope, accepted, policy))


def _signer(envelope: bytes, accepted: Accepted, policy: Policy) -> bytes:
    """The key that an envelope names: in a shared log any of its members' keys may have signed the checkpoint."""
    named = {keys.key_id(log.key): log.key for log in policy.logs if log.name == accepted.log.name}
    try:
        return named.get(entry.unwrap(envelope)[0][-keys.KID_SIZE :], accepted.log.key)
    except CodecError:  # which step 4 says, when it comes to it
        return accepted.log.key


def parse(text: str) -> Parts:
    """What a proof says, unverified. Raises CodecError, its place "format"."""
    with _step("format"):
        extra, index, path, note = _split(text)
        envelope = extra.get("e")
        if not isinstance(envelope, bytes) or not set(extra) <= {"e", "r"}:
            raise CodecError("the extra data hold no envelope")
        return Parts(envelope, index, tuple(path), note, _record_path(extra["r"]) if "r" in extra else None)


def verify_parts(parts: Parts, accepted: Accepted, key: keys.PublicKey) -> Proved:
    """Steps 3 to 6 of `verify_under`, under an accepted checkpoint, of an entry signed with `key`. Raises as that."""
    head, of = accepted.head, parts.of
    with _step("inclusion"):
        leaf = entry.leaf_hash(parts.envelope)
        merkle.verify_inclusion(leaf, parts.index, head.size, parts.path, head.root)  # (3)
    with _step("entry"):
        said = entry.open(parts.envelope, key)  # (4)
    if of is None:
        return Proved(parts.index, head, said, leaf, None, None, accepted.log, accepted.cosigned)
    with _step("batch"):
        merkle.verify_inclusion(of.leaf, of.position, of.count, of.path, said.records_root)  # (5)
    with _step("record"):
        if of.record is not None and record.leaf_hash(of.record) != of.leaf:  # (6)
            raise ProofInvalid("the record does not hash to its leaf")
        opened = None if of.record is None else record.decode(of.record)
    return Proved(parts.index, head, said, leaf, of.leaf, opened, accepted.log, accepted.cosigned)


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Name the step in what is raised."""
    try:
        yield
    except LedgerError as error:
        raise type(error)(error.detail, name) from error


def _split(text: str) -> tuple[dict[str, Any], int, list[bytes], str]:
    """Extra data, index, inclusion path and checkpoint of a proof."""
    if len(text) > MAX_SIZE:
        raise CodecError("longer than 512 Ki characters")
    top, separator, note = text.partition("\n\n")
    lines = top.split("\n")
    if not separator or len(lines) < 3 or lines[0] != FIRST_LINE:
        raise CodecError("not a tlog-proof of version 1")
    kind, _, digits = lines[2].partition(" ")
    label, _, encoded = lines[1].partition(" ")
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else -1
    if label != "extra" or kind != "index" or str(number) != digits:
        raise CodecError("an extra line and an index line are expected")
    extra = codec.decode(decode_base64(encoded, "extra"), _MAX_EXTRA)
    path = [decode_base64(line, "path") for line in lines[3:]]
    if not isinstance(extra, dict) or any(len(item) != merkle.HASH_SIZE for item in path):
        raise CodecError("extra data or a hash of the path are malformed")
    return extra, number, path, note


def _record_path(value: object) -> RecordPath:
    match value:
        case {"i": int() as position, "l": bytes() as leaf, "n": int() as count, "p": list() as path, **rest}:
            null = rest.get("b", b"") is None  # what is withheld is left out, so that there is one encoding of it
            encoded = rest.pop("b", None)
            plain = not rest and not null and bool not in (type(position), type(count))
            if plain and (encoded is None or type(encoded) is bytes):
                hashes = tuple(item for item in path if type(item) is bytes and len(item) == merkle.HASH_SIZE)
                if len(hashes) == len(path):
                    return RecordPath(position, count, leaf, hashes, encoded)
    raise CodecError("the record's path is malformed")
