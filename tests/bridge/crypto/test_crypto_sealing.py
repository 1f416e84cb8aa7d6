"""Byte compatibility with Tink, and that nothing altered opens."""

import io
import os

import pytest
import tink
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from bridge.crypto import sealing
from bridge.errors import ContentCorrupt

KEY = bytes(range(32))
AAD = b"format|study|instance"
P0, PN, SEGMENT = sealing.FIRST_PLAINTEXT, sealing.PLAINTEXT, sealing.SEGMENT_SIZE
BOUNDARIES = [0, 1, P0 - 1, P0, P0 + 1, P0 + PN - 1, P0 + PN, P0 + PN + 1, 5_000_000]


@pytest.fixture(scope="module")
def tink_primitive():
    """Tink's own primitive over our key: the parameters of its template AES256_GCM_HKDF_1MB, the key put in raw."""
    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    format_ = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKeyFormat.FromString(template.value)
    assert format_.params.ciphertext_segment_size == SEGMENT
    assert format_.params.derived_key_size == 32
    assert format_.params.hkdf_hash_type == common_pb2.SHA256
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, params=format_.params, key_value=KEY)
    data = tink_pb2.KeyData(
        type_url=template.type_url, value=key.SerializeToString(), key_material_type=tink_pb2.KeyData.SYMMETRIC
    )
    entry = tink_pb2.Keyset.Key(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry])
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


def seal(data, step=None):
    sealer = sealing.Sealer(KEY, AAD)
    segments = []
    for at in range(0, len(data), step or max(len(data), 1)):
        segments += sealer.update(data[at : at + (step or len(data))])
    segments.append(sealer.finalize())
    return sealer.header, segments


def tink_seal(primitive, data):
    class Kept(io.BytesIO):
        def close(self):
            pass

    out = Kept()
    with primitive.new_encrypting_stream(out, AAD) as stream:
        stream.write(data)
    return out.getvalue()


@pytest.mark.parametrize("size", BOUNDARIES)
def test_tink_opens_what_is_sealed_here(tink_primitive, size):
    data = os.urandom(size)
    header, segments = seal(data)
    assert segments[0].startswith(header)
    assert [len(segment) for segment in segments[:-1]] == [SEGMENT] * (sealing.segment_count(size) - 1)
    assert sum(map(len, segments)) == sealing.ciphertext_length(size)
    with tink_primitive.new_decrypting_stream(io.BytesIO(b"".join(segments)), AAD) as stream:
        assert stream.read() == data


@pytest.mark.parametrize("size", BOUNDARIES)
def test_what_tink_seals_opens_here(tink_primitive, size):
    data = os.urandom(size)
    sealed = tink_seal(tink_primitive, data)
    assert len(sealed) == sealing.ciphertext_length(size)
    segments = [sealed[at : at + SEGMENT] for at in range(0, len(sealed), SEGMENT)]
    opener = sealing.Opener(KEY, sealed[: sealing.HEADER_SIZE], AAD, size)
    assert b"".join(opener.open(number, segment) for number, segment in enumerate(segments)) == data


WHOLE = os.urandom(3 * SEGMENT + 1234)
HEADER, SEGMENTS = seal(WHOLE)


@given(st.lists(st.integers(0, 2 * SEGMENT), max_size=6))
def test_the_segments_do_not_depend_on_how_the_bytes_arrive(cuts):
    sealer = sealing.Sealer(KEY, AAD)
    segments, at = [], 0
    for cut in [*cuts, len(WHOLE)]:
        segments += sealer.update(memoryview(WHOLE)[at : at + cut])
        at += cut
    segments.append(sealer.finalize())
    opener = sealing.Opener(KEY, sealer.header, AAD, len(WHOLE))
    assert b"".join(opener.open(number, segment) for number, segment in enumerate(segments)) == WHOLE


@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE)))
def test_a_range_opens_only_the_segments_it_touches(one, other):
    start, stop = sorted((one, other))
    fetched = []

    def fetch(number):
        fetched.append(number)
        return SEGMENTS[number]

    opener = sealing.Opener(KEY, HEADER, AAD, len(WHOLE))
    assert b"".join(opener.read(start, stop - start, fetch)) == WHOLE[start:stop]
    assert len(fetched) <= (stop - start) // PN + 2
    if start == stop:
        assert fetched == []


