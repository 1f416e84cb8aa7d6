"""Entries: the golden envelope, strictness, and two other implementations of COSE and DAG-CBOR."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import dag_cbor
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from ledger_terms import example, stated

from ledger import codec, entry
from ledger.entry import Entry, Who
from ledger.errors import CodecError, LedgerError, SignatureInvalid
from ledger.types import ENTRY_TYPES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ORIGIN = "node.example/ledger"

#: The example of docs/ledger-format.md.
GOLDEN = Entry(
    node=entry.keys.node_id(KEY.public_key()),
    sequence=0,
    previous=entry.GENESIS,
    type="study.store",
    ledger=entry.ledger_id(ORIGIN, KEY.public_key()),
    time_us=1_700_000_000_000_000,
    purpose="TREAT",
    outcome=0,
    who=Who(2, bytes.fromhex("a1" * 16), "device", bytes.fromhex("ad" * 16)),
    study=bytes.fromhex("57" * 16),
    commitment=bytes.fromhex("c0" * 32),
    records_root=bytes.fromhex("7e" * 32),
)
PAYLOAD_HEX = (
    "ae616e5056475aa75463474c0285df5dbf2bcab7617058200000000000000000000000000000000000000000000000000000"
    "00000000000061710061746b73747564792e73746f72656176016261636143626c6748ad9ba56ae67bf894626f6300627075"
    "65545245415462727258207e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e6274731b00060a"
    "24181e4000636f626aa161685820c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c063737562"
    "a1617350575757575757575757575757575757576377686fa4616150adadadadadadadadadadadadadadadad616950a1a1a1"
    "a1a1a1a1a1a1a1a1a1a1a1a1a1616b02617266646576696365"
)
ENVELOPE_HEX = (
    "844da20127044856475aa75463474ca0590113ae616e5056475aa75463474c0285df5dbf2bcab76170582000000000000000"
    "0000000000000000000000000000000000000000000000000061710061746b73747564792e73746f72656176016261636143"
    "626c6748ad9ba56ae67bf894626f630062707565545245415462727258207e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e7e"
    "7e7e7e7e7e7e7e7e7e7e7e7e6274731b00060a24181e4000636f626aa161685820c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0"
    "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c063737562a1617350575757575757575757575757575757576377686fa4616150adadad"
    "adadadadadadadadadadadadad616950a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1616b0261726664657669636558401c707ff3"
    "2a3d8d303dacf26156aa67bed0543b97731220ef0e3c42a1813133460536b957c6d16f3a92105768c4f19200cea7a542e2dc"
    "b8c24ceef700b8e9df08"
)
LEAF_HEX = "db309a5c70394adb44ab3b1a5fcb082510bdbf326db66709c278cad7988bb1c7"


def test_golden_envelope() -> None:
    payload = entry.encode(GOLDEN)
    assert payload.hex() == PAYLOAD_HEX
    envelope = entry.sign(payload, KEY)
    assert envelope.hex() == ENVELOPE_HEX
    assert entry.leaf_hash(envelope).hex() == LEAF_HEX
    assert entry.open(envelope, KEY.public_key()) == GOLDEN


def test_optional_fields_are_absent_and_never_null() -> None:
    bare = replace(GOLDEN, type="app.start", study=None, commitment=None, who=Who(0, bytes(16)))
    value: Any = codec.decode(entry.encode(bare))
    assert "sub" not in value and "obj" not in value and list(value["who"]) == ["i", "k"]
    assert entry.decode(entry.encode(bare)) == bare


def test_every_type_of_the_table_makes_an_entry_with_its_action() -> None:
    for row in ENTRY_TYPES.values():
        value: Any = codec.decode(entry.encode(replace(GOLDEN, type=row.name, **example(row.name))))
        assert value["ac"] == row.action


def test_pycose_verifies_what_is_signed_here_and_makes_the_same_signature() -> None:
    with warnings.catch_warnings():
        # pycose 1.1.0 imports names that its dependencies have deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from pycose.algorithms import EdDSA
        from pycose.headers import KID, Algorithm
        from pycose.keys import OKPKey
        from pycose.messages import Sign1Message
    public = KEY.public_key().public_bytes_raw()
    envelope = entry.sign(entry.encode(GOLDEN), KEY)
    theirs = Sign1Message.from_cose_obj(codec.decode(envelope), allow_unknown_attributes=False)
    theirs.key = OKPKey(crv="ED25519", x=public, d=bytes(range(32)))
    assert theirs.verify_signature()
    made = Sign1Message(phdr={Algorithm: EdDSA, KID: entry.keys.key_id(public)}, payload=entry.encode(GOLDEN))
    made.key = theirs.key
    assert made.encode(tag=False) == envelope


def test_an_envelope_is_dag_cbor() -> None:
    envelope = entry.sign(entry.encode(GOLDEN), KEY)
    assert dag_cbor.encode(dag_cbor.decode(envelope)) == envelope


def test_every_flipped_bit_of_an_envelope_is_refused() -> None:
    envelope = entry.sign(entry.encode(GOLDEN), KEY)
    for at in range(len(envelope)):
        damaged = bytearray(envelope)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(LedgerError):
            entry.open(bytes(damaged), KEY.public_key())


def test_another_key_is_refused() -> None:
    envelope = entry.sign(entry.encode(GOLDEN), KEY)
    with pytest.raises(SignatureInvalid):
        entry.open(envelope, Ed25519PrivateKey.generate().public_key())


@pytest.mark.parametrize(
    "change",
    [
        {"node": bytes(15)},
        {"sequence": -1},
        {"sequence": 2**63},
        {"sequence": True},
        {"previous": bytes(31)},
        {"type": "study.view"},
        {"ledger": bytes(9)},
        {"time_us": 1.5},
        {"purpose": "x" * 65},
        {"outcome": 1},
        {"who": Who(4, bytes(16))},
        {"who": Who(0, bytes(15))},
        {"who": Who(0, bytes(16), "", bytes(15))},
        {"study": bytes(15)},
        {"commitment": b""},
        {"records_root": bytes(33)},
        {"version": 2},
        {"body": b""},
        {"body": codec.encode({"to": bytes(16)})},
        {"type": "consent.grant", "body": codec.encode({"to": bytes(15)})},
        {"type": "consent.grant", "body": codec.encode({"to": bytes(16), "x": None})},
        {"type": "consent.grant", "body": codec.encode({"to": bytes(16), "y": 1})},
        {"type": "consent.grant", "body": codec.encode({"x": 1})},
        {"type": "consent.grant", "body": codec.encode({})},
        {"type": "consent.grant", "body": codec.encode([])},
        {"type": "gov.propose"},
        {"type": "gov.propose", "body": codec.encode({"do": "dissolve"})},
        {"type": "gov.propose", "body": codec.encode({"do": "retire"})},
        {"type": "gov.propose", "body": codec.encode({"do": ["retire"], "m": bytes(16)})},
        {"type": "gov.vote", "body": codec.encode({"y": True})},
        {"type": "gov.vote", "body": codec.encode({"y": 1}), "refs": (bytes(32),)},
        {"type": "ledger.join", "body": codec.encode({"o": "two words", "s": 0, "r": bytes(32)})},
        {"refs": (bytes(31),)},
        {"refs": [bytes(32)]},
        {"refs": (bytes(32),) * 17},
    ],
)
def test_fields_out_of_range_are_not_encoded(change: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        entry.encode(replace(GOLDEN, **change))


def test_payloads_with_other_fields_are_not_decoded() -> None:
    value: Any = codec.decode(entry.encode(GOLDEN))
    wrong: list[Any] = [
        {**value, "x": 0},
        {**value, "ac": "R"},
        {**value, "sub": {}},
        {**value, "sub": {"s": None}},
        {**value, "obj": {"h": bytes(32), "n": 3}},
        {**value, "who": {**value["who"], "r": ""}},
        {**value, "who": []},
        {**value, "ref": []},
        {**value, "ref": bytes(32)},
        {**value, "bd": {}},
        {**value, "bd": None},
        {**value, "bd": {"to": bytes(16)}},
        {key: item for key, item in value.items() if key != "rr"},
        [value],
        {},
    ]
    for payload in wrong:
        with pytest.raises(CodecError):
            entry.decode(codec.encode(payload))


@pytest.mark.parametrize(
    "shape",
    [
        [],
        {},
        [b"", {}, b""],
        [b"", {"a": 1}, b"", bytes(64)],
        [b"", {}, b"", bytes(63)],
        [b"", [], b"", bytes(64)],
    ],
)
def test_other_shapes_are_no_envelope(shape: object) -> None:
    with pytest.raises(CodecError):
        entry.unwrap(codec.encode(shape))


tags, hashes = st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)
counts = st.integers(0, 2**63 - 1) | st.integers(0, 300)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
entries = st.builds(
    lambda stated, **fields: Entry(**stated, **fields),
    stated=stated(),
    node=tags,
    sequence=counts,
    previous=hashes,
    ledger=st.binary(min_size=8, max_size=8),
    time_us=counts,
    purpose=texts | st.sampled_from(["TREAT", "brrX ", "btsX"]),
    outcome=st.sampled_from([0, 4, 8, 12]),
    who=st.builds(Who, st.integers(0, 3), tags, texts, st.none() | tags),
    study=st.none() | tags,
    commitment=st.none() | hashes,
    records_root=hashes,
)


def as_map(said: Entry) -> dict[str, object]:
    """The payload as docs/ledger-format.md has it."""
    who = {"k": said.who.kind, "i": said.who.tag, "r": said.who.role or None, "a": said.who.address}
    return {
        **{"n": said.node, "p": said.previous, "q": said.sequence, "t": said.type, "v": 1, "lg": said.ledger},
        **{"ac": ENTRY_TYPES[said.type].action, "oc": said.outcome, "pu": said.purpose, "rr": said.records_root},
        **{"ts": said.time_us, "who": {key: item for key, item in who.items() if item is not None}},
        **({} if said.study is None else {"sub": {"s": said.study}}),
        **({} if said.commitment is None else {"obj": {"h": said.commitment}}),
        **({} if said.body is None else {"bd": codec.decode(said.body)}),
        **({"ref": said.refs} if said.refs else {}),
    }


@given(entries)
def test_an_entry_is_encoded_as_the_codec_encodes_its_map_and_read_back(said: Entry) -> None:
    payload = entry.encode(said)
    assert payload == codec.encode(as_map(said))
    assert entry.decode(payload) == said
    envelope = entry.sign(payload, KEY)
    protected = b"\xa2\x01\x27\x04\x48" + entry.keys.key_id(KEY.public_key())
    assert envelope == codec.encode([protected, {}, payload, envelope[-64:]])
    assert entry.open(envelope, KEY.public_key()) == said


@given(entries, st.data())
def test_a_payload_with_any_byte_changed_is_refused_or_is_the_encoding_of_what_is_read(
    said: Entry, data: st.DataObject
) -> None:
    damaged = bytearray(entry.encode(said))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = entry.decode(bytes(damaged))
    except CodecError:
        return
    assert codec.encode(as_map(read)) == damaged
