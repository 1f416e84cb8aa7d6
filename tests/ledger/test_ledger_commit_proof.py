"""Proof of a commit: from the genesis file and two files alone to an entry; every flipped byte of them is found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_source import octets
from ledger_terms import example

from ledger import (
    block,
    checkpoint,
    codec,
    commit_proof,
    cosignature,
    entry,
    genesis,
    keys,
    lightclient,
    merkle,
    proof,
    record,
    state,
    transaction,
)
from ledger.block import BlockRecord
from ledger.entry import Entry, Who
from ledger.errors import CodecError, LedgerError, ProofInvalid, SignatureInvalid
from ledger.genesis import Card
from ledger.light_block import BlockId, Commit, Header, LightBlock, Time, Validator, Vote, validators_hash
from ledger.lightclient import Trusting
from ledger.record import Record

START = 1_800_000_000_000_000  # microseconds
NOW = Trusting(Time(START // 1_000_000 + 3600, 0), None)
NOTHING = hashlib.sha256(b"").digest()


def key(label: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(octets(label, 32))


def card_of(name: str, power: int = 1) -> Card:
    signer = key(f"ledger {name}")
    return genesis.sign_card(
        Card(
            name=name,
            key=keys.raw(signer.public_key()),
            cosigner=keys.raw(key(f"cosigner {name}").public_key()),
            recipient=octets(f"node {name}") + octets(f"recipient {name}", 32),
            certificate=octets(f"certificate {name}", 32),
            url=f"https://{name}.example:8043",
            consensus=keys.raw(key(f"consensus {name}").public_key()),
            power=power,
            address=f"{octets(name, 20).hex()}@{name}.example:26656",
        ),
        signer,
    )


NAMES = ("h0", "h1", "h2", "h3")
GENESIS = genesis.make("pass", START, [card_of(name) for name in NAMES])


class Shared(NamedTuple):
    """A shared log of some entries in one block, and the light block of the height after."""

    envelopes: Sequence[bytes]
    leaves: Sequence[bytes]
    state: bytes
    record: bytes
    path: list[LightBlock]
    note: str

    def file(self) -> bytes:
        return commit_proof.encode(self.record, self.state, self.path)

    def proof(self, index: int, of: proof.RecordPath | None = None) -> str:
        return proof.make(index, self.envelopes[index], self.note, merkle.node_reader(self.leaves), of)


RECORD = record.encode(Record("study.store", START, octets("salt"), {"n": 1}))
BATCH = [record.leaf_hash(RECORD), octets("another record", 32)]


def entries_of(name: str, count: int) -> list[bytes]:
    signer = key(f"ledger {name}")
    made, previous = [], entry.GENESIS
    for sequence in range(count):
        type_ = "study.store" if sequence else "ledger.join"
        said = Entry(
            node=keys.node_id(signer.public_key()),
            sequence=sequence,
            previous=previous,
            type=type_,
            ledger=GENESIS.ledger,
            time_us=START + sequence,
            purpose="TREAT",
            outcome=0,
            who=Who(0, octets("who")),
            study=octets("study") if sequence else None,
            commitment=octets("commitment", 32) if sequence else None,
            records_root=merkle.root(BATCH),
            **example(type_),
        )
        made.append(entry.sign(entry.encode(said), signer))
        previous = entry.envelope_hash(made[-1])
    return made


def light_block(height: int, app_hash: bytes, names: Sequence[str], then: Sequence[str] | None = None) -> LightBlock:
    sets = [
        tuple(lightclient.ordered([Validator(keys.raw(key(f"consensus {name}").public_key()), 1) for name in each]))
        for each in (names, names if then is None else then)
    ]
    time = Time(START // 1_000_000 + height, 5)
    header = Header(
        version=(11, 1),
        chain_id=GENESIS.chain_id,
        height=height,
        time=time,
        last_block_id=BlockId(octets(f"block {height - 1}", 32), 1, octets("parts", 32)),
        last_commit_hash=octets("last commit", 32),
        data_hash=NOTHING,
        validators_hash=validators_hash(sets[0]),
        next_validators_hash=validators_hash(sets[1]),
        consensus_hash=octets("consensus", 32),
        app_hash=app_hash,
        last_results_hash=NOTHING,
        evidence_hash=NOTHING,
        proposer_address=sets[0][0].address,
    )
    commit = Commit(height, 0, BlockId(header.hash(), 1, octets("these parts", 32)), ())
    signers = {keys.raw(one.public_key()): one for one in (key(f"consensus {name}") for name in names)}
    vote = Vote(time, b"")
    cast = [
        vote._replace(signature=signers[each.public_key].sign(commit.sign_bytes(vote, GENESIS.chain_id)))
        for each in sets[0]
    ]
    votes: list[Vote | None] = [None, *cast[1:]] if height == 8 else list(cast)
    return LightBlock(header, commit._replace(votes=tuple(votes)), sets[0])


def shared(names: Sequence[str] = NAMES, before: Sequence[LightBlock] = (), **changed: Any) -> Shared:
    """Each member's first three entries in the block of height 7, signed by h1; `changed` are fields of its record."""
    now, envelopes = state.initial(GENESIS), []
    for name in NAMES:
        run = entries_of(name, 3)
        now = state.apply(now, state.check(now, transaction.encode(run), lambda id: None), 7)
        envelopes += run
    leaves = [entry.leaf_hash(envelope) for envelope in envelopes]
    encoded_state = state.encode(now)
    fields: dict[str, Any] = {
        "ledger": GENESIS.ledger,
        "height": 7,
        "previous": block.FIRST,
        "first": 0,
        "size": len(leaves),
        "root": merkle.root(leaves),
        "state": state.state_hash(now),
        "time_us": START,
        "proposer": bytes(20),
        "hash": octets("block 7", 32),
    }
    said = BlockRecord(**{**fields, **changed})
    encoded = block.encode(said)
    note = checkpoint.make(GENESIS.origin, said.size, said.root, key("ledger h1"))
    path = [*before, light_block(8, block.app_hash(encoded), names)]
    return Shared(envelopes, leaves, encoded_state, encoded, path, note)


