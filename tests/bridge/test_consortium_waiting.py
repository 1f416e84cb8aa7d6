"""Why entries wait, in words: each cause with what to do, and none when nothing hinders."""

from __future__ import annotations

from dataclasses import replace

from bridge.consensus.condition import LEFT_BEHIND, LONGEST_WORDS, Condition
from bridge.consortium_waiting import GRACE_US, LATE_US, MEND, RETIRED, STALE_US, VOTELESS, apart, hindrances
from ledger.members import Member
from tests.ledger.ledger_hospitals import joined

ACTIVE = joined().state.active
OWN = ACTIVE[0]
NOW = 1_000_000_000_000


def said(told: Condition | None, waiting: int | None = None, own: Member | None = OWN) -> list[str]:
    return [one.what for one in hindrances(own, ACTIVE, waiting, told, NOW)]


def test_nothing_hinders_while_one_of_four_is_away() -> None:
    assert said(Condition(NOW)) == []
    assert said(Condition(NOW, unheard={"h3": 1}), NOW - 1) == []


def test_no_quorum_names_who_is_missing_since_the_last_that_was_needed() -> None:
    (found,) = hindrances(OWN, ACTIVE, NOW, Condition(NOW, unheard={"h2": 500, "h3": 90}), NOW)
    assert found.what == "No quorum: h2 and h3 are not heard; 2 of 4 votes are here, and 3 are needed"
    assert "h2.example:26656, h3.example:26656" in found.advice
    assert found.since_us == 500


def test_votes_decide_not_heads() -> None:
    heavy = [replace(member, power=5 if member.name == "h3" else 1) for member in ACTIVE]
    (found,) = hindrances(OWN, heavy, None, Condition(NOW, unheard={"h3": 7}), NOW)
    assert found.what == "No quorum: h3 is not heard; 3 of 8 votes are here, and 6 are needed"
    mute = [replace(member, power=0 if member.name in ("h2", "h3") else 1) for member in ACTIVE]
    assert hindrances(OWN, mute, None, Condition(NOW, unheard={"h2": 7, "h3": 7}), NOW) == ()


def test_who_has_just_gone_is_not_missed_yet() -> None:
    gone = NOW - GRACE_US + 1
    assert said(Condition(NOW, unheard={"h1": gone, "h2": gone, "h3": gone})) == []


def test_a_cometbft_that_restarts_a_refusal_and_a_silent_process_are_told() -> None:
    assert said(Condition(NOW, "CometBFT ended", 5)) == ["CometBFT cannot be used: CometBFT ended"]
    (refused,) = hindrances(
        OWN, ACTIVE, NOW, Condition(NOW, refused="sequence 4, where 9 comes next", refused_since=3), NOW
    )
    assert "“sequence 4, where 9 comes next”" in refused.what
    assert refused.since_us == 3
    for told in (None, Condition(NOW - STALE_US - 1)):
        assert said(told) == ["The process that keeps the ledger says nothing"]


def test_who_is_not_voted_in_and_who_is_retired_are_told() -> None:
    assert said(Condition(NOW), own=None) == ["This hospital is not a member yet: the members have not voted it in"]
    waits = Condition(NOW, "no member answers this node yet", 5, refused="of a node that is no member")
    assert len(said(waits, own=None)) == 1
    retired = replace(OWN, power=0, retired=9)
    assert said(Condition(NOW), own=retired) == ["This hospital was retired by vote: nothing of it is taken any more"]


def test_what_waits_for_long_without_a_cause_is_told_too() -> None:
    assert said(Condition(NOW), NOW - LATE_US) == []
    assert said(Condition(NOW), NOW - LATE_US - 1) == [
        "Enough members are connected, and yet no block takes what waits here"
    ]


def test_readyz_says_who_is_not_heard_when_they_are_too_many() -> None:
    assert apart(OWN, ACTIVE, Condition(NOW, unheard={"h3": 1}), NOW) == []
    told = Condition(NOW, unheard={"h2": 500, "h3": 90})
    words = "No quorum: h2 and h3 are not heard; 2 of 4 votes are here, and 3 are needed"
    assert apart(OWN, ACTIVE, told, NOW) == [f"ledger: {words}"]
    assert apart(OWN, ACTIVE, replace(told, at=NOW - STALE_US - 1), NOW) == apart(OWN, ACTIVE, None, NOW) == []


def test_readyz_says_what_cometbft_waits_for_and_what_the_members_refuse() -> None:
    for own in (OWN, None):
        assert apart(own, ACTIVE, Condition(NOW, "no member answers"), NOW) == ["ledger: no member answers"]
    refused = Condition(NOW, refused="sequence 4, where 9 comes next")
    (line,) = apart(OWN, ACTIVE, refused, NOW)
    assert "“sequence 4, where 9 comes next”" in line
    assert apart(None, ACTIVE, refused, NOW) == []  # it is not voted in


def test_readyz_says_that_the_members_do_not_know_the_validators_key() -> None:
    assert apart(OWN, ACTIVE, Condition(NOW, voteless=True), NOW) == [VOTELESS]
    assert apart(OWN, ACTIVE, Condition(NOW, "no member answers", voteless=True), NOW) == ["ledger: no member answers"]


def test_readyz_of_a_retired_hospital_says_that_it_is_no_member_and_what_it_does() -> None:
    retired = replace(OWN, power=0, retired=9)
    for told in (None, Condition(NOW), Condition(NOW, "CometBFT ended", 5)):
        assert apart(retired, ACTIVE[1:], told, NOW) == [RETIRED]
    assert "no longer a member" in RETIRED and "its own viewers" in RETIRED


def test_who_was_left_behind_with_a_cometbft_of_its_own_is_told_the_command_that_mends_it() -> None:
    assert len(LEFT_BEHIND) <= LONGEST_WORDS
    told = Condition(NOW, LEFT_BEHIND, 5)
    (found,) = hindrances(OWN, ACTIVE, NOW, told, NOW)
    assert found.what == f"Left behind: {LEFT_BEHIND}" and found.since_us == 5
    (line,) = apart(OWN, ACTIVE, told, NOW)
    for words in (found.advice, line):
        assert MEND in words and "CAIRN_LEDGER__COMETBFT__MANAGED=true cairn serve" in words
