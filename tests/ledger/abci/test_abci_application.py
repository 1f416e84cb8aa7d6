"""The application in one process: what is taken and refused, what is durable, that a block gives the same twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger import checkpoint, genesis, merkle, state, terms, transaction
from ledger.abci.application import AHEAD, ConsortiumApplication, Signers
from ledger.abci.messages import OK, Block, InitChain, Proposal
from ledger.block import app_hash, decode
from ledger.block_store import BlockStore
from ledger.errors import TreeMismatch
from ledger.source import Cursor
from ledger.state import Code
from tests.ledger.shared_log import Hospital, Network

NO_TIME = 1_700_000_000_000_000_000
JOIN = terms.encode("ledger.join", {"o": "none", "s": 0, "r": merkle.EMPTY_ROOT})


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Four members that have joined; copies of the log at two of them."""
    made = Network(tmp_path / "network", copies=2)
    made.join()
    yield made
    made.close()


def reopened(network: Network, one: Hospital) -> ConsortiumApplication:
    """The application as a process that was killed finds it."""
    one.store.close()
    one.store = BlockStore(one.home / "ledger.db")
    signers = Signers(one.node, one.signer, one.cosigner, one.name)
    one.application = ConsortiumApplication(one.store, network.genesis, signers, lambda: 1_700_000_100)
    return one.application


def block(network: Network, *txs: bytes, height: int | None = None) -> Block:
    return Block(txs, network.height + 1 if height is None else height, NO_TIME, bytes(20), bytes(32))


def proposal(network: Network, *txs: bytes, most: int = 1 << 20) -> Proposal:
    return Proposal(txs, network.height + 1, NO_TIME, bytes(20), max_tx_bytes=most)


def run(network: Network, name: str, entries: int = 1) -> bytes:
    """A transaction with the next entries of a member."""
    return transaction.encode([network.sign(name) for _ in range(entries)])


def begin(network: Network, **given: object) -> InitChain:
    asked = InitChain(NO_TIME, network.genesis.chain_id, (), genesis.to_json(network.genesis).encode(), 1)
    return asked._replace(**given)  # type: ignore[arg-type]


def test_the_chain_may_begin_twice_before_the_first_block_and_for_no_other_consortium(tmp_path: Path) -> None:
    network = Network(tmp_path / "network", copies=1)
    application = network["east"].application
    assert application.init_chain(begin(network)) == application.init_chain(begin(network)) == b""
    assert application.info().height == 0
    other = genesis.make("other", 1, [one.card for one in network.hospitals.values()])
    with pytest.raises(TreeMismatch):
        application.init_chain(begin(network, app_state=genesis.to_json(other).encode()))
    with pytest.raises(TreeMismatch):
        application.init_chain(begin(network, chain_id="another"))
    network.join()
    with pytest.raises(TreeMismatch):
        application.init_chain(begin(network))
    network.close()


def test_what_a_block_gave_is_the_record_whose_hash_is_the_app_hash(network: Network) -> None:
    assert network.decide([[network.sign("east")], [network.sign("west"), network.sign("west")]]) == [OK, OK]
    store = network["east"].store
    stored = store.blocks()[-1]
    said = decode(stored.record)
    assert network["east"].application.info().app_hash == app_hash(stored.record) == stored.hash
    assert (said.first, said.size, said.root) == (4, 7, store.state().frontier.root())
    assert said.previous == store.blocks()[-2].hash
    assert said.state == state.state_hash(network["east"].application.state)
    note = store.checkpoint()
    assert note is not None
    verifier = checkpoint.Verifier(network.genesis.origin, network["east"].card.key)
    assert checkpoint.parse(checkpoint.open_note(note, verifier)).root == said.root
    assert note.splitlines()[-1].startswith("— east ")


def test_a_block_without_accepted_entries_writes_nothing_and_keeps_the_app_hash(network: Network) -> None:
    application, store = network["east"].application, network["east"].store
    before, digest = application.info(), store.state_digest()
    stale = run(network, "east")
    assert network.decide([transaction.decode(stale)]) == [OK]
    after = application.info()
    assert network.decide([]) == []
    assert network.decide([transaction.decode(stale)]) == [Code.TAKEN]
    assert application.info() == after != before
    assert store.state_digest() != digest
    assert len(store.blocks()) == 2


