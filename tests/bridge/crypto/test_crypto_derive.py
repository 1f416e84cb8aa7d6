"""The derivations are part of the stored format: golden values, and an independent computation of each."""

import hmac

from bridge.crypto import derive
from bridge.model import StudyKey

KEY = StudyKey("1.2.3", 7, bytes(range(16)), bytes(range(32)))
TAG = bytes(range(100, 116))

GOLDEN = {
    "object": "25ab22366b8b2c967f442e96c2cc0146e2f07322e6aadf4f7ee89253743fd508",
    "metadata": "6af3fa8bc5d76cf8881dc899d1762f9195b6c59f00ab2dfdf3bf4c03a8787c83",
    "record": "33ea33b2f0e49870ed483309b1fb3aa3428671fa8d055df0b76520565c267aec",
    "node": "ce53ba2f939f37735a5fa9469f5c9bad3e13b310d8c1e9c80f83e496944c82d8",
    "object data": (
        "636169726e2f31206f626a6563740000000007000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6f70717273"
    ),
    "metadata data": (
        "636169726e2f31206d657461646174610000000007000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6f70717273"
    ),
}


def hkdf(secret, salt, info):
    """RFC 5869 for one block of output."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def test_derivations_are_hkdf_sha256_with_the_documented_info():
    generation = b"\0\0\0\7"
    for label, ours, tail in [
        (b"cairn/1 object", derive.object_key(KEY, TAG), TAG),
        (b"cairn/1 metadata", derive.metadata_key(KEY, TAG), TAG),
        (b"cairn/1 record", derive.record_key(KEY), b""),
    ]:
        assert ours == hkdf(KEY.secret, KEY.tag, label + b"\0" + generation + tail)
    assert derive.node_record_key(KEY.secret) == hkdf(KEY.secret, bytes(32), b"cairn/1 node record")


def test_golden_values():
    assert {
        "object": derive.object_key(KEY, TAG).hex(),
        "metadata": derive.metadata_key(KEY, TAG).hex(),
        "record": derive.record_key(KEY).hex(),
        "node": derive.node_record_key(KEY.secret).hex(),
        "object data": derive.object_associated_data(KEY.tag, 7, TAG).hex(),
        "metadata data": derive.metadata_associated_data(KEY.tag, 7, TAG).hex(),
    } == GOLDEN


def test_nothing_derived_is_derived_twice():
    others = [KEY, KEY._replace(generation=8), KEY._replace(tag=TAG), KEY._replace(secret=bytes(32))]
    keys = [f(key, tag) for key in others for f in (derive.object_key, derive.metadata_key) for tag in (TAG, TAG[::-1])]
    keys += [derive.record_key(key) for key in others]
    assert len(set(keys)) == len(keys) == 20
    data = [
        f(key.tag, key.generation, TAG)
        for key in others[:3]
        for f in (derive.object_associated_data, derive.metadata_associated_data)
    ]
    assert len(set(data)) == 6
