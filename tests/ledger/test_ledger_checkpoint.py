"""Signed notes and checkpoints against the specifications' own examples."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger import checkpoint, merkle
from ledger.checkpoint import Checkpoint
from ledger.errors import CodecError, LedgerError, SignatureInvalid

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = (
    TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "node.example/ledger"
ROOT = merkle.leaf_hash(b"")


def test_the_well_known_note_opens() -> None:
    verifier = checkpoint.parse_vkey(PETER)
    assert checkpoint.vkey(verifier.name, verifier.key) == PETER
    assert checkpoint.open_note(SIGNED, verifier) == TEXT


def test_the_example_of_the_note_specification_opens() -> None:
    verifier = checkpoint.parse_vkey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n— example.com/foo {signature}\n"
    assert checkpoint.open_note(note, verifier) == "This is an example message.\n"
    assert verifier.vkey().startswith("example.com/foo+530d903a+")


def test_a_note_signed_here_is_the_one_that_gos_implementation_signs() -> None:
    # The key of golang.org/x/mod/sumdb/note: PRIVATE+KEY+name+id+base64(0x01 || seed).
    seed = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
    assert checkpoint.sign_note(TEXT, "PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed)) == SIGNED


def test_empty_lines_in_a_notes_text_belong_to_it() -> None:
    note = checkpoint.sign_note("one\n\ntwo\n\nthree\n", ORIGIN, KEY)
    assert checkpoint.open_note(note, checkpoint.Verifier(ORIGIN, KEY.public_key().public_bytes_raw())).count("\n") == 5


def test_an_unknown_key_that_shares_name_or_id_with_the_known_one_is_ignored() -> None:
    note = checkpoint.make(ORIGIN, 1, ROOT, KEY)
    known = checkpoint.Verifier(ORIGIN, KEY.public_key().public_bytes_raw())
    same_name = checkpoint.signature_line(known._replace(key=bytes(32)), bytes(64))
    same_id = checkpoint.signature_line(known, bytes(64)).replace(ORIGIN, "other.example")
    for line in (same_name, same_id):
        assert checkpoint.verify(note + line, ORIGIN, KEY.public_key()).size == 1
    with pytest.raises(SignatureInvalid):
        checkpoint.verify(note + checkpoint.signature_line(known, bytes(64)), ORIGIN, KEY.public_key())


def test_the_example_of_the_checkpoint_specification_parses() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    head = checkpoint.parse(text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.body() == text


def test_made_checkpoint_verifies_and_other_signatures_are_ignored() -> None:
    note = checkpoint.make(ORIGIN, 1, ROOT, KEY)
    assert checkpoint.verify(note, ORIGIN, KEY.public_key()) == Checkpoint(ORIGIN, 1, ROOT)
    cosigned = note + SIGNED.rpartition("\n\n")[2]
    assert checkpoint.verify(cosigned, ORIGIN, KEY.public_key()).size == 1


def test_every_flipped_bit_of_a_checkpoint_is_refused() -> None:
    note = checkpoint.make(ORIGIN, 1, ROOT, KEY).encode()
    for at in range(len(note)):
        for bit in range(8):
            damaged = bytearray(note)
            damaged[at] ^= 1 << bit
            with pytest.raises((LedgerError, UnicodeDecodeError)):
                checkpoint.verify(damaged.decode(), ORIGIN, KEY.public_key())


def test_another_key_or_origin_is_refused() -> None:
    note = checkpoint.make(ORIGIN, 1, ROOT, KEY)
    with pytest.raises(SignatureInvalid):
        checkpoint.verify(note, ORIGIN, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(SignatureInvalid):
        checkpoint.verify(note, "other.example", KEY.public_key())
    foreign = checkpoint.sign_note(Checkpoint("other.example", 1, ROOT).body(), ORIGIN, KEY)
    with pytest.raises(LedgerError):
        checkpoint.verify(foreign, ORIGIN, KEY.public_key())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "a\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "a\n١\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        "a\n1\nAAAA\n",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(CodecError):
        checkpoint.parse(text)


@pytest.mark.parametrize(
    "vkey",
    ["", "a+b", PETER.replace("c74f20a3", "c74f20a4"), PETER.replace("+AR", "+BB"), PETER.replace("Peter", "P ter")],
)
def test_malformed_vkeys_are_refused(vkey: str) -> None:
    with pytest.raises(CodecError):
        checkpoint.parse_vkey(vkey)


def test_names_that_cannot_be_read_back_are_not_written() -> None:
    for name in ("", "a b", "a+b", "a\nb"):
        with pytest.raises(CodecError):
            checkpoint.vkey(name, KEY.public_key())
    with pytest.raises(CodecError):
        checkpoint.make("a\nb", 0, merkle.EMPTY_ROOT, KEY)
    with pytest.raises(CodecError):
        checkpoint.sign_note("no newline", "a", KEY)
