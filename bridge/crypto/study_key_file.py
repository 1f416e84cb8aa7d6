"""The file that carries a study's keys to one other node: sealed to it by HPKE, signed by its sender.

An untagged COSE_Sign1 (RFC 9052 section 4.2) in strict CBOR, laid down in docs/study-transfer.md: what is readable says
for whom it is and which sealed study it opens; the Study Instance UID and the keys are in the sealed part alone. The
signature's external data keep it apart from entries of the ledger, which the same key signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bridge.crypto import hpke
from bridge.crypto.hpke import Recipient
from bridge.errors import KeyFileInvalid
from bridge.model import StudyKey
from ledger import checkpoint, codec
from ledger import keys as signing
from ledger.entry import ledger_id
from ledger.errors import CodecError, SignatureInvalid

__all__ = ["MAX_SIZE", "Envelope", "SealedKeys", "open_keys", "read", "write"]

MAX_SIZE: Final = 64 << 10  # bytes of a file: some 1,500 generations
BY_HAND, BY_GRANT = 1, 2
"""Versions: of a file that somebody carries, and of one that delivers a grant of the ledger (`gr`)."""
_LABEL: Final = b"cairn/1 study key file"
_PROTECTED: Final = bytes.fromhex("a201270448")  # {1: -8 (EdDSA), 4: kid of 8 bytes}
_SIZES: Final = {"lg": 8, "n": 16, "k": 32, "to": 16, "o": 16, "s": 16}
_FIELDS: Final = frozenset({*_SIZES, "v", "log", "g", "r", "ts", "sealed"})
_GRANT: Final = "gr"
_GRANT_SIZE: Final = 32
_KEY_SIZE: Final = 32
_LONGEST_UID: Final = 64
_MAX_GENERATION: Final = 0xFFFF_FFFF


class SealedKeys(NamedTuple):
    """What a key file opens to: the keys, ascending by generation, of one study under one tag."""

    study: str
    keys: tuple[StudyKey, ...]


@dataclass(frozen=True, slots=True)
class Envelope:
    """The readable part of a key file.

    `log` is the name of the sender's log (C2SP tlog-checkpoint origin), `sender` its node id and `sender_key` its
    Ed25519 public key; `recipient` the node it is sealed to; `origin` the node whose keys they are (16 bytes each);
    `tag` the study's tag, `generations` those of the keys, ascending; `root` the StudyRoot's CID; `made` microseconds
    since the epoch; `grant` the id of the ledger's entry that it delivers, 32 bytes, None for a file made by hand.
    """

    log: str
    sender: bytes
    sender_key: bytes
    recipient: bytes
    origin: bytes
    tag: bytes
    generations: tuple[int, ...]
    root: bytes
    made: int
    sealed: bytes = b""
    grant: bytes | None = None

    @property
    def ledger(self) -> bytes:
        """The id of the sender's ledger, 8 bytes."""
        return ledger_id(self.log, self.sender_key)

    @property
    def verifier(self) -> str:
        """The sender's verifier key (C2SP signed-note vkey), as `cairn key show` prints it there."""
        return checkpoint.vkey(self.log, self.sender_key)

    def info(self) -> bytes:
        """HPKE's `info`: everything that is readable, so that a sealed part cannot be moved to another envelope."""
        fields = self.fields()
        del fields["sealed"]
        return _LABEL + b"\0" + codec.encode(fields, MAX_SIZE)

    def fields(self) -> dict[str, Any]:
        """The payload as a map."""
        granted = {} if self.grant is None else {_GRANT: self.grant}
        return granted | {
            "v": BY_HAND if self.grant is None else BY_GRANT,
            "log": self.log,
            "lg": self.ledger,
            "n": self.sender,
            "k": self.sender_key,
            "to": self.recipient,
            "o": self.origin,
            "s": self.tag,
            "g": list(self.generations),
            "r": self.root,
            "ts": self.made,
            "sealed": self.sealed,
        }


def write(envelope: Envelope, keys: Iterable[StudyKey], recipient: Recipient, private_key: signing.Signer) -> bytes:
    """The file: `keys` sealed to `recipient`, signed. `envelope.sealed` and its generations are made here.

    Raises ValueError for a recipient with which there is no secret, or for keys of several studies.
    """
    ordered = sorted(keys, key=lambda key: key.generation)
    if len({key.study for key in ordered}) != 1 or any(key.tag != envelope.tag for key in ordered):
        raise ValueError("the keys are those of one study under the envelope's tag")
    fields = envelope.fields() | {"g": [key.generation for key in ordered], "to": recipient.node}
    told = _envelope(fields)
    plain = {"u": ordered[0].study, "k": [[key.generation, key.secret] for key in ordered]}
    sealed = hpke.seal(recipient.key, told.info(), codec.encode(plain, MAX_SIZE))
    payload = codec.encode({**fields, "sealed": sealed}, MAX_SIZE)
    protected = _PROTECTED + signing.key_id(private_key.public_key())
    return codec.encode([protected, {}, payload, private_key.sign(_to_be_signed(protected, payload))], MAX_SIZE)