def test_evidence_alone_is_written_down_and_changes_the_app_hash(network: Network) -> None:
    application, store = network["east"].application, network["east"].store
    before = application.info().app_hash
    assert network.decide([], lies=[network.lie("south")]) == []
    assert application.info().app_hash != before
    assert [(found.kind, found.node) for found in store.evidence()] == [("double-sign", network["south"].node)]
    assert store.size() == 4
    assert network.decide([[network.sign("east")]]) == [OK]


def test_a_block_that_was_executed_and_not_committed_gives_the_same_again(network: Network) -> None:
    one = network["east"]
    decided = block(network, run(network, "east", 3), run(network, "north"))
    first = one.application.finalize_block(decided)
    before = one.application.info()
    application = reopened(network, one)
    assert application.info() == before
    assert application.finalize_block(decided) == first
    application.commit()
    assert application.info().app_hash == first.app_hash
    assert reopened(network, one).info().app_hash == first.app_hash


def test_blocks_that_left_nothing_are_executed_again_after_a_restart(network: Network) -> None:
    one = network["east"]
    stale = run(network, "east")
    first = network.decide([transaction.decode(stale)])
    network.decide([transaction.decode(stale)])
    told = one.application.info()
    application = reopened(network, one)
    assert (application.info(), first) == (told, [OK])
    again = application.finalize_block(block(network, stale, height=network.height))
    application.commit()
    assert (again.app_hash, [result.code for result in again.results]) == (told.app_hash, [Code.TAKEN])


def test_the_same_code_is_given_whether_a_signature_was_verified_before_or_not(network: Network) -> None:
    first, second = network.copies
    txs = [run(network, "east"), run(network, "west", 2)]
    for tx in txs:
        assert first.application.check_tx(tx, False).code == OK
    decided = block(network, txs[1], txs[0], txs[0])
    seen = [one.application.finalize_block(decided) for one in (first, second)]
    assert [[result.code for result in each.results] for each in seen] == [[OK, OK, Code.TAKEN]] * 2
    assert seen[0].app_hash == seen[1].app_hash


def test_what_a_stranger_a_forger_or_another_ledger_signs_is_refused(network: Network) -> None:
    application = network["east"].application
    stranger = Hospital("stranger")
    forged = bytearray(run(network, "west"))
    forged[-1] ^= 1
    elsewhere = network["north"].sign(bytes(8))
    wanted = {
        transaction.encode([stranger.sign(network.ledger, "ledger.join", body=JOIN)]): Code.UNKNOWN,
        bytes(forged): Code.SIGNATURE,
        transaction.encode([elsewhere]): Code.LEDGER,
        b"": Code.MALFORMED,
        b"\x80": Code.MALFORMED,
    }
    assert {tx: application.check_tx(tx, False).code for tx in wanted} == wanted
    finalized = application.finalize_block(block(network, *wanted))
    assert [result.code for result in finalized.results] == list(wanted.values())
    assert finalized.app_hash == application.info().app_hash


def test_a_transaction_may_enter_the_mempool_before_the_one_that_it_follows(network: Network) -> None:
    application = network["east"].application
    first, second = run(network, "west"), run(network, "west")
    assert application.check_tx(second, False).code == OK
    network["west"].sequence += AHEAD
    assert application.check_tx(run(network, "west"), False).code == Code.AHEAD
    finalized = application.finalize_block(block(network, second, first))
    assert [result.code for result in finalized.results] == [Code.AHEAD, OK]


def test_a_flood_of_transactions_that_are_ahead_leaves_two_in_the_mempool_and_makes_no_more_empty_blocks(
    network: Network,
) -> None:
    application, liar = network["east"].application, network["west"]
    following = run(network, "west")
    flood = []
    for _ in range(50):
        liar.sequence += 1
        flood.append(run(network, "west"))
    entered = [tx for tx in flood if application.check_tx(tx, False).code == OK]
    assert entered == flood[:2]
    assert all(application.check_tx(tx, True).code == OK for tx in entered)  # they are the same two
    assert application.check_tx(run(network, "south"), False).code == OK  # nobody else is hindered
    (proposed,) = application.prepare_proposal(proposal(network, *entered))
    assert [one.code for one in application.finalize_block(block(network, proposed)).results] == [Code.AHEAD]
    application.commit()
    assert {application.check_tx(tx, tx in entered).code for tx in flood} == {Code.AHEAD}
    assert application.check_tx(following, False).code == OK
    network.height += 1
    assert [one.code for one in application.finalize_block(block(network, following)).results] == [OK]
    application.commit()
    assert application.check_tx(flood[0], False).code == OK  # what was taken made it good


