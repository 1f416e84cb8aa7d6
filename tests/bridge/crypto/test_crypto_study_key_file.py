"""The file that carries a study's keys: for one node, from one node, for one sealed study."""

import os
from dataclasses import replace

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.content import cid as cids
from bridge.crypto import hpke, study_key_file
from bridge.crypto.hpke import Recipient
from bridge.crypto.study_key_file import Envelope
from bridge.errors import KeyFileInvalid
from bridge.model import StudyKey
from ledger import checkpoint, entry
from ledger.keys import key_id

STUDY = "1.2.826.0.1.3680043.8.498.1"
TAG = bytes(range(16))
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NODE, SEED = b"r" * 16, bytes(range(1, 33))
RECIPIENT = Recipient.of(NODE, SEED)
KEYS = (StudyKey(STUDY, 0, TAG, b"\1" * 32), StudyKey(STUDY, 3, TAG, b"\3" * 32))
ENVELOPE = Envelope(
    log="cairn/test",
    sender=b"s" * 16,
    sender_key=SIGNER.public_key().public_bytes_raw(),
    recipient=NODE,
    origin=b"o" * 16,
    tag=TAG,
    generations=(0, 3),
    root=cids.make(cids.DAG_CBOR, b"root"),
    made=1_790_000_000_000_000,
)
FILE = study_key_file.write(ENVELOPE, reversed(KEYS), RECIPIENT, SIGNER)


def signed(fields, signer=SIGNER, label=b"cairn/1 study key file"):
    protected = cbor2.loads(FILE)[0]
    payload = fields if isinstance(fields, bytes) else cbor2.dumps(fields, canonical=True)
    signature = signer.sign(cbor2.dumps(["Signature1", protected, label, payload], canonical=True))
    return cbor2.dumps([protected, {}, payload, signature])


def payload():
    return cbor2.loads(cbor2.loads(FILE)[2])


def test_what_was_written_is_read_and_opened():
    envelope = study_key_file.read(FILE)
    assert replace(envelope, sealed=b"") == ENVELOPE
    assert envelope.verifier == checkpoint.vkey("cairn/test", SIGNER.public_key())
    assert study_key_file.open_keys(envelope, NODE, SEED) == (STUDY, KEYS)


def test_the_form_is_that_of_the_documentation():
    fields = payload()
    assert list(fields) == ["g", "k", "n", "o", "r", "s", "v", "lg", "to", "ts", "log", "sealed"]
    info = {name: value for name, value in fields.items() if name != "sealed"}
    assert study_key_file.read(FILE).info() == b"cairn/1 study key file\0" + cbor2.dumps(info, canonical=True)
    plain = cbor2.loads(hpke.open_sealed(SEED, study_key_file.read(FILE).info(), fields["sealed"]))
    assert plain == {"k": [[0, b"\1" * 32], [3, b"\3" * 32]], "u": STUDY}
    assert signed(cbor2.loads(FILE)[2]) == FILE


def test_neither_keys_nor_the_study_can_be_read_in_it():
    assert STUDY.encode() not in FILE
    assert b"\1" * 32 not in FILE


@given(st.integers(0, len(FILE) * 8 - 1))
@example(0)
def test_every_flipped_bit_is_found(bit):
    damaged = bytearray(FILE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(bytes(damaged))


@given(st.integers(0, len(FILE) - 1))
def test_a_file_cut_anywhere_is_refused(length):
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(FILE[:length])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data):
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(data)


@pytest.mark.parametrize("data", [FILE + b"\0", b"", b"\xd2" + FILE, bytes(study_key_file.MAX_SIZE + 1)])
def test_other_forms_are_refused(data):
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(data)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"lg": b"x" * 8},
        {"log": "cairn/other"},
        {"log": "a name"},
        {"log": b"cairn/test"},
        {"g": []},
        {"g": [3, 0]},
        {"g": [0, 0]},
        {"g": [-1]},
        {"g": [1 << 32]},
        {"g": [True]},
        {"g": 0},
        {"s": bytes(15)},
        {"s": "s" * 16},
        {"k": bytes(31)},
        {"r": "root"},
        {"ts": -1},
        {"ts": "now"},
        {"sealed": None},
        {"more": 1},
    ],
)
def test_a_signed_field_that_is_not_as_it_must_be_is_refused(change):
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(signed({**payload(), **change}))


@pytest.mark.parametrize("name", list(payload()))
def test_a_signed_file_that_lacks_a_field_is_refused(name):
    fields = payload()
    del fields[name]
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(signed(fields))


@pytest.mark.parametrize(
    "change",
    [
        {"log": "cairn/other", "lg": entry.ledger_id("cairn/other", ENVELOPE.sender_key)},
        {"n": b"x" * 16},
        {"o": b"x" * 16},
        {"s": b"x" * 16},
        {"g": [0, 4]},
        {"r": cids.make(cids.DAG_CBOR, b"other")},
        {"ts": 0},
    ],
)
def test_the_sealed_part_opens_in_no_other_envelope_though_signed_again(change):
    envelope = study_key_file.read(signed({**payload(), **change}))
    with pytest.raises(KeyFileInvalid):
        study_key_file.open_keys(envelope, NODE, SEED)


