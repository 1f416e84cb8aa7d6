"""Cosignatures (C2SP tlog-cosignature v1, Ed25519): the specification's example, round trips, and what is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_source import KEY, ORIGIN, octets

from ledger import checkpoint, cosignature, merkle
from ledger.errors import CodecError, SignatureInvalid

WITNESS = Ed25519PrivateKey.from_private_bytes(octets("witness", 32))
NAME = "witness.example/w1"
NOTE = checkpoint.make(ORIGIN, 1, merkle.leaf_hash(b""), KEY)
TIME = 1_679_315_147
# The example of tlog-cosignature: its witness's key is not published, so that it shows the layout alone.
EXAMPLE = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501


def cosigned(note: str, by: checkpoint.Verifier) -> int | None:
    return cosignature.cosigned(*checkpoint.split_note(note), by)


def test_the_specifications_example_has_its_time_in_front_of_the_signature() -> None:
    text, (log, witness) = checkpoint.split_note(EXAMPLE)
    assert (log.name, len(log.signature)) == ("example.com/behind-the-sofa", 64)
    assert (witness.name, witness.id.hex(), len(witness.signature)) == ("witness.example.com/w1", "8d66cf3f", 72)
    assert int.from_bytes(witness.signature[:8], "big") == TIME
    assert cosignature.message(text, TIME) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_the_key_of_a_witness_in_use_is_read_and_its_id_is_right() -> None:
    vkey = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
    assert cosignature.parse_cosigner(vkey).vkey() == vkey


def test_a_cosigned_checkpoint_still_verifies_and_says_when_it_was_cosigned() -> None:
    note = cosignature.sign(NOTE, NAME, WITNESS, TIME)
    witness = cosignature.cosigner(NAME, WITNESS.public_key())
    assert checkpoint.verify(note, ORIGIN, KEY.public_key()).size == 1
    assert cosigned(note, witness) == TIME
    assert cosigned(NOTE, witness) is None
    assert cosigned(cosignature.sign(note, NAME, WITNESS, TIME + 5), witness) == TIME + 5


def test_a_cosigners_key_is_told_from_the_same_key_of_another_type_or_name() -> None:
    witness = cosignature.cosigner(NAME, WITNESS.public_key())
    assert cosignature.parse_cosigner(witness.vkey()) == witness
    note = cosignature.sign(NOTE, NAME, WITNESS, TIME)
    assert cosigned(note, cosignature.cosigner("witness.example/w2", WITNESS.public_key())) is None
    assert cosigned(note, checkpoint.Verifier(NAME, witness.key)) is None
    with pytest.raises(CodecError):
        checkpoint.parse_vkey(witness.vkey())
    with pytest.raises(CodecError):
        cosignature.parse_cosigner(checkpoint.vkey(NAME, WITNESS.public_key()))


def test_every_flipped_bit_of_a_cosignature_is_refused() -> None:
    note = cosignature.sign(NOTE, NAME, WITNESS, TIME)
    text, signatures = checkpoint.split_note(note)
    witness = cosignature.cosigner(NAME, WITNESS.public_key())
    for at in range(72 * 8):
        damaged = bytearray(signatures[1].signature)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(SignatureInvalid):
            cosignature.cosigned(text, [signatures[0], signatures[1]._replace(signature=bytes(damaged))], witness)
    with pytest.raises(SignatureInvalid):
        cosignature.cosigned(text.replace("\n1\n", "\n2\n"), signatures, witness)


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_times_beyond_the_specifications_range_are_refused(time_s: int) -> None:
    with pytest.raises(SignatureInvalid):
        cosignature.sign(NOTE, NAME, WITNESS, time_s)
    if time_s > 0:
        witness = cosignature.cosigner(NAME, WITNESS.public_key())
        text, _ = checkpoint.split_note(NOTE)
        signature = time_s.to_bytes(8, "big") + WITNESS.sign(cosignature.message(text, time_s))
        with pytest.raises(SignatureInvalid):
            cosignature.cosigned(text, [checkpoint.Signature(NAME, witness.id, signature)], witness)


def test_a_signature_of_another_length_is_refused() -> None:
    witness = cosignature.cosigner(NAME, WITNESS.public_key())
    for length in (1, 64, 71, 73):
        with pytest.raises(SignatureInvalid):
            cosignature.cosigned("text\n", [checkpoint.Signature(NAME, witness.id, bytes(length))], witness)


def test_sixteen_cosignatures_and_post_quantum_ones_of_others_are_read_past() -> None:
    note = NOTE
    for number in range(16):
        note += checkpoint.signature_line(checkpoint.Verifier(f"other/{number}", bytes(32), b"\x06"), bytes(5000))
    note = cosignature.sign(note, NAME, WITNESS, TIME)
    assert checkpoint.verify(note, ORIGIN, KEY.public_key()).size == 1
    assert cosigned(note, cosignature.cosigner(NAME, WITNESS.public_key())) == TIME
