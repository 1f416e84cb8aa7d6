"""HPKE (RFC 9180), base mode, and the printable name under which a node receives studies.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (0x0020, 0x0001, 0x0002). What is sealed is the
encapsulated key (32 bytes) followed by the ciphertext. Base mode does not say who sealed: a signature around it must.

A recipient is written as "cairn1" and lower-case unpadded base32 (RFC 4648) of: version (1 byte, 1), node id (16),
X25519 public key (32), the first 4 bytes of SHA-256 of all before it, against slips in copying.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final, NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

__all__ = ["ENCAPSULATED_SIZE", "TAG_SIZE", "Recipient", "open_sealed", "seal"]

ENCAPSULATED_SIZE: Final = 32
TAG_SIZE: Final = 16
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_PREFIX: Final = "cairn1"
_VERSION: Final = b"\x01"
_NODE_SIZE, _KEY_SIZE, _CHECK_SIZE = 16, 32, 4


class Recipient(NamedTuple):
    """Who studies are sealed to: 16-byte node id, 32-byte X25519 public key (RFC 7748)."""

    node: bytes
    key: bytes

    @classmethod
    def of(cls, node: bytes, agreement_seed: bytes) -> Self:
        """The recipient of a node's 32-byte private key."""
        return cls(node, X25519PrivateKey.from_private_bytes(agreement_seed).public_key().public_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the printable form strictly. Raises ValueError for anything that `text` would not print."""
        body = text.removeprefix(_PREFIX)
        if body == text or not body.isascii() or body != body.lower():
            raise ValueError(f"a recipient begins with {_PREFIX}, in lower case")
        try:
            data = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
        except ValueError:
            raise ValueError("a recipient is base32; was it copied whole?") from None
        if len(data) != 1 + _NODE_SIZE + _KEY_SIZE + _CHECK_SIZE or data[:1] != _VERSION:
            raise ValueError("a recipient has another length or version; was it copied whole?")
        found = cls(data[1 : 1 + _NODE_SIZE], data[1 + _NODE_SIZE : -_CHECK_SIZE])
        if found.text() != text:
            raise ValueError("the recipient's check digits do not match: it was copied wrongly")
        return found

    def text(self) -> str:
        """The printable form, 91 characters."""
        data = _VERSION + self.node + self.key
        data += hashlib.sha256(data).digest()[:_CHECK_SIZE]
        return _PREFIX + base64.b32encode(data).decode().rstrip("=").lower()


def seal(recipient_key: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Seal to a 32-byte X25519 public key; `info` must be given again to open.

    Raises ValueError for a key of small order, with which there is no secret (RFC 7748 section 6.1).
    """
    return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(recipient_key), info)


def open_sealed(agreement_seed: bytes, info: bytes, sealed: bytes) -> bytes:
    """The plaintext. Raises ValueError when it was sealed to another key, under another `info`, or altered."""
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(agreement_seed), info)
    except (InvalidTag, ValueError):
        raise ValueError("it does not open with this node's key") from None
