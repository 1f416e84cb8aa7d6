"""Ed25519 as the ledger takes it, beside OpenSSL's and the vectors of RFC 8032 section 7.1."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from ledger import keys
from ledger.errors import SignatureInvalid

ORDER = 2**252 + 27742317777372353535851937790883648493
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_rfc_8032_7_1_vectors(seed: str, public: str, message: str, signature: str) -> None:
    key = keys.SigningKey(bytes.fromhex(seed))
    assert key.public_key() == bytes.fromhex(public)
    assert key.sign(bytes.fromhex(message)) == bytes.fromhex(signature)
    keys.check(key.public_key(), bytes.fromhex(signature), bytes.fromhex(message))


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_what_one_signs_the_other_takes(seed: bytes, message: bytes) -> None:
    own, openssl = keys.SigningKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
    signature = own.sign(message)
    assert signature == openssl.sign(message)
    assert keys.raw(openssl.public_key()) == own.public_key()
    keys.check(openssl.public_key(), signature, message)


@given(st.integers(0, 64 * 8 - 1))
def test_a_signature_with_a_flipped_bit_is_refused(bit: int) -> None:
    key = keys.SigningKey(bytes(32))
    signature = int.from_bytes(key.sign(b"said")) ^ 1 << bit
    with pytest.raises(SignatureInvalid):
        keys.check(key.public_key(), signature.to_bytes(64), b"said")


def test_rfc_8032_5_1_7_a_scalar_beyond_the_order_is_refused() -> None:
    key = keys.SigningKey(bytes(32))
    signature = key.sign(b"said")
    beyond = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(SignatureInvalid):
        keys.check(key.public_key(), signature[:32] + beyond.to_bytes(32, "little"), b"said")


def test_a_key_of_small_order_signs_nothing() -> None:
    """OpenSSL takes the all-zero scalar of the neutral point for a signature over anything."""
    neutral = (1).to_bytes(32, "little")
    signature = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(signature, b"anything")
    with pytest.raises(SignatureInvalid):
        keys.check(neutral, signature, b"anything")


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SignatureInvalid, match="64 bytes"):
        keys.check(keys.SigningKey(bytes(32)).public_key(), bytes(length), b"")


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(SignatureInvalid, match="32 bytes"):
        keys.check(bytes(31), bytes(64), b"")
