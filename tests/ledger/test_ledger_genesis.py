"""Cards and the genesis: golden vectors, strictness, and what makes two of them clash."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_hospitals import HOSPITALS, START, Hospital, Ledger, beginning, joined, public, seed

from ledger import block, codec, entry, genesis, state, transaction
from ledger.block import BlockRecord
from ledger.errors import CodecError, LedgerError, SignatureInvalid
from ledger.genesis import Parameters
from ledger.members import Chain

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "consortium" / "golden.json").read_text("utf-8"))
A, B, C, D = HOSPITALS
RECORD = BlockRecord(
    ledger=beginning().ledger,
    height=7,
    previous=bytes.fromhex("b1" * 32),
    first=40,
    size=42,
    root=bytes.fromhex("7e" * 32),
    state=bytes.fromhex("57" * 32),
    time_us=START,
    proposer=A.card().validator,
    hash=bytes.fromhex("e1" * 32),
)


def vectors() -> dict[str, str]:
    """What `golden.json` holds, made anew."""
    ledger = joined()
    chain = ledger.state.chain(A.node)
    propose = A.entry(ledger.state.ledger, chain, "gov.propose", {"do": "power", "m": D.node, "w": 2})
    (open_one,) = [item.leaf for item in ledger.take(transaction.encode([propose])).entries]
    vote = B.entry(ledger.state.ledger, ledger.state.chain(B.node), "gov.vote", {"y": True}, [open_one])
    grant = C.entry(ledger.state.ledger, ledger.state.chain(C.node), "consent.grant", {"to": D.node, "x": START})
    ledger.take(transaction.encode([vote]))
    noted = state.note_evidence(ledger.state, 1, D.card().validator, 9, START)
    record = block.encode(RECORD)
    return {
        "card": A.card().signed.hex(),
        "genesis": genesis.encode(beginning()).hex(),
        "ledger id": beginning().ledger.hex(),
        "join envelope": A.entry(ledger.state.ledger, Chain(), "ledger.join", {"o": "x", "s": 3, "r": bytes(32)}).hex(),
        "propose envelope": propose.hex(),
        "vote envelope": vote.hex(),
        "grant envelope": grant.hex(),
        "transaction": transaction.encode([vote, grant]).hex(),
        "state": state.encode(noted).hex(),
        "state hash": state.state_hash(noted).hex(),
        "block record": record.hex(),
        "app hash": block.app_hash(record).hex(),
        "cosigner seed": genesis.cosigner_seed(seed("h0 ledger")).hex(),
    }


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_vectors_are_what_the_code_makes(name: str) -> None:
    assert vectors()[name] == GOLDEN[name]


def test_golden_vectors_are_complete_and_are_read_back() -> None:
    assert sorted(vectors()) == sorted(GOLDEN)
    octets = {name: bytes.fromhex(text) for name, text in GOLDEN.items()}
    assert genesis.open_card(octets["card"]) == A.card()
    assert genesis.decode(octets["genesis"]) == beginning()
    assert state.encode(state.decode(octets["state"])) == octets["state"]
    assert block.decode(octets["block record"]) == RECORD
    assert transaction.decode(octets["transaction"]) == (octets["vote envelope"], octets["grant envelope"])
    assert entry.open(octets["vote envelope"], B.signer.public_key()).terms == {"y": True}


def test_a_card_is_read_from_its_text_and_every_changed_byte_of_it_is_refused() -> None:
    card = A.card()
    assert genesis.parse_card(genesis.card_text(card)) == card
    assert genesis.parse_card("\n" + genesis.card_text(card) + "\n") == card
    for at in range(len(card.signed)):
        damaged = bytearray(card.signed)
        damaged[at] ^= 1
        with pytest.raises(LedgerError):
            genesis.open_card(bytes(damaged))
    for text in ("", "-----BEGIN CAIRN MEMBER CARD-----\n???\n-----END CAIRN MEMBER CARD-----"):
        with pytest.raises(CodecError):
            genesis.parse_card(text)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "H0"},
        {"name": ""},
        {"name": "-h"},
        {"name": "h" * 33},
        {"name": "two words"},
        {"key": bytes(31)},
        {"cosigner": b""},
        {"recipient": bytes(32)},
        {"certificate": b""},
        {"certificate": bytes(5000)},
        {"url": "http://h0.example"},
        {"url": "https://h0.example/\n"},
        {"url": "https://h0.example/path/x"},
        {"consensus": bytes(33)},
        {"power": -1},
        {"power": 1 << 21},
        {"power": True},
        {"address": "h0.example:26656"},
        {"address": f"{'AB' * 20}@h0.example:26656"},
        {"address": f"{'ab' * 20}@h0.example"},
    ],
)
def test_a_card_with_a_field_out_of_its_range_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        genesis.sign_card(replace(A.card(), **change), A.signer)


def test_a_card_is_signed_with_the_key_that_it_names_and_is_no_entry() -> None:
    with pytest.raises(CodecError):
        genesis.sign_card(A.card(), B.signer)
    with pytest.raises(LedgerError):
        entry.open(A.card().signed, A.signer.public_key())
    # A payload of a card under the signature of an entry: the external data differ.
    value: Any = codec.decode(A.card().signed, 8192)
    with pytest.raises(SignatureInvalid):
        genesis.open_card(codec.encode([*value[:3], entry.sign(value[2], A.signer)[-64:]], 8192))


def test_addresses_of_both_families_are_addresses() -> None:
    card = A.card(address=f"{'ab' * 20}@[::1]:26656", url="https://[::1]:8043")
    assert genesis.open_card(card.signed) == card


@given(st.permutations(HOSPITALS))
def test_the_order_in_which_members_are_named_does_not_matter(order: list[Hospital]) -> None:
    assert genesis.encode(beginning(order)) == genesis.encode(beginning())


def test_a_genesis_file_says_what_its_cards_say_and_nothing_else() -> None:
    text = genesis.to_json(beginning())
    assert genesis.from_json(text) == beginning()
    document = json.loads(text)
    for name, value in (
        *(("name", "south"), ("ledger", "00" * 8), ("origin", "cairn/x"), ("time_us", 1), ("time_us", None)),
        *(("members", []), ("members", document["members"][:3]), ("parameters", {}), ("extra", 1), ("cairn", 2)),
        ("members", [{**document["members"][0], "name": "h9"}, *document["members"][1:]]),
    ):
        with pytest.raises(LedgerError):
            genesis.from_json(json.dumps({**document, name: value}))
    for broken in ("", "[]", "{}", text[:-20], "[" * 100_000):
        with pytest.raises(LedgerError):
            genesis.from_json(broken)


def test_two_members_never_share_a_name_or_key() -> None:
    for clash in (
        Hospital("h0", key="another").card(),
        Hospital("h9", key="h0 ledger").card(),
        Hospital("h9").card(consensus=A.card().consensus),
    ):
        with pytest.raises(CodecError):
            genesis.make("north", START, [A.card(), clash])
    for name, cards in (("north", []), ("North", [A.card()]), ("north", [A.card(power=0)])):
        with pytest.raises(CodecError):
            genesis.make(name, START, cards)
    with pytest.raises(CodecError):
        genesis.make("north", START, [A.card()], Parameters(transaction_bytes=0))


def test_names_of_the_log_and_of_the_chain_follow_from_the_genesis() -> None:
    made = beginning()
    assert made.origin == f"cairn/north-{made.ledger.hex()}" and made.chain_id == f"north-{made.ledger.hex()}"
    longest = genesis.make("n" * 32, START, [A.card()])
    assert len(longest.chain_id) <= 50
    assert A.card().witness().name == "h0" and A.card().witness().key == A.card().cosigner != A.card().key


@pytest.mark.parametrize(
    "change",
    [
        *({"ledger": bytes(7)}, {"height": -1}, {"height": True}, {"previous": bytes(31)}, {"size": 39}),
        *({"proposer": bytes(32)}, {"hash": b""}, {"time_us": 2**63}, {"state": None}),
    ],
)
def test_a_block_record_with_a_field_out_of_its_range_is_not_encoded(change: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        block.encode(RECORD._replace(**change))


def test_every_changed_byte_of_a_block_record_is_refused_or_another_record() -> None:
    encoded = block.encode(RECORD)
    for at in range(len(encoded)):
        damaged = bytearray(encoded)
        damaged[at] ^= 1
        try:
            read = block.decode(bytes(damaged))
        except CodecError:
            continue
        assert read != RECORD and block.encode(read) == bytes(damaged)


hashes = st.binary(min_size=32, max_size=32)
counts = st.integers(0, 2**63 - 1)


@given(
    st.builds(
        BlockRecord,
        ledger=st.binary(min_size=8, max_size=8),
        height=counts,
        previous=hashes,
        first=st.integers(0, 2**30),
        size=st.integers(2**30, 2**63 - 1),
        root=hashes,
        state=hashes,
        time_us=counts,
        proposer=st.binary(min_size=20, max_size=20),
        hash=hashes,
    )
)
def test_block_records_are_read_back(record: BlockRecord) -> None:
    assert block.decode(block.encode(record)) == record


@given(st.lists(st.binary(max_size=400), min_size=1, max_size=30))
def test_transactions_are_the_codecs_list_of_envelopes_and_are_read_back(envelopes: list[bytes]) -> None:
    tx = transaction.encode(envelopes)
    assert tx == codec.encode(envelopes, transaction.MAX_SIZE) and transaction.decode(tx) == tuple(envelopes)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 16_000), min_size=1, max_size=60), st.integers(100, transaction.MAX_SIZE))
def test_as_many_entries_as_fit_go_into_one_transaction(sizes: list[int], most: int) -> None:
    envelopes = [bytes(size) for size in sizes]
    count = transaction.fit(envelopes, most)
    assert 1 <= count <= len(envelopes)
    assert count == 1 or len(transaction.encode(envelopes[:count])) <= most
    assert count == len(envelopes) or sum(map(len, envelopes[: count + 1])) + 3 * count > most - 20


def test_what_is_no_list_of_envelopes_is_no_transaction() -> None:
    for value in ([], [b""] * 1025, [1], ["x"], {}, b"", [bytes(16_385)]):
        with pytest.raises(CodecError):
            transaction.decode(codec.encode(value, transaction.MAX_SIZE))
    for envelopes in ([], [bytes(16_000)] * 17):
        with pytest.raises(CodecError):
            transaction.encode(envelopes)
    assert transaction.fit([]) == 0


def test_a_state_that_is_not_in_its_one_encoding_is_refused() -> None:
    value: Any = codec.decode(state.encode(Ledger().state), 1 << 20)
    wrong: list[Any] = [
        *({**value, "v": 1}, {**value, "x": 1}, {**value, "mb": value["mb"][::-1]}, {**value, "mb": [[1]]}, [], {}),
        {**value, "mb": value["mb"][:1] * 2},
        {key: item for key, item in value.items() if key != "ev"},
        {**value, "ev": [[1, 2]]},
        {**value, "ch": [[bytes(16), 1]]},
    ]
    for each in wrong:
        with pytest.raises(LedgerError):
            state.decode(codec.encode(each, 1 << 20))


def test_fingerprints_are_read_aloud_in_groups() -> None:
    assert len(genesis.fingerprint(A.card().signed).split()) == 8
    assert genesis.fingerprint(A.card().signed) != genesis.fingerprint(B.card().signed)
    assert public("x") != public("y")
