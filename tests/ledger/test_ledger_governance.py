"""How a consortium changes itself: two thirds decide, old keys stay valid for old entries, nobody is locked out."""

from __future__ import annotations

import pytest
from ledger_hospitals import HOSPITALS, JOIN, Hospital, Ledger, joined, public

from ledger import governance, state
from ledger.members import Proposal
from ledger.state import Code, Refused

A, B, C, D = HOSPITALS
E = Hospital("h4")
YES, NO = {"y": True}, {"y": False}


def found(ledger: Ledger, id: bytes) -> Proposal:
    return next(row for row in ledger.state.proposals if row.id == id)


def decide(ledger: Ledger, body: dict[str, object], voters: tuple[Hospital, ...] = (B, C)) -> Proposal:
    """A proposes, others say yes."""
    (id,) = ledger.say(A, ("gov.propose", body))
    for voter in voters:
        ledger.say(voter, ("gov.vote", YES, [id]))
    return found(ledger, id)


def test_more_than_two_thirds_take_in_a_hospital_and_its_validator() -> None:
    ledger = joined()
    (id,) = ledger.say(A, ("gov.propose", {"do": "enroll", "c": E.card().signed}))
    ledger.say(B, ("gov.vote", YES, [id]))
    with pytest.raises(Refused) as error:
        ledger.say(E, JOIN)
    assert error.value.code is Code.UNKNOWN and found(ledger, id).outcome is None
    before = ledger.state
    ledger.say(C, ("gov.vote", YES, [id]))
    accepted = found(ledger, id)
    assert (accepted.outcome, accepted.decided, accepted.card) == ("accepted", ledger.height, None)
    assert state.validator_updates(before, ledger.state) == [(E.card().consensus, 1)]
    ledger.say(E, JOIN, ("app.start",))
    assert ledger.state.quorum == 4 and ledger.state.members[E.node].joined == ledger.height - 1


def test_a_proposal_is_rejected_when_it_can_no_longer_be_accepted() -> None:
    ledger = joined()
    (id,) = ledger.say(A, ("gov.propose", {"do": "retire", "m": D.node}))
    ledger.say(B, ("gov.vote", NO, [id]))
    assert found(ledger, id).outcome is None
    ledger.say(C, ("gov.vote", NO, [id]))
    assert found(ledger, id).outcome == "rejected" and ledger.state.members[D.node].active


def test_a_vote_may_be_changed_while_the_proposal_is_open_and_counts_once() -> None:
    ledger = joined()
    (id,) = ledger.say(A, ("gov.propose", {"do": "retire", "m": D.node}))
    ledger.say(B, ("gov.vote", NO, [id]), ("gov.vote", YES, [id]), ("gov.vote", YES, [id]))
    assert found(ledger, id).outcome is None and dict(found(ledger, id).votes) == {A.node: True, B.node: True}
    ledger.say(D, ("gov.vote", YES, [id]))
    assert found(ledger, id).outcome == "accepted"
    ledger.say(C, ("gov.vote", NO, [id]))  # too late, and without effect
    assert found(ledger, id).outcome == "accepted" and not ledger.state.members[D.node].active


def test_who_proposed_may_withdraw() -> None:
    ledger = joined()
    (id,) = ledger.say(A, ("gov.propose", {"do": "retire", "m": D.node}))
    ledger.say(A, ("gov.vote", NO, [id]))
    assert found(ledger, id).outcome == "withdrawn"


def test_a_retired_member_is_not_heard_its_entries_stay_and_its_votes_count_no_more() -> None:
    ledger = joined()
    (open_one,) = ledger.say(D, ("gov.propose", {"do": "power", "m": C.node, "w": 9}))
    decide(ledger, {"do": "retire", "m": D.node})
    with pytest.raises(Refused) as error:
        ledger.say(D, ("app.start",))
    assert error.value.code is Code.RETIRED
    member = ledger.state.members[D.node]
    assert member.retired == ledger.height and member.power == 0 and ledger.state.chain(D.node).sequence == 2
    for voter in (A, B):  # 3 of 3 must say yes now
        ledger.say(voter, ("gov.vote", YES, [open_one]))
    assert found(ledger, open_one).outcome is None
    ledger.say(C, ("gov.vote", YES, [open_one]))
    assert found(ledger, open_one).outcome == "accepted" and ledger.state.members[C.node].power == 9


def test_retiring_a_member_may_decide_what_waited() -> None:
    ledger = joined((A, B, C, D, E))
    (waiting,) = ledger.say(A, ("gov.propose", {"do": "power", "m": B.node, "w": 2}))
    for voter in (B, C):
        ledger.say(voter, ("gov.vote", YES, [waiting]))
    assert found(ledger, waiting).outcome is None  # 3 of 5; 4 are needed
    decide(ledger, {"do": "retire", "m": E.node}, (B, C, D))
    assert found(ledger, waiting).outcome == "accepted"  # 3 of 4


