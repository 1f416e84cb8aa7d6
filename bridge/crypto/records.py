"""Provenance records sealed so that erasing a key erases the detail, while the leaf hash keeps the tree verifiable.

Sealed form: 12-byte random nonce, then AES-256-GCM (NIST SP 800-38D) of the record; associated data is a label and
the record's leaf hash.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bridge.errors import ContentCorrupt
from bridge.model import SealedRecord

__all__ = ["leaf_hash", "open_record", "seal_record"]

_LABEL: Final = b"cairn/1 record\0"
_NONCE_SIZE: Final = 12


def leaf_hash(record: bytes) -> bytes:
    """SHA-256(0x00 || record), the Merkle leaf hash of RFC 6962 section 2.1."""
    return hashlib.sha256(b"\0" + record).digest()


def seal_record(key: bytes, record: bytes) -> SealedRecord:
    """Seal a record under a 32-byte key of `derive.record_key` or `derive.node_record_key`."""
    leaf = leaf_hash(record)
    nonce = os.urandom(_NONCE_SIZE)
    return SealedRecord(leaf, nonce + AESGCM(key).encrypt(nonce, record, _LABEL + leaf))


def open_record(key: bytes, record: SealedRecord) -> bytes:
    """The record's bytes. Raises ContentCorrupt when it does not open under this key and leaf, or is not that leaf."""
    nonce, sealed = record.sealed[:_NONCE_SIZE], record.sealed[_NONCE_SIZE:]
    try:
        plaintext = AESGCM(key).decrypt(nonce, sealed, _LABEL + record.leaf)
    except (InvalidTag, ValueError):
        raise ContentCorrupt(f"record {record.leaf.hex()} does not open") from None
    if leaf_hash(plaintext) != record.leaf:
        raise ContentCorrupt(f"record {record.leaf.hex()} is not what its leaf hash says")
    return plaintext
