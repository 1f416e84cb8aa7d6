import zlib
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.content import sealed_metadata as sealed
from bridge.errors import ContentCorrupt

uids = st.text("0123456789.", max_size=64)
numbers = st.integers(0, 2**63 - 1)
metadata = st.builds(
    sealed.SealedMetadata,
    uids,
    uids,
    uids,
    uids,
    uids,
    st.binary(min_size=32, max_size=32),
    st.binary(max_size=500).map(sealed.deflate),
    st.binary(max_size=100),
    st.binary(max_size=100),
    numbers,
    st.binary(min_size=40, max_size=40),
    numbers,
    numbers,
    st.text(max_size=50),
)
EXAMPLE = sealed.SealedMetadata(
    "1.2", "1.2.3", "1.2.3.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", bytes(32),
    sealed.deflate(b"{}"), b"", b"", 300,
    bytes(40), 1000, 1_700_000_000_000_000, "CT1",
)  # fmt: skip


@given(metadata)
def test_metadata_reads_back(value):
    assert sealed.decode(sealed.encode(value)) == value


@given(st.integers(0, len(sealed.encode(EXAMPLE)) * 8 - 1))
def test_a_flipped_bit_is_refused_or_reads_as_another_value(bit):
    raw = bytearray(sealed.encode(EXAMPLE))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        found = sealed.decode(bytes(raw))
    except ContentCorrupt:
        return
    assert found != EXAMPLE


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_corrupt(data):
    with pytest.raises(ContentCorrupt):
        sealed.decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"study": "1" * 65},
        {"study": b"1.2"},
        {"digest": bytes(31)},
        {"header": bytes(41)},
        {"length": -1},
        {"length": 2**63},
        {"received": 1.5},
        {"source": "x" * 1025},
        {"json": b"not zlib"},
        {"json": zlib.compress(b"{}") + b"more"},
        {"json": zlib.compress(b"{}")[:-1]},
        {"more": 1},
    ],
)
def test_fields_of_another_form_are_corrupt(change):
    fields = cbor2.loads(sealed.encode(EXAMPLE)) | change
    with pytest.raises(ContentCorrupt):
        sealed.decode(cbor2.dumps(fields, canonical=True))


def test_a_map_in_another_order_is_corrupt():
    fields = cbor2.loads(sealed.encode(EXAMPLE))
    with pytest.raises(ContentCorrupt, match="canonical"):
        sealed.decode(cbor2.dumps(dict(reversed(fields.items()))))


def test_json_is_bounded():
    largest = replace(EXAMPLE, json=sealed.deflate(bytes(sealed.MAX_JSON)))
    assert sealed.decode(sealed.encode(largest)) == largest
    bomb = replace(EXAMPLE, json=sealed.deflate(bytes(sealed.MAX_JSON + 1)))
    with pytest.raises(ContentCorrupt, match="64 MiB"):
        sealed.decode(sealed.encode(bomb))


@given(st.binary(max_size=500))
def test_json_is_kept_whole(json):
    assert sealed.inflate(sealed.deflate(json)) == json


def test_what_could_not_be_read_is_not_written():
    with pytest.raises(ValueError, match="digest"):
        sealed.encode(replace(EXAMPLE, digest=b"short"))