LOG = shared()


def test_an_entry_and_its_record_are_shown_with_the_genesis_alone() -> None:
    committed = commit_proof.verify(LOG.file(), GENESIS, NOW)
    assert (committed.record.height, committed.block.header.height) == (7, 8)
    assert (committed.signed, committed.power) == (3, 4)
    shown = commit_proof.verify_entry(LOG.proof(4, proof.record_path(BATCH, 0, RECORD)), committed, GENESIS)
    assert (shown.member.name, shown.proved.index, shown.proved.entry.sequence) == ("h1", 4, 1)
    assert shown.proved.record is not None
    assert shown.proved.record.body == {"n": 1}
    for index in range(len(LOG.leaves)):
        name = commit_proof.verify_entry(LOG.proof(index), committed, GENESIS).member.name
        assert name == NAMES[index // 3]


def test_every_flipped_byte_of_a_proof_of_a_commit_is_found() -> None:
    file = LOG.file()
    for at in range(len(file)):
        damaged = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        with pytest.raises(LedgerError) as caught:
            commit_proof.verify(damaged, GENESIS, NOW)
        assert caught.value.place in commit_proof.STEPS


def test_every_flipped_byte_of_the_entrys_proof_is_found() -> None:
    committed = commit_proof.verify(LOG.file(), GENESIS, NOW)
    text = LOG.proof(4, proof.record_path(BATCH, 0, RECORD)).encode()
    for at in range(len(text)):
        try:
            damaged = (text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]).decode()
        except UnicodeDecodeError:
            continue  # a file that is no text is refused before
        with pytest.raises(LedgerError) as caught:
            commit_proof.verify_entry(damaged, committed, GENESIS)
        assert caught.value.place in commit_proof.STEPS


def test_another_consortiums_genesis_does_not_do() -> None:
    other = genesis.make("other", START, [card_of(name) for name in NAMES])
    with pytest.raises(ProofInvalid, match="another chain"):
        commit_proof.verify(LOG.file(), other, NOW)
    strangers = genesis.make("pass", START, [card_of(name) for name in ("x0", "x1", "x2")])
    with pytest.raises(LedgerError):
        commit_proof.verify(LOG.file(), strangers, NOW)


def test_a_record_that_the_header_does_not_hold_is_refused() -> None:
    forged = shared(root=octets("another root", 32))
    with pytest.raises(ProofInvalid, match="app hash"):
        commit_proof.verify(commit_proof.encode(forged.record, LOG.state, LOG.path), GENESIS, NOW)
    later, elsewhere = shared(height=8), shared(ledger=bytes(8))
    for each in (later, elsewhere):
        with pytest.raises(ProofInvalid, match="another ledger, or not of an earlier height"):
            commit_proof.verify(each.file(), GENESIS, NOW)