@given(st.integers(0, 2**40), st.integers(0, 2**22), st.integers(0, 2**40))
def test_slices_join_to_the_range_for_any_size(offset, length, more):
    total = offset + length + more
    slices = sealing.segment_range(offset, length, total)
    assert sum(part.stop - part.start for part in slices) == length
    at = offset
    for part in slices:
        begin = 0 if part.number == 0 else P0 + (part.number - 1) * PN
        assert begin + part.start == at
        assert 0 <= part.start < part.stop <= (P0 if part.number == 0 else PN)
        assert part.number < sealing.segment_count(total)
        at = begin + part.stop


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, 11), (11, 0), (5, -1)])
def test_a_range_outside_the_object_is_refused(offset, length):
    with pytest.raises(ValueError, match="inside"):
        sealing.segment_range(offset, length, 10)


SMALL = os.urandom(100)
SMALL_HEADER, (SMALL_SEGMENT,) = seal(SMALL)


@pytest.mark.parametrize("position", range(len(SMALL_SEGMENT)))
def test_a_flipped_byte_anywhere_in_a_segment_does_not_open(position):
    damaged = bytearray(SMALL_SEGMENT)
    damaged[position] ^= 1 << position % 8
    with pytest.raises(ContentCorrupt):
        sealing.Opener(KEY, SMALL_HEADER, AAD, len(SMALL)).open(0, damaged)


@pytest.mark.parametrize("position", range(sealing.HEADER_SIZE))
def test_a_flipped_byte_in_the_header_kept_elsewhere_does_not_open(position):
    header = bytearray(HEADER)
    header[position] ^= 1
    with pytest.raises(ContentCorrupt):
        sealing.Opener(KEY, bytes(header), AAD, len(WHOLE)).open(1, SEGMENTS[1])


@given(st.integers(0, len(SMALL_SEGMENT) - 1))
def test_a_segment_cut_short_does_not_open(length):
    with pytest.raises(ContentCorrupt):
        sealing.Opener(KEY, SMALL_HEADER, AAD, len(SMALL)).open(0, SMALL_SEGMENT[:length])


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("segment", range(4))
def test_a_segment_opens_only_in_its_place(place, segment):
    opener = sealing.Opener(KEY, HEADER, AAD, len(WHOLE))
    if place == segment:
        assert len(opener.open(place, SEGMENTS[segment])) > 0
        return
    with pytest.raises(ContentCorrupt):
        opener.open(place, SEGMENTS[segment])


def test_an_object_cut_at_a_segment_does_not_open_as_a_shorter_one():
    shorter = sealing.Opener(KEY, HEADER, AAD, P0 + PN)
    with pytest.raises(ContentCorrupt):
        shorter.open(1, SEGMENTS[1])


def test_a_length_that_is_not_the_objects_does_not_open():
    with pytest.raises(ContentCorrupt, match="length"):
        sealing.Opener(KEY, SMALL_HEADER, AAD, len(SMALL) + 1).open(0, SMALL_SEGMENT)


def test_another_key_or_associated_data_does_not_open():
    for key, aad in ((bytes(32), AAD), (KEY, AAD + b"x")):
        with pytest.raises(ContentCorrupt):
            sealing.open_segment(key, SMALL_HEADER, aad, 0, True, SMALL_SEGMENT)
    assert sealing.open_segment(KEY, SMALL_HEADER, AAD, 0, True, SMALL_SEGMENT) == SMALL


def test_two_objects_never_share_a_header():
    assert sealing.Sealer(KEY, AAD).header != sealing.Sealer(KEY, AAD).header


def test_a_closed_sealer_takes_nothing_more():
    sealer = sealing.Sealer(KEY, AAD)
    sealer.finalize()
    with pytest.raises(ValueError, match="closed"):
        sealer.update(b"x")
    with pytest.raises(ValueError, match="closed"):
        sealer.finalize()


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32"):
        sealing.Sealer(bytes(16), AAD)


def test_the_segments_key_is_hkdf_of_key_salt_and_associated_data():
    assert HEADER[0] == 40
    derived = HKDF(SHA256(), 32, HEADER[1:33], AAD).derive(KEY)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = HEADER[33:] + b"\0\0\0\2" + b"\0"
    assert AESGCM(derived).decrypt(nonce, SEGMENTS[2], None) == WHOLE[P0 + PN : P0 + 2 * PN]
