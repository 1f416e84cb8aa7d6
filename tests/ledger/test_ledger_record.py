"""Records: one encoding each, and the leaf hash over exactly it."""

from __future__ import annotations

import hashlib

import pytest

from ledger import codec, record
from ledger.errors import CodecError
from ledger.record import Record

STORE = Record("study.store", 1_700_000_000_000_000, bytes(range(16)), {"actor": "ct-1", "instances": ["1.2.3"]})


def test_record_survives_and_hashes_as_a_leaf() -> None:
    encoded = record.encode(STORE)
    assert record.decode(encoded) == STORE
    assert record.leaf_hash(encoded) == hashlib.sha256(b"\x00" + encoded).digest()


def test_the_salt_alone_changes_the_leaf() -> None:
    other = Record(STORE.type, STORE.time_us, bytes(16), STORE.body)
    assert record.leaf_hash(record.encode(other)) != record.leaf_hash(record.encode(STORE))


@pytest.mark.parametrize(
    "wrong",
    [
        Record("study.unknown", 0, bytes(16), {}),
        Record("study.store", -1, bytes(16), {}),
        Record("study.store", True, bytes(16), {}),
        Record("study.store", 0, bytes(15), {}),
        Record("study.store", 0, bytes(16), {"x": 1.5}),
    ],
)
def test_what_is_not_a_record_is_not_encoded(wrong: Record) -> None:
    with pytest.raises(CodecError):
        record.encode(wrong)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"b": {}, "s": bytes(16), "t": "study.store"},
        {"b": {}, "s": bytes(16), "t": "study.store", "u": 0, "x": 0},
        {"b": [], "s": bytes(16), "t": "study.store", "u": 0},
        {"b": {}, "s": bytes(16), "t": ["study.store"], "u": 0},
        {"b": {}, "s": bytes(16), "t": "study.store", "u": None},
    ],
)
def test_what_is_not_a_record_is_not_decoded(value: object) -> None:
    with pytest.raises(CodecError):
        record.decode(codec.encode(value))
