"""Public keys and signers as the ledger needs them: Ed25519 (RFC 8032), raw 32 bytes."""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.errors import SignatureInvalid

PublicKey: TypeAlias = Ed25519PublicKey | bytes

SIGNATURE_SIZE = 64  # bytes
KID_SIZE = 8  # bytes


class Signer(Protocol):
    """What signs: an `Ed25519PrivateKey`, or an adapter to a key that lies elsewhere."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte Ed25519 signature over the data."""

    def public_key(self) -> Ed25519PublicKey:
        """The key that verifies."""


def raw(key: PublicKey) -> bytes:
    """The 32 bytes of a public key; raises SignatureInvalid when bytes of another length are given."""
    if isinstance(key, bytes):
        if len(key) != 32:
            raise SignatureInvalid("an Ed25519 public key is 32 bytes")
        return key
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def verifier(key: PublicKey) -> Ed25519PublicKey:
    """The key as an object that verifies; raises SignatureInvalid when the bytes are no key."""
    if isinstance(key, Ed25519PublicKey):
        return key
    try:
        return Ed25519PublicKey.from_public_bytes(raw(key))
    except ValueError as error:
        raise SignatureInvalid("not an Ed25519 public key") from error


def check(key: Ed25519PublicKey, signature: bytes, data: bytes) -> None:
    """Raise SignatureInvalid unless the signature over the data verifies."""
    try:
        key.verify(signature, data)
    except InvalidSignature as error:
        raise SignatureInvalid("the signature does not verify") from error


def node_id(first_public_key: PublicKey) -> bytes:
    """A node's identifier: the first 16 bytes of SHA-256 of its first public key."""
    return hashlib.sha256(raw(first_public_key)).digest()[:16]


def key_id(key: PublicKey) -> bytes:
    """The `kid` of COSE headers: the first 8 bytes of SHA-256 of the public key."""
    return hashlib.sha256(raw(key)).digest()[:KID_SIZE]
