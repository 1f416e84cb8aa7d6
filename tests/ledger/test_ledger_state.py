"""The state machine: what is taken and refused, and that nothing but bytes and state decides it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_hospitals import HOSPITALS, JOIN, START, Hospital, Ledger, beginning, joined, seed

from ledger import entry, members, state, transaction
from ledger.errors import CodecError
from ledger.members import Chain
from ledger.state import Code, Refused

A, B, C, D = HOSPITALS
APP = ("app.start",)
GRANT = ("consent.grant", {"to": B.node, "x": START})


def refused(ledger: Ledger, tx: bytes) -> Code:
    """Why a transaction is refused; the state stays as it is."""
    before = state.state_hash(ledger.state)
    with pytest.raises(Refused) as error:
        ledger.take(tx)
    assert state.state_hash(ledger.state) == before
    return error.value.code


def test_entries_in_their_order_are_taken_and_move_the_chain() -> None:
    ledger = Ledger()
    ledger.say(A, JOIN)
    ledger.say(A, APP, ("config.change",), ("app.stop",))
    assert ledger.state.chain(A.node).sequence == 4 and ledger.state.chain(B.node) == Chain()


def test_replayed_reordered_and_forked_entries_are_refused() -> None:
    ledger = joined()
    first = A.transaction(ledger.state, APP)
    ahead = A.entry(ledger.state.ledger, Chain(5, bytes(32)), *APP)
    ledger.take(first)
    assert refused(ledger, first) is Code.TAKEN
    assert refused(ledger, transaction.encode([ahead])) is Code.AHEAD
    other = A.entry(ledger.state.ledger, Chain(2, bytes(32)), *APP)
    assert refused(ledger, transaction.encode([other])) is Code.CHAIN
    forked = A.entry(ledger.state.ledger, Chain(1, entry.envelope_hash(transaction.decode(first)[0])), "app.stop")
    assert refused(ledger, transaction.encode([forked])) is Code.TAKEN


def test_a_run_with_one_bad_entry_is_refused_whole() -> None:
    ledger = joined()
    good = transaction.decode(A.transaction(ledger.state, APP, APP, APP))
    assert refused(ledger, transaction.encode([good[0], good[2]])) is Code.AHEAD
    assert refused(ledger, transaction.encode([good[1], good[0]])) is Code.AHEAD
    assert refused(ledger, transaction.encode([good[0], good[0]])) is Code.TAKEN
    ledger.take(transaction.encode(good))


def test_only_members_with_their_own_keys_are_heard() -> None:
    ledger = joined()
    stranger, thief = Hospital("h9"), A.with_key("a stolen name")
    assert refused(ledger, stranger.transaction(ledger.state, JOIN)) is Code.UNKNOWN
    assert refused(ledger, thief.transaction(ledger.state, APP)) is Code.UNKNOWN
    forged = bytearray(A.transaction(ledger.state, APP))
    forged[-1] ^= 1
    assert refused(ledger, bytes(forged)) is Code.SIGNATURE
    mixed = [transaction.decode(hospital.transaction(ledger.state, APP))[0] for hospital in (A, B)]
    assert refused(ledger, transaction.encode(mixed)) is Code.MALFORMED
    foreign = A.entry(bytes(8), ledger.state.chain(A.node), *APP)
    assert refused(ledger, transaction.encode([foreign])) is Code.LEDGER


def test_a_node_begins_with_its_join_and_joins_once() -> None:
    ledger = Ledger()
    assert refused(ledger, A.transaction(ledger.state, APP)) is Code.JOIN
    ledger.say(A, JOIN, APP)
    assert refused(ledger, A.transaction(ledger.state, JOIN)) is Code.JOIN


@pytest.mark.parametrize("tx", [b"", b"\x80", b"\x81\x40", b"\xa0", b"\x81\x80", b"\x9f\xff", bytes(300_000)])
def test_what_is_no_transaction_is_refused_by_code(tx: bytes) -> None:
    assert refused(joined(), tx) is Code.MALFORMED


def test_only_the_granter_revokes_and_only_the_receiver_confirms() -> None:
    ledger = joined()
    (grant,) = ledger.say(A, GRANT)
    (assigned,) = ledger.say(A, ("replica.assign", {"to": C.node}))
    for kind in ("share.receipt", "share.end"):
        assert refused(ledger, C.transaction(ledger.state, (kind, None, [grant]))) is Code.FORBIDDEN
        ledger.say(B, (kind, None, [grant]))
    assert refused(ledger, B.transaction(ledger.state, ("consent.revoke", None, [grant]))) is Code.FORBIDDEN
    assert refused(ledger, B.transaction(ledger.state, ("replica.receipt", None, [assigned]))) is Code.FORBIDDEN
    assert refused(ledger, C.transaction(ledger.state, ("replica.release", None, [assigned]))) is Code.FORBIDDEN
    ledger.say(C, ("replica.receipt", None, [assigned]))
    ledger.say(A, ("consent.revoke", None, [grant]), ("replica.release", None, [assigned]))


def test_a_grant_and_its_revocation_may_be_in_one_transaction() -> None:
    ledger = joined()
    envelope = A.entry(ledger.state.ledger, ledger.state.chain(A.node), *GRANT)
    chain = Chain(2, entry.envelope_hash(envelope))
    revoke = A.entry(ledger.state.ledger, chain, "consent.revoke", None, [entry.leaf_hash(envelope)])
    ledger.take(transaction.encode([envelope, revoke]))


def test_what_refers_to_no_grant_of_this_ledger_is_taken_without_effect() -> None:
    ledger = joined()
    ledger.say(A, ("consent.revoke", None, [bytes(32)]), ("consent.revoke",), ("consent.grant",))
    ledger.say(B, ("share.receipt", None, [bytes(32)]))


def test_an_opened_transaction_is_not_verified_again_but_its_keys_are_looked_at_again() -> None:
    ledger = joined()
    tx = B.transaction(ledger.state, APP)
    opened = state.verify(ledger.state, tx)
    assert state.check(ledger.state, b"not looked at", ledger.grants.get, opened) is opened
    (proposal,) = ledger.say(A, ("gov.propose", {"do": "retire", "m": B.node}))
    for hospital in (C, D):
        ledger.say(hospital, ("gov.vote", {"y": True}, [proposal]))
    with pytest.raises(Refused) as error:
        state.check(ledger.state, tx, ledger.grants.get, opened)
    assert error.value.code is Code.RETIRED


def test_evidence_names_the_member_whose_validator_it_is_and_the_latest_is_kept() -> None:
    ledger = joined()
    found = state.note_evidence(ledger.state, 1, A.card().validator, 7, START)
    assert found.evidence[-1].node == A.node and found.evidence[-1].height == 7
    found = state.note_evidence(found, 2, bytes(20), 8, START)
    assert found.evidence[-1].node == b""
    for height in range(100):
        found = state.note_evidence(found, 1, bytes(20), height, START)
    assert len(found.evidence) == state.EVIDENCE_KEPT and found.evidence[-1].height == 99
    assert state.decode(state.encode(found)) == found


def test_validators_are_told_what_changed_between_two_states() -> None:
    ledger = joined()
    before = ledger.state
    assert state.validator_updates(before, before) == [] and len(state.validators(before)) == 4
    (proposal,) = ledger.say(A, ("gov.propose", {"do": "power", "m": D.node, "w": 5}))
    (other,) = ledger.say(A, ("gov.propose", {"do": "retire", "m": C.node}))
    for hospital in (B, D):
        ledger.say(hospital, ("gov.vote", {"y": True}, [proposal]), ("gov.vote", {"y": True}, [other]))
    updates = state.validator_updates(before, ledger.state)
    assert sorted(updates) == updates
    assert dict(updates) == {D.card().consensus: 5, C.card().consensus: 0}


_SAID = st.sampled_from(
    [
        *(APP, ("study.query",), GRANT, ("consent.grant",), JOIN, ("consent.revoke", None, [bytes(32)])),
        ("gov.propose", {"do": "retire", "m": D.node}),
        ("gov.propose", {"do": "power", "m": C.node, "w": 0}),
        ("gov.propose", {"do": "enroll", "c": Hospital("h5").card().signed}),
        ("gov.propose", {"do": "rotate", "m": B.node, "c": B.with_key("b two").card().signed}),
        "vote yes",
        "vote no",
        "confirm",
    ]
)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from([*HOSPITALS, B.with_key("b two"), Hospital("h5")]),
        st.lists(_SAID, min_size=1, max_size=3),
        st.sampled_from(["honest", "again", "flipped", "cut"]),
    ),
    max_size=12,
)


def _stated(ledger: Ledger, said: Any) -> tuple[Any, ...]:
    """What is said now: votes are on the newest proposal, confirmations of the newest grant."""
    if said in ("vote yes", "vote no"):
        proposals = ledger.state.proposals
        return ("gov.vote", {"y": said == "vote yes"}, [proposals[-1].id if proposals else bytes(32)])
    if said == "confirm":
        return ("share.receipt", None, [next(reversed(ledger.grants), bytes(32))])
    return said


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_replaying_any_run_of_taken_and_refused_transactions_gives_the_same_state(steps: Any) -> None:
    ledger, offered = Ledger(), []
    for hospital in HOSPITALS:
        offered.append(hospital.transaction(ledger.state, JOIN))
        ledger.take(offered[-1])
    for hospital, said, manner in steps:
        tx = hospital.transaction(ledger.state, *(_stated(ledger, each) for each in said))
        if manner == "again" and offered:
            tx = offered[len(said) % len(offered)]
        elif manner == "flipped":
            tx = tx[:40] + bytes([tx[40] ^ 1]) + tx[41:]
        elif manner == "cut":
            tx = tx[: len(tx) // 2]
        offered.append(tx)
        try:
            ledger.take(tx)
        except Refused as error:
            assert error.code is not Code.OK
        assert state.decode(state.encode(ledger.state)) == ledger.state
    again = Ledger()
    verdicts = []
    for tx in offered:
        # From a decoded copy, as after a restart between any two of them.
        again.state = state.decode(state.encode(again.state))
        try:
            again.take(tx)
            verdicts.append(Code.OK)
        except Refused as error:
            verdicts.append(error.code)
    assert state.state_hash(again.state) == state.state_hash(ledger.state) and verdicts.count(Code.OK) == ledger.height


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_transaction_with_any_byte_changed_is_refused_and_never_fails_otherwise(at: int, octet: int) -> None:
    ledger = _JOINED
    tx = bytearray(A.transaction(ledger.state, ("gov.propose", {"do": "enroll", "c": Hospital("h5").card().signed})))
    place = at % len(tx)
    if tx[place] == octet:
        octet ^= 0xFF
    tx[place] = octet
    with pytest.raises(Refused):
        state.check(ledger.state, bytes(tx), ledger.grants.get)


_JOINED = joined()


def test_the_state_holds_what_the_genesis_says() -> None:
    genesis = beginning()
    first = state.initial(genesis)
    assert first.ledger == genesis.ledger and first.parameters == genesis.parameters
    assert [member.name for member in first.members.values()] == [
        member.name for member in sorted(first.members.values(), key=lambda member: member.node)
    ]
    assert first.quorum == 3 and first.of_key(A.card().key) is first.named("h0") is first.members[A.node]
    assert first.named("nobody") is None and first.of_key(seed("nobody")) is None
    assert replace(first, chains={}) == first


def test_a_state_is_the_same_from_its_pieces_and_from_its_encoding() -> None:
    ledger = joined()
    ledger.say(A, ("gov.propose", {"do": "power", "m": D.node, "w": 2}))
    noted = state.note_evidence(ledger.state, 1, D.card().validator, 9, START)
    assert members.of_rows(members.rows(noted)) == noted == state.decode(state.encode(noted))
    assert state.state_hash(members.of_rows(members.rows(noted))) == state.state_hash(noted)


def test_an_entry_changes_the_piece_of_its_nodes_chain_and_no_other() -> None:
    ledger = joined()
    kept = dict(members.rows(ledger.state))
    before = ledger.state
    ledger.say(A, APP)
    changed = members.changed_rows(before, ledger.state)
    assert set(changed) == {("ch", A.node)}
    assert members.of_rows({**kept, **changed}) == ledger.state
    before, kept = ledger.state, {**kept, **changed}
    ledger.say(B, ("gov.propose", {"do": "retire", "m": D.node}))
    changed = members.changed_rows(before, ledger.state)
    assert set(changed) == {("ch", B.node), ("pp", b"")}
    lied = state.note_evidence(ledger.state, 1, D.card().validator, 9, START)
    assert set(members.changed_rows(ledger.state, lied)) == {("ev", b"")}
    assert members.of_rows({**kept, **changed, **members.changed_rows(ledger.state, lied)}) == lied


@pytest.mark.parametrize("wrong", [{}, {("pr", b""): b"\x00"}, {("mb", A.node): b"\x80"}, {("ch", A.node): b"\x00"}])
def test_what_are_no_pieces_of_a_state_are_refused(wrong: dict[tuple[str, bytes], bytes]) -> None:
    with pytest.raises(CodecError):
        members.of_rows({**members.rows(joined().state), **wrong} if wrong else {})


def test_every_part_of_a_state_is_in_its_hash() -> None:
    ledger = joined()
    ledger.say(A, ("gov.propose", {"do": "power", "m": D.node, "w": 2}))
    one = state.note_evidence(ledger.state, 1, D.card().validator, 9, START)
    member = one.members[D.node]
    others = [
        replace(one, ledger=bytes(8)),
        replace(one, parameters=replace(one.parameters, block_entries=1)),
        one.with_members(replace(member, power=member.power + 1)),
        one.with_chain(A.node, Chain(99, bytes(32))),
        replace(one, proposals=()),
        replace(one, evidence=()),
    ]
    assert len({state.state_hash(each) for each in (one, *others)}) == 7
