"""Checkpoints: C2SP tlog-checkpoint v1.0.0 as C2SP signed-note v1.0.0, Ed25519 (signature type 0x01).

A note is text ending in a newline, an empty line, and signature lines "— <name> base64(key id || signature)".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from ledger import keys
from ledger.errors import CodecError, LedgerError, SignatureInvalid

ED25519 = b"\x01"  # signature type of signed-note
MAX_NOTE = 256 * 1024  # characters; 16 signatures of 5 kB (107 k in base64) must be accepted, as signed-note asks
_MARK = "— "
_CONTROL = re.compile(r"[\x00-\x1f]")
_SPACE = re.compile(r"[\s\x00-\x1f]")


class Verifier(NamedTuple):
    """A named public key of a signature type: what a vkey says."""

    name: str
    key: bytes
    type: bytes = ED25519

    @property
    def id(self) -> bytes:
        """SHA-256(name || 0x0A || signature type || public key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.type + self.key).digest()[:4]

    def vkey(self) -> str:
        """Its text form: name+hex(key id)+base64(signature type || public key)."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.type + self.key).decode()}"


class Signature(NamedTuple):
    """One signature line: key name, 4-byte key id, signature bytes."""

    name: str
    id: bytes
    signature: bytes


class Checkpoint(NamedTuple):
    """A tree head: the log's origin, its number of leaves, its RFC 6962 root."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The note text that is signed; raises CodecError for an origin that would not be read back."""
        if not self.origin or _CONTROL.search(self.origin):
            raise CodecError("an origin is one non-empty line", "checkpoint")
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def vkey(name: str, public_key: keys.PublicKey) -> str:
    """The verifier key in its text form: name+hex(key id)+base64(0x01 || public key)."""
    return Verifier(key_name(name), keys.raw(public_key)).vkey()


def parse_vkey(text: str, type: bytes = ED25519) -> Verifier:
    """The verifier of a vkey; raises CodecError when it is malformed, of another type, or its id not that of its key.

    `type` is the signature type that is expected; all that are known hold an Ed25519 key of 32 bytes.
    """
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise CodecError("a vkey is name+id+key", "vkey")
    material = decode_base64(parts[2], "vkey")
    if material[:1] != type or len(material) != 33:
        raise CodecError(f"not an Ed25519 key of type 0x{type.hex()}", "vkey")
    verifier = Verifier(key_name(parts[0]), material[1:], type)
    if verifier.id.hex() != parts[1]:
        raise CodecError("the key id is not that of the name and key", "vkey")
    return verifier


def sign_note(text: str, name: str, signer: keys.Signer) -> str:
    """The text with one signature line; raises CodecError when the text cannot be a note's."""
    _check_text(text)
    verifier = Verifier(key_name(name), keys.raw(signer.public_key()))
    return f"{text}\n{signature_line(verifier, signer.sign(text.encode()))}"


def signature_line(verifier: Verifier, signature: bytes) -> str:
    """The line of a note that holds a signature by this key, with its newline."""
    return f"{_MARK}{verifier.name} {base64.b64encode(verifier.id + signature).decode()}\n"


def split_note(note: str) -> tuple[str, list[Signature]]:
    """The text and the signature lines of a note, unverified; raises CodecError when it is not a note."""
    if len(note) > MAX_NOTE:
        raise CodecError("longer than 256 Ki characters", "note")
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise CodecError("no empty line before signature lines", "note")
    text += "\n"
    _check_text(text)
    return text, [_signature(line) for line in lines[:-1].split("\n")]


def open_note(note: str, verifier: Verifier) -> str:
    """The text of a note signed by the verifier's key; other keys' lines are ignored.

    Raises CodecError when it is not a note, SignatureInvalid when there is no line of that key or one does not verify.
    """
    text, signatures = split_note(note)
    own = signatures_of(verifier, signatures)
    if not own:
        raise SignatureInvalid(f"not signed by {verifier.name}", "note")
    key = keys.raw(verifier.key)
    for signature in own:
        keys.check(key, signature, text.encode())
    return text


def signatures_of(verifier: Verifier, lines: Sequence[Signature]) -> list[bytes]:
    """The signatures in the lines that this key's name and id are on; lines of unknown keys are passed over."""
    return [line.signature for line in lines if (line.name, line.id) == (verifier.name, verifier.id)]


def make(origin: str, size: int, root: bytes, signer: keys.Signer) -> str:
    """The checkpoint signed by the log, its key named like its origin. Raises CodecError for a bad origin."""
    return sign_note(Checkpoint(origin, size, root).body(), origin, signer)


def parse(text: str) -> Checkpoint:
    """The tree head of a note text; extension lines are passed over. Raises CodecError."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise CodecError("fewer than three lines, or an empty one", "checkpoint")
    origin, size, digest = lines[:3]
    if not (size.isascii() and size.isdecimal()) or (size != "0" and size.startswith("0")) or len(size) > 19:
        raise CodecError("the tree size is not a decimal number", "checkpoint")
    root = decode_base64(digest, "checkpoint")
    if len(root) != 32:
        raise CodecError("the root is not 32 bytes", "checkpoint")
    return Checkpoint(origin, int(size), root)


def verify(note: str, origin: str, public_key: keys.PublicKey) -> Checkpoint:
    """The tree head of a signed checkpoint of this origin.

    Raises CodecError when it is malformed, SignatureInvalid when it is not signed by the key, LedgerError when it is
    another log's.
    """
    head = parse(open_note(note, Verifier(origin, keys.raw(public_key))))
    if head.origin != origin:
        raise LedgerError("the checkpoint is of another origin", "checkpoint")
    return head


def _signature(line: str) -> Signature:
    parts = line.removeprefix(_MARK).split(" ")
    if not line.startswith(_MARK) or len(parts) != 2:
        raise CodecError("a malformed signature line", "note")
    value = decode_base64(parts[1], "note")
    if len(value) < 5:
        raise CodecError("a signature line too short", "note")
    return Signature(key_name(parts[0]), value[:4], value[4:])


def _check_text(text: str) -> None:
    if not text.endswith("\n") or _CONTROL.search(text.replace("\n", "")):
        raise CodecError("a note's text ends in a newline and has no other control character", "note")


def key_name(name: str) -> str:
    """The name, when it can name a key; raises CodecError when not."""
    if not name or "+" in name or _SPACE.search(name):
        raise CodecError("a key name is not empty and has neither spaces nor plus", "note")
    return name


def decode_base64(text: str, place: str) -> bytes:
    """Strict base64 (RFC 4648 section 4): the one spelling of its bytes."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CodecError("not base64", place) from error
    if base64.b64encode(value).decode() != text:
        raise CodecError("not the canonical base64", place)
    return value
