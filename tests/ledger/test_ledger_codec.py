"""Strict CBOR: what is canonical goes both ways, everything else is refused."""

from __future__ import annotations

import cbor2
import dag_cbor
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import codec
from ledger.errors import CodecError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5))


@given(values)
def test_value_survives_and_two_other_encoders_agree(value: object) -> None:
    encoded = codec.encode(value)
    assert codec.decode(encoded) == value
    assert encoded == cbor2.dumps(value, canonical=True)
    assert encoded == dag_cbor.encode(value)  # type: ignore[arg-type]


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused_or_are_exactly_their_own_encoding(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except CodecError:
        return
    assert codec.encode(value) == data


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("", "nothing"),
        ("0000", "trailing byte"),
        ("1801", "integer not minimal"),
        ("190017", "integer not minimal, two bytes"),
        ("5801ff", "length not minimal"),
        ("a2616101616102", "duplicate key"),
        ("a2616201616102", "keys out of order"),
        ("a262616101616202", "keys not length-first"),
        ("a10000", "key not text"),
        ("a1416100", "key of bytes"),
        ("9fff", "indefinite list"),
        ("bfff", "indefinite map"),
        ("5f4100ff", "indefinite bytes"),
        ("7f6161ff", "indefinite text"),
        ("c24105", "tag 2, bignum"),
        ("d82a4500017112", "tag 42, link"),
        ("d81c8100", "tag 28, shared value"),
        ("f90000", "float 16"),
        ("fb7ff8000000000000", "float 64, NaN"),
        ("f7", "undefined"),
        ("f8ff", "simple value"),
        ("61ff", "text that is not UTF-8"),
        ("4401", "bytes cut short"),
        ("8201", "list cut short"),
        ("9bffffffffffffffff", "count beyond the bytes"),
        ("1c", "reserved additional information"),
        ("ff", "break alone"),
        ("81" * 17 + "00", "nested too deep"),
    ],
)
def test_malformed_is_refused(encoded: str, why: str) -> None:
    with pytest.raises(CodecError):
        codec.decode(bytes.fromhex(encoded))


def test_limits_are_exact() -> None:
    deepest: object = 0
    for _ in range(codec.MAX_DEPTH):
        deepest = [deepest]
    assert codec.decode(codec.encode(deepest)) == deepest
    with pytest.raises(CodecError):
        codec.encode([deepest])
    largest = bytes(codec.MAX_SIZE - 3)
    assert codec.decode(codec.encode(largest)) == largest
    for refuse in (lambda: codec.encode(largest + b"\0"), lambda: codec.decode(cbor2.dumps(largest + b"\0"))):
        with pytest.raises(CodecError):
            refuse()


@pytest.mark.parametrize("value", [1.0, 2**64, -(2**64) - 1, {1: 2}, {b"a": 1}, {"a": {1}}, "\ud800", object()])
def test_values_outside_the_model_are_refused(value: object) -> None:
    with pytest.raises(CodecError):
        codec.encode(value)


def test_bytes_that_look_like_a_cid_stay_bytes() -> None:
    cid = bytes.fromhex("01711220") + bytes(32)
    assert codec.decode(codec.encode({"c": cid})) == {"c": cid}