def test_a_rotated_key_is_valid_from_its_first_entry_and_the_old_one_until_then() -> None:
    ledger = joined()
    new = B.with_key("b two")
    decide(ledger, {"do": "rotate", "m": B.node, "c": new.card().signed}, (C, D))
    member = ledger.state.members[B.node]
    assert member.usable() == (public("h1 ledger"), public("b two")) and member.keys[-1].first is None
    ledger.say(B, ("app.stop",))  # what was signed before goes on to be taken
    ledger.say(new, ("app.start",))
    member = ledger.state.members[B.node]
    assert member.node == B.node and [row.first for row in member.keys] == [0, 2]
    assert [member.key_at(sequence) for sequence in (0, 1, 2, 9)] == [public("h1 ledger")] * 2 + [public("b two")] * 2
    assert ledger.state.of_key(public("h1 ledger")) == ledger.state.of_key(public("b two")) == member
    with pytest.raises(Refused) as error:
        ledger.say(B, ("app.stop",))
    assert error.value.code is Code.UNKNOWN


def test_both_keys_may_sign_in_one_transaction_but_only_in_their_order() -> None:
    ledger = joined()
    new = B.with_key("b two")
    decide(ledger, {"do": "rotate", "m": B.node, "c": new.card().signed}, (C, D))
    chain, ledger_id = ledger.state.chain(B.node), ledger.state.ledger
    from ledger import entry, transaction
    from ledger.members import Chain

    def run(*hospitals: Hospital) -> bytes:
        envelopes, at = [], chain
        for hospital in hospitals:
            envelopes.append(hospital.entry(ledger_id, at, "app.start"))
            at = Chain(at.sequence + 1, entry.envelope_hash(envelopes[-1]))
        return transaction.encode(envelopes)

    with pytest.raises(Refused) as error:
        ledger.take(run(B, new, B))
    assert error.value.code is Code.UNKNOWN
    ledger.take(run(B, new, new))
    assert [row.first for row in ledger.state.members[B.node].keys] == [0, 2]


def test_a_card_renews_certificate_and_place_without_another_key() -> None:
    ledger = joined()
    moved = B.card(url="https://elsewhere.example:1", consensus=public("b consensus two"))
    before = ledger.state
    decide(ledger, {"do": "rotate", "m": B.node, "c": moved.signed})
    member = ledger.state.members[B.node]
    assert member.card.url == "https://elsewhere.example:1" and len(member.keys) == 1 and member.power == 1
    assert dict(state.validator_updates(before, ledger.state)) == {
        B.card().consensus: 0,
        public("b consensus two"): 1,
    }


def test_a_key_that_was_given_up_or_is_anothers_is_never_taken() -> None:
    ledger = joined()
    new = B.with_key("b two")
    decide(ledger, {"do": "rotate", "m": B.node, "c": new.card().signed})
    ledger.say(new, ("app.start",))
    for card in (B.card(), A.card(), B.with_key("b three").card(name="h0"), B.with_key("h2 ledger").card(name="h1")):
        assert decide(ledger, {"do": "rotate", "m": B.node, "c": card.signed}, (C, D)).outcome == "void"
    for card in (
        Hospital("h0", key="another").card(),
        E.card(consensus=A.card().consensus),
        E.card(certificate=A.card().certificate),
        Hospital("h5", key="h1 ledger").card(),
    ):
        assert decide(ledger, {"do": "enroll", "c": card.signed}, (C, D)).outcome == "void"


def test_the_last_validator_and_the_last_member_stay() -> None:
    ledger = joined((A,))
    assert decide(ledger, {"do": "retire", "m": A.node}, ()).outcome == "void"
    assert decide(ledger, {"do": "power", "m": A.node, "w": 0}, ()).outcome == "void"
    assert decide(ledger, {"do": "power", "m": A.node, "w": 3}, ()).outcome == "accepted"
    assert decide(ledger, {"do": "enroll", "c": E.card(power=0).signed}, ()).outcome == "accepted"
    ledger.say(E, JOIN)
    assert decide(ledger, {"do": "retire", "m": A.node}, (E,)).outcome == "void"
    assert decide(ledger, {"do": "retire", "m": E.node}, (E,)).outcome == "accepted"


def test_a_retired_hospital_comes_back_with_another_key() -> None:
    ledger = joined()
    decide(ledger, {"do": "retire", "m": D.node})
    assert decide(ledger, {"do": "enroll", "c": D.card().signed}).outcome == "void"
    again = Hospital("h3", key="d two")
    assert decide(ledger, {"do": "enroll", "c": again.card().signed}).outcome == "accepted"
    ledger.say(again, JOIN)
    named = ledger.state.named("h3")
    assert named is not None and named.node == again.node and len(ledger.state.members) == 5


def test_a_member_that_proposes_without_end_fills_nothing() -> None:
    ledger = joined()
    ids = [ledger.say(D, ("gov.propose", {"do": "power", "m": A.node, "w": number}))[0] for number in range(20)]
    assert [row.id for row in ledger.state.proposals] == ids[: governance.OPEN_PER_MEMBER]
    for number in range(80):
        decide(ledger, {"do": "power", "m": A.node, "w": 1 + number % 2})
    decided = [row for row in ledger.state.proposals if row.outcome is not None]
    assert len(decided) == governance.DECIDED_KEPT


def test_a_proposal_whose_card_is_none_is_refused() -> None:
    ledger = joined()
    damaged = bytearray(E.card().signed)
    damaged[-1] ^= 1
    for card, code in ((bytes(damaged), Code.SIGNATURE), (b"\x80", Code.MALFORMED)):
        with pytest.raises(Refused) as error:
            ledger.say(A, ("gov.propose", {"do": "enroll", "c": card}))
        assert error.value.code is code