def test_another_state_than_the_records_is_refused() -> None:
    other = state.encode(state.initial(GENESIS))
    with pytest.raises(ProofInvalid, match="names") as caught:
        commit_proof.verify(commit_proof.encode(LOG.record, other, LOG.path), GENESIS, NOW)
    assert caught.value.place == "state"


def test_a_proof_under_another_tree_than_was_committed_to_is_refused() -> None:
    committed = commit_proof.verify(LOG.file(), GENESIS, NOW)
    head = checkpoint.parse(checkpoint.split_note(LOG.note)[0])
    size = head.size - 1
    smaller = checkpoint.make(head.origin, size, merkle.root(LOG.leaves[:size]), key("ledger h1"))
    text = proof.make(4, LOG.envelopes[4], smaller, merkle.node_reader(LOG.leaves[:size]))
    with pytest.raises(ProofInvalid, match="committed to"):
        commit_proof.verify_entry(text, committed, GENESIS)


def test_a_checkpoint_that_no_member_signed_is_refused() -> None:
    committed = commit_proof.verify(LOG.file(), GENESIS, NOW)
    head = checkpoint.parse(checkpoint.split_note(LOG.note)[0])
    foreign = checkpoint.make(*head, key("a stranger"))
    with pytest.raises(SignatureInvalid):
        commit_proof.verify_entry(LOG._replace(note=foreign).proof(4), committed, GENESIS)
    cosigned = cosignature.sign(LOG.note, "h2", key("cosigner h2"), START // 1_000_000)
    text = LOG._replace(note=cosigned).proof(4)
    with pytest.raises(SignatureInvalid):  # a commit says more, and nothing looks at it
        commit_proof.verify_entry(text, committed, GENESIS)
    assert commit_proof.bare(text, GENESIS) == LOG.proof(4)


def test_an_entry_that_its_member_has_not_signed_is_refused_even_when_it_was_committed_to() -> None:
    """What more than two thirds of the validators would let pass together."""
    own = entry.read(LOG.envelopes[4])
    payload = entry.encode(replace(own, node=keys.node_id(key("ledger h3").public_key())))
    forged = [*LOG.envelopes[:4], entry.sign(payload, key("ledger h1")), *LOG.envelopes[5:]]
    leaves = [entry.leaf_hash(envelope) for envelope in forged]
    colluding = shared(root=merkle.root(leaves))._replace(envelopes=forged, leaves=leaves)
    committed = commit_proof.verify(colluding.file(), GENESIS, NOW)
    with pytest.raises(SignatureInvalid) as caught:
        commit_proof.verify_entry(colluding.proof(4), committed, GENESIS)
    assert caught.value.place == "entry"


def test_a_consortium_whose_members_were_all_replaced_is_followed_from_its_genesis() -> None:
    steps = [("h0", "h1", "h2", "h3"), ("h2", "h3", "x0", "x1"), ("x0", "x1", "x2", "x3")]
    between = [light_block(2 + 2 * at, NOTHING, names) for at, names in enumerate(steps)]
    log = shared(names=steps[-1], before=between)
    assert commit_proof.verify(log.file(), GENESIS, NOW).record.height == 7
    with pytest.raises(ProofInvalid, match="third"):
        commit_proof.verify(commit_proof.encode(log.record, log.state, log.path[-1:]), GENESIS, NOW)
    blocks = {height: light_block(height, NOTHING, steps[1 if height < 5 else 2]) for height in range(3, 8)}
    blocks[8] = log.path[-1]
    found = commit_proof.find_path(GENESIS, 8, NOW, blocks.__getitem__)
    assert commit_proof.verify(commit_proof.encode(log.record, log.state, found), GENESIS, NOW).signed == 3


def test_a_commit_from_the_future_is_refused() -> None:
    early = Trusting(Time(START // 1_000_000 - 60, 0), None)
    with pytest.raises(ProofInvalid, match="future"):
        commit_proof.verify(LOG.file(), GENESIS, early)


def test_what_is_no_proof_of_a_commit_is_refused() -> None:
    value: Any = codec.decode(LOG.file(), commit_proof.MAX_SIZE)
    for other in ({}, [], {**value, "v": 2}, {**value, "v": True}, {**value, "p": []}, {**value, "x": 1}, {"p": [1]}):
        with pytest.raises(CodecError) as caught:
            commit_proof.verify(codec.encode(other, commit_proof.MAX_SIZE), GENESIS, NOW)
        assert caught.value.place == "format"
    with pytest.raises(CodecError):
        commit_proof.encode(LOG.record, LOG.state, [])
