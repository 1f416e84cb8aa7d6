import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.crypto import records
from bridge.errors import ContentCorrupt
from bridge.model import SealedRecord

KEY = bytes(range(32))


@given(st.binary(max_size=500))
def test_a_record_opens_as_it_was(record):
    sealed = records.seal_record(KEY, record)
    assert records.open_record(KEY, sealed) == record
    assert record not in sealed.sealed or len(record) < 4


def test_the_leaf_hash_is_that_of_rfc_6962():
    assert records.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert records.seal_record(KEY, b"").leaf == records.leaf_hash(b"")


def test_two_seals_of_one_record_have_one_leaf_and_nothing_else_in_common():
    one, two = records.seal_record(KEY, b"record"), records.seal_record(KEY, b"record")
    assert one.leaf == two.leaf
    assert one.sealed != two.sealed


SEALED = records.seal_record(KEY, b"a record")


@pytest.mark.parametrize("position", range(len(SEALED.sealed)))
def test_a_flipped_byte_does_not_open(position):
    damaged = bytearray(SEALED.sealed)
    damaged[position] ^= 1
    with pytest.raises(ContentCorrupt):
        records.open_record(KEY, SealedRecord(SEALED.leaf, bytes(damaged)))


def test_another_leaf_key_or_length_does_not_open():
    other = records.seal_record(KEY, b"another")
    for key, record in [
        (KEY, SealedRecord(other.leaf, SEALED.sealed)),
        (bytes(32), SEALED),
        *((KEY, SealedRecord(SEALED.leaf, SEALED.sealed[:length])) for length in range(len(SEALED.sealed))),
    ]:
        with pytest.raises(ContentCorrupt):
            records.open_record(key, record)
