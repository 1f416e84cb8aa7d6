"""Public keys and signers as the ledger needs them: Ed25519 (RFC 8032), raw 32 bytes.

Signed and verified by libsodium, in half the time of OpenSSL. Which signatures are taken is a rule of consensus, and
libsodium's: those of RFC 8032 section 5.1.7 without the cofactor, S below the order, no point of small order. All of
them are taken by OpenSSL, Go and WebCrypto too.
"""

from __future__ import annotations

import hashlib
from typing import Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from ledger.errors import SignatureInvalid

PublicKey: TypeAlias = Ed25519PublicKey | bytes

SIGNATURE_SIZE = 64  # bytes
KID_SIZE = 8  # bytes


class Signer(Protocol):
    """What signs: a `SigningKey`, or an adapter to a key that lies elsewhere."""

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte Ed25519 signature over the data."""

    def public_key(self) -> PublicKey:
        """The key that verifies."""


class SigningKey:
    """The private key that a seed of 32 bytes is (RFC 8032 section 5.1.5)."""

    def __init__(self, seed: bytes) -> None:
        self._public, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, data: bytes, /) -> bytes:
        """The 64-byte signature over the data."""
        signed: bytes = crypto_sign(data, self._secret)
        return signed[:SIGNATURE_SIZE]

    def public_key(self) -> bytes:
        """The 32 bytes of the key that verifies."""
        return self._public


def raw(key: PublicKey) -> bytes:
    """The 32 bytes of a public key; raises SignatureInvalid when bytes of another length are given."""
    if isinstance(key, bytes):
        if len(key) != 32:
            raise SignatureInvalid("an Ed25519 public key is 32 bytes")
        return key
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def check(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Raise SignatureInvalid unless the signature over the data verifies."""
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureInvalid(f"an Ed25519 signature is {SIGNATURE_SIZE} bytes")
    try:
        crypto_sign_open(signature + data, raw(key))
    except CryptoError as error:
        raise SignatureInvalid("the signature does not verify") from error


def node_id(first_public_key: PublicKey) -> bytes:
    """A node's identifier: the first 16 bytes of SHA-256 of its first public key."""
    return hashlib.sha256(raw(first_public_key)).digest()[:16]


def key_id(key: PublicKey) -> bytes:
    """The `kid` of COSE headers: the first 8 bytes of SHA-256 of the public key."""
    return hashlib.sha256(raw(key)).digest()[:KID_SIZE]