def read(data: bytes) -> Envelope:
    """The readable part of a file whose signature verifies under the key that it names.

    Who holds that key is for the reader to judge. Raises KeyFileInvalid for anything that `write` would not write.
    """
    try:
        match codec.decode(data, MAX_SIZE):
            case [bytes() as protected, {} as unprotected, bytes() as payload, bytes() as signature] if not unprotected:
                fields: Any = codec.decode(payload, MAX_SIZE)
            case _:
                raise KeyFileInvalid("it is not a key file")
        envelope = _envelope(fields)
        if protected != _PROTECTED + signing.key_id(envelope.sender_key):
            raise KeyFileInvalid("the key file names another algorithm or key than it holds")
        signing.check(envelope.sender_key, signature, _to_be_signed(protected, payload))
    except CodecError as error:
        raise KeyFileInvalid(f"it is not a key file: {error}") from None
    except SignatureInvalid as error:
        raise KeyFileInvalid(f"the key file was altered: {error}") from None
    return envelope


def open_keys(envelope: Envelope, node: bytes, agreement_seed: bytes) -> SealedKeys:
    """The keys, for the node they are sealed to. Raises KeyFileInvalid when that is another, or they do not open."""
    if envelope.recipient != node:
        raise KeyFileInvalid(f"the key file is sealed to node {envelope.recipient.hex()}, not to this one")
    try:
        value: Any = codec.decode(hpke.open_sealed(agreement_seed, envelope.info(), envelope.sealed), MAX_SIZE)
        study, pairs = value["u"], value["k"]
        keys = tuple(StudyKey(study, generation, envelope.tag, secret) for generation, secret in pairs)
        sound = value.keys() == {"u", "k"} and type(study) is str and 0 < len(study) <= _LONGEST_UID
        sound = sound and tuple(key.generation for key in keys) == envelope.generations
        sound = sound and all(_is_generation(key.generation) and type(key.secret) is bytes for key in keys)
        if not sound or any(len(key.secret) != _KEY_SIZE for key in keys):
            raise ValueError("its sealed part is not that of a key file")
    except (ValueError, TypeError, KeyError, AttributeError, CodecError) as error:
        raise KeyFileInvalid(f"the key file: {error}") from None
    return SealedKeys(study, keys)


def _envelope(fields: Any) -> Envelope:
    """The fields in their ranges. Raises KeyFileInvalid."""
    if type(fields) is not dict or fields.keys() - {_GRANT} != _FIELDS:
        raise KeyFileInvalid("the key file has other fields")
    version = BY_GRANT if _GRANT in fields else BY_HAND
    if type(fields["v"]) is not int or fields["v"] != version:
        raise KeyFileInvalid(f"the key file is of version {fields['v']}, which this node does not read")
    sizes = _SIZES | ({_GRANT: _GRANT_SIZE} if version == BY_GRANT else {})
    sized = all(type(fields[name]) is bytes and len(fields[name]) == size for name, size in sizes.items())
    generations, root, made = fields["g"], fields["r"], fields["ts"]
    counted = type(generations) is list and len(generations) > 0 and all(map(_is_generation, generations))
    if not sized or not counted or generations != sorted(set(generations)):
        raise KeyFileInvalid("a field of the key file is not as it must be")
    if type(root) is not bytes or type(fields["sealed"]) is not bytes or type(made) is not int or made < 0:
        raise KeyFileInvalid("a field of the key file is not as it must be")
    log = fields["log"]
    if type(log) is not str or checkpoint.key_name(log) != log or ledger_id(log, fields["k"]) != fields["lg"]:
        raise KeyFileInvalid("the key file names another ledger than that of its sender's key")
    return Envelope(
        log=log,
        sender=fields["n"],
        sender_key=fields["k"],
        recipient=fields["to"],
        origin=fields["o"],
        tag=fields["s"],
        generations=tuple(generations),
        root=root,
        made=made,
        sealed=fields["sealed"],
        grant=fields.get(_GRANT),
    )


def _is_generation(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_GENERATION


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052 section 4.4, with the label as external data."""
    return codec.encode(["Signature1", protected, _LABEL, payload], MAX_SIZE)
