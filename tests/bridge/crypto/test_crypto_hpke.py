"""HPKE against RFC 9180, and the printable recipient.

The RFC's vectors have associated data and fixed ephemeral keys, which the library's one-shot calls do not take. So a
second implementation of base mode, written here from the RFC's text, is held to vector A.1.1, and ours to it.
"""

import hashlib
import hmac
import os
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from bridge.crypto import hpke
from bridge.crypto.hpke import Recipient

KEM = b"KEM\x00\x20"
AES_128, AES_256 = (1, 16), (2, 32)  # RFC 9180 table 5: AEAD id, key size


def extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def expand(suite, secret, label, info, length):
    out = block = b""
    labelled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    while len(out) < length:
        block = hmac.digest(secret, block + labelled + bytes([len(out) // 32 + 1]), hashlib.sha256)
        out += block
    return out[:length]


def context(aead, shared, info):
    """KeySchedule of section 5.1 in base mode: key and base nonce."""
    number, size = aead
    suite = b"HPKE" + struct.pack(">HHH", 0x20, 1, number)
    scheduled = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    return expand(suite, secret, b"key", scheduled, size), expand(suite, secret, b"base_nonce", scheduled, 12)


def shared_secret(private, public, enc, recipient):
    """ExtractAndExpand of section 4.1 over the Diffie-Hellman value."""
    value = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    return expand(KEM, extract(KEM, b"", b"eae_prk", value), b"shared_secret", enc + recipient, 32)


def public_of(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal(aead, ephemeral, recipient, info, plaintext, associated=b""):
    enc = public_of(ephemeral)
    key, nonce = context(aead, shared_secret(ephemeral, recipient, enc, recipient), info)
    return enc + AESGCM(key).encrypt(nonce, plaintext, associated)


def open_sealed(aead, private, sealed, info, associated=b""):
    enc = sealed[:32]
    key, nonce = context(aead, shared_secret(private, enc, enc, public_of(private)), info)
    return AESGCM(key).decrypt(nonce, sealed[32:], associated)


def test_the_second_implementation_gives_vector_a_1_1():
    ephemeral = bytes.fromhex("52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736")
    private = bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    public = bytes.fromhex("3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d")
    enc = bytes.fromhex("37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431")
    shared = bytes.fromhex("fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc")
    ciphertext = bytes.fromhex(
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    info, plaintext = b"Ode on a Grecian Urn", b"Beauty is truth, truth beauty"
    assert public_of(private) == public
    assert shared_secret(ephemeral, public, enc, public) == shared
    assert context(AES_128, shared, info) == (
        bytes.fromhex("4531685d41d65f03dc48f6b8302c05b0"),
        bytes.fromhex("56d890e5accaaf011cff4b7d"),
    )
    assert seal(AES_128, ephemeral, public, info, plaintext, b"Count-0") == enc + ciphertext
    assert open_sealed(AES_128, private, enc + ciphertext, info, b"Count-0") == plaintext


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_the_two_implementations_open_what_the_other_seals(plaintext, info):
    private, ephemeral = os.urandom(32), os.urandom(32)
    public = public_of(private)
    assert open_sealed(AES_256, private, hpke.seal(public, info, plaintext), info) == plaintext
    assert hpke.open_sealed(private, info, seal(AES_256, ephemeral, public, info, plaintext)) == plaintext


def test_a_sealed_key_is_80_bytes():
    sealed = hpke.seal(public_of(os.urandom(32)), b"", bytes(32))
    assert len(sealed) == hpke.ENCAPSULATED_SIZE + 32 + hpke.TAG_SIZE == 80


def test_nothing_but_the_very_bytes_key_and_info_opens():
    private = os.urandom(32)
    sealed = hpke.seal(public_of(private), b"info", b"key")
    assert hpke.open_sealed(private, b"info", sealed) == b"key"
    for at in range(len(sealed)):
        with pytest.raises(ValueError, match="open"):
            hpke.open_sealed(private, b"info", sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
        with pytest.raises(ValueError, match="open"):
            hpke.open_sealed(private, b"info", sealed[:at])
    with pytest.raises(ValueError, match="open"):
        hpke.open_sealed(private, b"other", sealed)
    with pytest.raises(ValueError, match="open"):
        hpke.open_sealed(os.urandom(32), b"info", sealed)


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31)])
def test_a_key_of_small_order_is_refused(key):
    with pytest.raises(ValueError, match="shared key"):
        hpke.seal(key, b"", b"key")


def test_a_recipient_is_printed_and_read_again():
    seed = bytes(range(32))
    recipient = Recipient.of(bytes(16), seed)
    assert recipient.key == public_of(seed)
    assert recipient.text() == (
        "cairn1aeaaaaaaaaaaaaaaaaaaaaaaaaai6qgfvw3i6jlcjls3efhkoz5g5sknqkot2626dli3u3z6ee4cqx7pm636y"
    )
    assert len(recipient.text()) == 91
    assert Recipient.parse(recipient.text()) == recipient


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.integers(0, 90), st.data())
def test_a_slip_in_copying_a_recipient_is_found(node, seed, at, data):
    text = Recipient.of(node, seed).text()
    other = data.draw(st.sampled_from([c for c in "abcdefghijklmnopqrstuvwxyz234567019+ A" if c != text[at]]))
    with pytest.raises(ValueError, match="recipient"):
        Recipient.parse(text[:at] + other + text[at + 1 :])


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.integers(0, 90))
def test_a_recipient_copied_in_part_is_refused(node, seed, length):
    with pytest.raises(ValueError, match="recipient"):
        Recipient.parse(Recipient.of(node, seed).text()[:length])
