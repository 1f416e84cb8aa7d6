"""What is derived from a key, and the strings that keep the derivations apart.

Every key is HKDF-SHA256 (RFC 5869) of a 32-byte secret, with the study tag as salt and as info a fixed label, a zero
byte, the generation (32 bit, big endian) and, where there is one, the instance tag. The labels are part of the stored
format: an object sealed under one is never opened under another.
"""

from __future__ import annotations

import struct
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bridge.model import StudyKey

__all__ = [
    "erased_mark_key",
    "key_id",
    "metadata_associated_data",
    "metadata_key",
    "node_record_key",
    "object_associated_data",
    "object_key",
    "record_key",
]

_KEY_SIZE: Final = 32
_OBJECT: Final = b"cairn/1 object"
_METADATA: Final = b"cairn/1 metadata"
_RECORD: Final = b"cairn/1 record"
_NODE_RECORD: Final = b"cairn/1 node record"
_ERASED: Final = b"cairn/1 erased study"
_KEY_ID: Final = b"cairn/1 key id"


def object_key(key: StudyKey, tag: bytes) -> bytes:
    """The key of the sealed object of the instance `tag`."""
    return _derive(key, _OBJECT, tag)


def metadata_key(key: StudyKey, tag: bytes) -> bytes:
    """The key of the sealed metadata of the instance `tag`."""
    return _derive(key, _METADATA, tag)


def record_key(key: StudyKey) -> bytes:
    """The key of the provenance records about a study."""
    return _derive(key, _RECORD)


def node_record_key(audit_key: bytes) -> bytes:
    """The key of the provenance records about no study, from the node's audit key."""
    return HKDF(SHA256(), _KEY_SIZE, None, _NODE_RECORD).derive(audit_key)


def erased_mark_key(audit_key: bytes) -> bytes:
    """The key of the marks by which an erased study is known again, from the node's audit key."""
    return HKDF(SHA256(), _KEY_SIZE, None, _ERASED).derive(audit_key)


def key_id(key: bytes) -> bytes:
    """16 bytes that tell a key-encryption key from another, and nothing of either."""
    return HKDF(SHA256(), 16, None, _KEY_ID).derive(key)


def object_associated_data(study_tag: bytes, generation: int, tag: bytes) -> bytes:
    """What a sealed object is bound to: format, study tag, generation, instance tag."""
    return _info(_OBJECT, generation, study_tag + tag)


def metadata_associated_data(study_tag: bytes, generation: int, tag: bytes) -> bytes:
    """What sealed metadata is bound to: format, study tag, generation, instance tag."""
    return _info(_METADATA, generation, study_tag + tag)


def _derive(key: StudyKey, label: bytes, tag: bytes = b"") -> bytes:
    return HKDF(SHA256(), _KEY_SIZE, key.tag, _info(label, key.generation, tag)).derive(key.secret)


def _info(label: bytes, generation: int, tail: bytes) -> bytes:
    return label + b"\0" + struct.pack(">I", generation) + tail