def test_another_sender_cannot_sign_the_sealed_part_as_its_own():
    other = Ed25519PrivateKey.generate()
    public = other.public_key().public_bytes_raw()
    stolen = signed({**payload(), "k": public, "lg": entry.ledger_id("cairn/test", public)}, other)
    with pytest.raises(KeyFileInvalid, match="another algorithm or key"):
        study_key_file.read(stolen)
    protected = cbor2.loads(FILE)[0][:-8] + key_id(public)
    body = cbor2.loads(stolen)[2]
    signature = other.sign(cbor2.dumps(["Signature1", protected, b"cairn/1 study key file", body]))
    envelope = study_key_file.read(cbor2.dumps([protected, {}, body, signature]))
    with pytest.raises(KeyFileInvalid, match="does not open"):
        study_key_file.open_keys(envelope, NODE, SEED)


def test_only_the_recipient_opens_it():
    envelope = study_key_file.read(FILE)
    with pytest.raises(KeyFileInvalid, match="not to this one"):
        study_key_file.open_keys(envelope, b"q" * 16, SEED)
    with pytest.raises(KeyFileInvalid, match="does not open"):
        study_key_file.open_keys(envelope, NODE, os.urandom(32))


def test_a_signature_over_a_ledger_entry_is_none_over_a_key_file():
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(signed(payload(), label=b""))
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(entry.sign(cbor2.loads(FILE)[2], SIGNER))


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\xff",
        cbor2.dumps({"u": STUDY}),
        cbor2.dumps({"k": [[0, b"\1" * 32]], "u": STUDY}, canonical=True),
        cbor2.dumps({"k": [[0, b"\1" * 31], [3, b"\3" * 32]], "u": STUDY}, canonical=True),
        cbor2.dumps({"k": [[0, b"\1" * 32], [3, "3" * 32]], "u": STUDY}, canonical=True),
        cbor2.dumps({"k": [[0, b"\1" * 32], [3, b"\3" * 32]], "u": ""}, canonical=True),
        cbor2.dumps({"k": [[0, b"\1" * 32], [3, b"\3" * 32]], "u": "1" * 65}, canonical=True),
        cbor2.dumps({"k": [[0, b"\1" * 32], [3, b"\3" * 32]], "u": STUDY, "x": 0}, canonical=True),
        cbor2.dumps({"k": 5, "u": STUDY}, canonical=True),
        cbor2.dumps([], canonical=True),
    ],
)
def test_a_sealed_part_of_another_form_is_refused(plain):
    envelope = study_key_file.read(FILE)
    sealed = hpke.seal(RECIPIENT.key, envelope.info(), plain)
    with pytest.raises(KeyFileInvalid):
        study_key_file.open_keys(replace(envelope, sealed=sealed), NODE, SEED)


def test_keys_of_several_studies_or_tags_are_not_written():
    with pytest.raises(ValueError, match="one study"):
        study_key_file.write(ENVELOPE, [*KEYS, StudyKey("1.2.3", 4, TAG, bytes(32))], RECIPIENT, SIGNER)
    with pytest.raises(ValueError, match="one study"):
        study_key_file.write(replace(ENVELOPE, tag=bytes(16)), KEYS, RECIPIENT, SIGNER)
    with pytest.raises(ValueError, match="one study"):
        study_key_file.write(ENVELOPE, [], RECIPIENT, SIGNER)


GRANTED = replace(ENVELOPE, grant=bytes(range(32)))


def test_a_file_that_delivers_a_grant_names_it_in_what_hpke_binds():
    delivery = study_key_file.read(study_key_file.write(GRANTED, KEYS, RECIPIENT, SIGNER))
    assert replace(delivery, sealed=b"") == GRANTED
    assert (delivery.fields()["v"], delivery.fields()["gr"]) == (2, bytes(range(32)))
    assert study_key_file.open_keys(delivery, NODE, SEED) == (STUDY, KEYS)
    for other in (bytes(32), None):
        with pytest.raises(KeyFileInvalid):
            study_key_file.open_keys(replace(delivery, grant=other), NODE, SEED)


@pytest.mark.parametrize(
    "change", [{"v": 1}, {"v": 3}, {"gr": b"short"}, {"gr": None}, {"gr": "text"}, {"more": 1}], ids=str
)
def test_a_grant_of_another_form_or_under_another_version_is_refused(change):
    fields = {**GRANTED.fields(), "sealed": b"", **change}
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(signed(fields))


def test_a_file_made_by_hand_that_claims_the_version_of_a_delivery_is_refused():
    with pytest.raises(KeyFileInvalid):
        study_key_file.read(signed({**payload(), "v": 2}))