def test_of_a_flood_of_transactions_for_one_place_two_enter_the_mempool_and_one_is_taken(network: Network) -> None:
    application, liar = network["east"].application, network["west"]
    sequence, previous = liar.sequence, liar.previous
    flood = []
    for number in range(20):
        liar.sequence, liar.previous = sequence, previous
        flood.append(transaction.encode([network.sign("west", at_s=number)]))
    assert [application.check_tx(tx, False).code for tx in flood] == [OK, OK, *[Code.FULL] * 18]
    assert application.check_tx(flood[1], True).code == OK
    (proposed,) = application.prepare_proposal(proposal(network, *flood[:2]))
    assert [one.code for one in application.finalize_block(block(network, proposed)).results] == [OK]
    application.commit()
    assert {application.check_tx(tx, False).code for tx in flood} == {Code.TAKEN}


def test_a_proposal_holds_one_transaction_of_each_node_the_one_that_can_be_taken(network: Network) -> None:
    application = network["east"].application
    stale = run(network, "west")
    assert network.decide([transaction.decode(stale)]) == [OK]
    fresh, other = run(network, "west"), run(network, "south", 2)
    asked = proposal(network, stale, other, fresh, run(network, "south"))
    assert list(application.prepare_proposal(asked)) == [other, fresh]
    assert list(application.prepare_proposal(proposal(network, stale))) == [stale]  # so that it leaves the mempools
    assert list(application.prepare_proposal(asked._replace(max_tx_bytes=len(other) + 8))) == [other]


def test_a_proposal_beyond_the_limits_or_with_two_of_one_node_is_rejected(network: Network) -> None:
    application = network["east"].application
    west, south = run(network, "west"), run(network, "south")
    assert application.process_proposal(proposal(network, west, south))
    assert not application.process_proposal(proposal(network, west, run(network, "west")))
    assert not application.process_proposal(proposal(network, west, b"no transaction"))
    assert application.process_proposal(proposal(network))


def test_two_transactions_of_one_node_in_a_decided_block_are_taken_one_at_a_time(network: Network) -> None:
    first, second = run(network, "west"), run(network, "west")
    finalized = network["east"].application.finalize_block(block(network, first, second))
    assert [result.code for result in finalized.results] == [OK, Code.FULL]


def test_only_members_nodes_may_connect(network: Network) -> None:
    application = network["east"].application
    known = network["west"].card.address.partition("@")[0]
    assert application.query(f"/p2p/filter/id/{known}", b"", 0).code == OK
    assert application.query("/p2p/filter/addr/192.0.2.1:26656", b"", 0).code == OK
    assert application.query(f"/p2p/filter/id/{'f' * 40}", b"", 0).code != OK
    assert application.query("/store", b"", 0).code != OK


def test_an_own_entry_leaves_the_outbox_with_its_block_and_keeps_its_batch(network: Network) -> None:
    one = network["east"]
    envelope = network.sign("east")
    one.wait(envelope, Cursor(bytes(16), 7), 3)
    assert one.store.waiting() == 1
    network.decide([[envelope]])
    (stored,) = one.store.entries(limit=1, descending=True)
    assert (one.store.waiting(), stored.epoch, stored.batch, stored.records) == (0, bytes(16), 7, 3)
    (foreign,) = network["north"].store.entries(limit=1, descending=True)
    assert (foreign.leaf, foreign.epoch, foreign.batch, foreign.records) == (stored.leaf, b"", 0, 0)


def test_what_waits_is_given_up_when_the_node_has_other_entries_at_its_place(network: Network) -> None:
    one = network["east"]
    sequence, previous = one.sequence, one.previous
    lost = network.sign("east")  # as a restored node signs anew what it had signed before
    one.sequence, one.previous = sequence, previous
    one.wait(network.sign("east", at_s=5), Cursor(bytes(16), 9), 1)
    network.decide([[lost]])
    assert one.store.waiting() == 0
    assert one.store.state().cursor == Cursor(b"", 0)
