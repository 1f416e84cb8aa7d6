import hashlib

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiformats import CID

from bridge.content import cid as cids


@given(
    st.binary(max_size=4096), st.sampled_from([("raw", cids.RAW), ("dag-pb", cids.DAG_PB), ("dag-cbor", cids.DAG_CBOR)])
)
def test_binary_and_text_forms_are_those_of_the_multiformats_library(data, codec):
    for name, digest in (("sha2-256", hashlib.sha256(data).digest()), ("blake3", blake3.blake3(data).digest())):
        ours = cids.make(codec[1], data, name)
        theirs = CID("base32", 1, codec[0], (name, digest))
        assert ours == bytes(theirs)
        assert cids.to_text(ours) == str(theirs)
        assert cids.from_text(str(theirs)) == ours
        assert cids.kind(ours) == cids.parse(ours)[:2]
        assert cids.verify(ours, data)
        assert not cids.verify(ours, data + b"\0")


@given(st.integers(0, 2**63 - 1))
def test_a_varint_reads_back_and_is_minimal(value):
    raw = cids.varint(value)
    assert cids.read_varint(raw) == (value, len(raw))
    assert len(raw) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x80\x00", b"\xff\x00", b"\xff" * 9 + b"\x01", b"\x80" * 10])
def test_a_varint_cut_short_padded_or_too_long_is_refused(raw):
    with pytest.raises(ValueError, match="varint"):
        cids.read_varint(raw)


@pytest.mark.parametrize("value", [-1, 2**63])
def test_a_varint_beyond_63_bits_is_not_written(value):
    with pytest.raises(ValueError, match="63"):
        cids.varint(value)


GOOD = cids.make(cids.RAW, b"data")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        hashlib.sha256(b"x").digest(),
        b"\x12\x20" + bytes(32),  # CIDv0
        b"\x02" + GOOD[1:],
        b"\x01\x51" + GOOD[2:],
        b"\x01\x55\x13" + GOOD[3:],
        b"\x01\x55\x1e\x10" + bytes(16),
        GOOD[:-1],
        GOOD + b"\0",
        b"\x01\xd5\x00" + GOOD[2:],  # codec as a varint that is not minimal
        b"\x01\x55\x00\x81\x01" + bytes(129),
    ],
)
def test_what_is_no_whole_cid_of_ours_is_refused(bad):
    with pytest.raises(ValueError, match=r".+"):
        cids.parse(bad)
    with pytest.raises(ValueError, match=r".+"):
        cids.kind(bad)


@pytest.mark.parametrize(
    "change", [str.upper, lambda t: "z" + t[1:], lambda t: t + "=", lambda t: t[:-1] + "b", lambda t: ""]
)
def test_text_in_another_base_case_or_with_stray_bits_is_refused(change):
    with pytest.raises(ValueError, match=r".+"):
        cids.from_text(change(cids.to_text(GOOD)))


def test_the_empty_identity_block_is_the_gateway_probe():
    cid = cids.from_text("bafkqaaa")
    assert cids.parse(cid) == cids.Cid(cids.RAW, cids.IDENTITY, b"")
    assert cids.kind(cid) == (cids.RAW, cids.IDENTITY)
    assert cids.verify(cid, b"")
    assert not cids.verify(cid, b"x")
