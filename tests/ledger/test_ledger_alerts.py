"""The rules over events: each fires on what it is about, once, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ledger.alerts import (
    BURST_US,
    HOUR_US,
    RULES,
    Alert,
    Misconduct,
    Thresholds,
    Watch,
    find,
    glass_broken,
    offered_wrong,
)
from ledger.event import Detail, Event, Participant

START = 1_700_000_000_000_000
DOCTOR = Participant("user", "Dr Who", "viewer", "10.0.0.7", "http")
STRANGER = Participant("user", "unknown", "", "192.0.2.9", "http")
MEMBER = Participant("peer", "south", "", "192.0.2.20", "http")
OPERATOR = Participant("system", "operator", "admin", "", "command")
QUIET = Thresholds(None, None, None, after_revocation=False, sequence_gap=False, clock_skew_s=None, late_minutes=None)


class Log:
    """Events as they are made, with their records' bodies."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.bodies: dict[bytes, Sequence[Mapping[str, object]]] = {}

    def add(self, kind: str, who: Participant, at_us: int, *bodies: Mapping[str, object], **more: object) -> Event:
        index = len(self.events)
        fields = {"sequence": index, "purpose": "TREAT", **more}
        event = Event(
            index, index.to_bytes(32, "big"), b"n" * 16, type=kind, time_us=START + at_us, outcome=0, actor=who,
            records=1, **fields,  # type: ignore[arg-type]
        )  # fmt: skip
        self.events.append(event)
        self.bodies[event.id] = bodies
        return event

    def details(self, event: Event) -> Sequence[Detail]:
        return [Detail(event.id, n, event.time_us, body, b"") for n, body in enumerate(self.bodies[event.id])]

    def alerts(self, thresholds: Thresholds, now_us: int = 0) -> Sequence[Alert]:
        return find(self.events, thresholds, START + now_us, self.details)[0]


def test_more_studies_in_an_hour_than_the_threshold_raise_one_alert_an_hour() -> None:
    log = Log()
    seen = [log.add("study.access", DOCTOR, number * 60_000_000, study=f"1.{number}") for number in range(5)]
    assert log.alerts(replace(QUIET, studies_per_hour=5)) == []
    (alert,) = log.alerts(replace(QUIET, studies_per_hour=3))
    assert (alert.rule, alert.severity, alert.time_us) == ("many-studies", 4, seen[3].time_us)
    assert alert.entries == tuple(event.id for event in seen[:4])
    assert "Dr Who viewed 4 studies within an hour" in alert.what


def test_one_study_often_and_many_studies_slowly_raise_nothing() -> None:
    log = Log()
    for number in range(10):
        log.add("study.access", DOCTOR, number, study="1.2.3")
        log.add("study.access", MEMBER, number * HOUR_US, study=f"1.{number}")
        log.add("study.access", Participant("user", f"user {number}"), number, study=f"2.{number}")
    assert log.alerts(replace(QUIET, studies_per_hour=1)) == []


def test_erased_studies_count_by_entry() -> None:
    log = Log()
    for number in range(3):
        log.add("study.access", DOCTOR, number, erased=True)
    assert [alert.rule for alert in log.alerts(replace(QUIET, studies_per_hour=2))] == ["many-studies"]


def test_a_burst_of_failed_logins_counts_each_failure_of_a_session() -> None:
    log = Log()
    log.add("auth.fail", STRANGER, 0, {"items": [["unknown token", 6]]}, {"items": [["unknown token", 4]]})
    assert log.alerts(replace(QUIET, failed_logins=10)) == []
    last = log.add("auth.fail", STRANGER, BURST_US - 1, {"items": [["unknown AE title", "X", 1]]})
    (alert,) = log.alerts(replace(QUIET, failed_logins=10))
    assert alert.rule == "failed-logins" and alert.entries == (log.events[0].id, last.id)
    assert "11 failed logins from 192.0.2.9" in alert.what
    log.events[1] = replace(last, time_us=START + BURST_US)
    assert log.alerts(replace(QUIET, failed_logins=10)) == []


def test_failures_without_details_count_their_records() -> None:
    events = [Event(0, bytes(32), bytes(16), 0, "auth.fail", START, "HOPERAT", 4, STRANGER, 11)]
    assert [alert.rule for alert in find(events, replace(QUIET, failed_logins=10), START)[0]] == ["failed-logins"]


def test_a_member_that_uses_a_study_after_its_access_was_ended() -> None:
    log = Log()
    on = replace(QUIET, after_revocation=True)
    log.add("study.access", MEMBER, 0, study="1.2.3")
    ended = log.add("consent.revoke", OPERATOR, 1, {"member": "south"}, study="1.2.3")
    log.add("study.access", DOCTOR, 2, study="1.2.3")
    log.add("study.access", MEMBER, 2, study="9.9.9")
    assert log.alerts(on) == []
    used = log.add("study.access", MEMBER, 3, study="1.2.3")
    (alert,) = log.alerts(on)
    assert (alert.rule, alert.severity, alert.entries) == ("access-after-revocation", 12, (ended.id, used.id))
    assert log.alerts(QUIET) == []


def test_what_a_member_fetched_before_the_end_is_none_after_it_though_the_session_ends_later() -> None:
    log = Log()
    log.add("consent.revoke", OPERATOR, 10, {"member": "south"}, study="1.2.3")
    fetched = log.add("study.access", MEMBER, 60, {}, study="1.2.3")
    records = {fetched.id: [Detail(fetched.id, 0, START + 9, {}, b"")]}
    on = replace(QUIET, after_revocation=True)
    assert find(log.events, on, START, lambda event: records.get(event.id, log.details(event)))[0] == []
    records[fetched.id].append(Detail(fetched.id, 1, START + 11, {}, b""))
    assert len(find(log.events, on, START, lambda event: records.get(event.id, log.details(event)))[0]) == 1


def test_a_new_grant_ends_the_revocation() -> None:
    log = Log()
    log.add("consent.revoke", OPERATOR, 1, {"member": "south"}, study="1.2.3")
    log.add("consent.grant", OPERATOR, 2, {"member": "south"}, study="1.2.3")
    log.add("study.access", MEMBER, 3, study="1.2.3")
    assert log.alerts(replace(QUIET, after_revocation=True)) == []


A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
"""The nodes of three members: A gives, B receives, C has nothing to do with it."""
MINUTE_US = 60_000_000


class Given(Log):
    """The shared log: entries with their nodes, and the entries that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.refs: dict[bytes, Sequence[bytes]] = {}

    def say(self, kind: str, node: bytes, at_us: int, *refs: Event, block_us: int | None = None) -> Event:
        block = START + (at_us if block_us is None else block_us)
        made, hospital = self.add(kind, DOCTOR, at_us), node[:1].decode()
        event = self.events[-1] = replace(made, node=node, block_time_us=block, hospital=hospital)
        self.refs[event.id] = [one.id for one in refs]
        self.bodies[event.id] = [{}]
        return event

    def seen_by(self, own: bytes) -> list[tuple[bytes, ...]]:
        """The entries behind what is found at a member."""
        on = replace(QUIET, after_revocation=True)
        watched = [
            event if event.node == own else replace(event, records=0, actor=Participant("user", ""))
            for event in self.events
        ]
        found, _ = find(watched, on, START, self.own(own), own, lambda event: self.refs[event.id])
        assert {alert.rule for alert in found} <= {"access-after-revocation"}
        return [alert.entries for alert in found]

    def own(self, node: bytes) -> Callable[[Event], Sequence[Detail]]:
        """A member holds the records of its own entries alone."""
        return lambda event: self.details(event) if event.node == node else ()

    def details(self, event: Event) -> Sequence[Detail]:
        """A session's last record is as old as it says, or as its entry."""
        return [
            replace(one, time_us=one.body.get("at", one.time_us))
            for one in super().details(event)
            if one.body is not None
        ]


def test_a_receiver_that_uses_a_study_after_the_giver_ended_it_is_told_of_at_both() -> None:
    log = Given()
    grant = log.say("consent.grant", A, 0)
    log.say("study.access", B, MINUTE_US, grant)
    ended = log.say("consent.revoke", A, 10 * MINUTE_US, grant)
    used = log.say("study.access", B, 12 * MINUTE_US, grant)
    assert log.seen_by(A) == log.seen_by(B) == [(ended.id, used.id)]
    assert log.seen_by(C) == []
    assert find(log.events, QUIET, START, log.details, A, lambda event: log.refs[event.id])[0] == []


def test_a_session_that_was_over_before_the_end_is_in_order_though_its_entry_comes_later() -> None:
    log = Given()
    grant = log.say("consent.grant", A, 0)
    log.say("consent.revoke", A, 10 * MINUTE_US, grant)
    late = log.say("study.access", B, 10 * MINUTE_US + 30_000_000, grant)
    log.bodies[late.id] = [{"at": START}, {"at": START + 9 * MINUTE_US}]  # which B alone can read
    assert log.seen_by(A) == log.seen_by(B) == []
    log.bodies[late.id] = [{"at": START}, {"at": START + 10 * MINUTE_US + 1}]
    assert (len(log.seen_by(A)), len(log.seen_by(B))) == (0, 1)  # A cannot tell yet
    log.events[-1] = replace(late, time_us=START + 11 * MINUTE_US + 1)
    assert len(log.seen_by(A)) == 1


def test_an_end_counts_from_the_later_of_its_own_time_and_its_blocks() -> None:
    log = Given()
    grant = log.say("consent.grant", A, 0)
    log.say("consent.revoke", A, 10 * MINUTE_US, grant, block_us=20 * MINUTE_US)  # A was cut off
    log.say("study.access", B, 15 * MINUTE_US, grant, block_us=20 * MINUTE_US)
    assert log.seen_by(A) == log.seen_by(B) == []
    log.say("study.access", B, 22 * MINUTE_US, grant)
    assert len(log.seen_by(A)) == len(log.seen_by(B)) == 1


def test_an_access_that_rests_on_another_grant_too_is_in_order() -> None:
    log = Given()
    first, second = log.say("consent.grant", A, 0), log.say("consent.grant", A, 1)
    log.say("consent.revoke", A, 2, first)
    log.say("study.access", B, 5 * MINUTE_US, first, second)
    log.say("study.access", B, 5 * MINUTE_US, second)
    assert log.seen_by(A) == log.seen_by(B) == []
    log.say("consent.revoke", A, 6 * MINUTE_US, second)
    log.say("study.export", B, 8 * MINUTE_US, first, second)
    assert len(log.seen_by(A)) == len(log.seen_by(B)) == 1


def test_an_end_from_before_the_watching_began_is_remembered() -> None:
    log = Given()
    grant = log.say("consent.grant", A, 0)
    ended = log.say("consent.revoke", A, 1, grant)
    watch = Watch(replace(QUIET, after_revocation=True), log.details, B, lambda event: log.refs[event.id])
    watch.remember(ended)
    assert len(watch.take(log.say("study.access", B, 2 * MINUTE_US, grant))) == 1


def test_a_revoked_credential_in_use() -> None:
    log = Log()
    ended = log.add("admin.token", OPERATOR, 0, {"did": "revoked", "id": "ab12", "name": "Dr Who"})
    used = log.add("auth.fail", DOCTOR, 1, {"items": [["revoked", "ab12", 3]]})
    (alert,) = log.alerts(replace(QUIET, after_revocation=True))
    assert (alert.rule, alert.entries) == ("revoked-credential", (ended.id, used.id))
    assert "ab12" in alert.what and "10.0.0.7" in alert.what


def test_a_gap_in_a_nodes_numbers() -> None:
    log = Log()
    log.add("app.start", OPERATOR, 0)
    log.add("app.stop", OPERATOR, 2, sequence=1)
    assert log.alerts(replace(QUIET, sequence_gap=True)) == []
    after = log.add("app.start", OPERATOR, 3, sequence=4)
    (alert,) = log.alerts(replace(QUIET, sequence_gap=True))
    assert (alert.rule, alert.severity, alert.entries) == ("sequence-gap", 12, (after.id,))


def test_nodes_are_numbered_each_by_itself() -> None:
    first, second = (Event(0, bytes(32), bytes([n]) * 16, n, "app.start", START, "", 0, OPERATOR, 1) for n in (3, 9))
    assert find([first, second], replace(QUIET, sequence_gap=True), START)[0] == []


def test_break_glass_waits_for_a_review_and_is_told_when_none_comes_in_time() -> None:
    log = Log()
    on = replace(QUIET, review_hours=72)
    opened = log.add("study.access", DOCTOR, 0, study="1.2.3", purpose="ETREAT", reason="unconscious")
    log.add("study.access", DOCTOR, 0, study="1.2.3", purpose="BTG")
    assert find(log.events, on, START + 72 * HOUR_US - 1, log.details) == ([], [opened])
    (alert,) = log.alerts(on, 72 * HOUR_US)
    assert (alert.rule, alert.time_us, alert.entries) == ("unreviewed", START + 72 * HOUR_US, (opened.id,))
    assert alert.what.startswith(
        "Dr Who viewed a study held here by breaking the glass, and nobody reviewed it within 72"
    )
    log.add("audit.review", OPERATOR, 73 * HOUR_US, {"entry": opened.id, "note": "seen"})
    assert find(log.events, on, START + 80 * HOUR_US, log.details) == ([], [])
    assert log.alerts(QUIET, 80 * HOUR_US) == []


def test_without_details_nothing_is_known_to_be_reviewed_or_revoked() -> None:
    log = Log()
    log.add("study.access", DOCTOR, 0, study="1", purpose="ETREAT")
    log.add("audit.review", OPERATOR, 1, {"entry": bytes(32)})
    log.add("consent.revoke", OPERATOR, 1, {"member": "south"}, study="1")
    log.add("study.access", MEMBER, 2, study="1")
    assert len(find(log.events, Thresholds(), START)[1]) == 1
    assert find(log.events, Thresholds(), START)[0] == []


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4 * HOUR_US), st.integers(0, 30)), max_size=40))
def test_an_alert_has_one_identity_wherever_the_watching_begins(accesses: list[tuple[int, int, int]]) -> None:
    log = Log()
    for user, at, study in sorted(accesses, key=lambda access: access[1]):
        log.add("study.access", Participant("user", f"u{user}"), at, study=f"1.{study}")
    on = replace(QUIET, studies_per_hour=2)
    whole = {alert.id for alert in log.alerts(on)}
    for start in range(len(log.events)):
        assert {alert.id for alert in find(log.events[start:], on, START, log.details)[0]} <= whole


def test_actors_that_are_still_are_forgotten_when_there_are_many() -> None:
    watch = Watch(replace(QUIET, studies_per_hour=1, failed_logins=1))
    for number in range(10_050):
        actor = Participant("user", f"u{number}", "", f"10.{number}")
        time_us = START + number * HOUR_US
        watch.take(Event(number, bytes(32), bytes(16), number, "study.access", time_us, "", 0, actor, 1, study="1"))
        watch.take(Event(number, bytes(32), bytes(16), number, "auth.fail", time_us, "", 4, actor, 1))
    assert len(watch._studies) <= 10_000 and len(watch._failures) <= 10_000


def test_every_rule_has_words_and_codes() -> None:
    for name, rule in RULES.items():
        assert rule.name == name and rule.meaning.endswith(".") and rule.severity in (0, 4, 8, 12)


SECOND = 1_000_000
NORTH, SOUTH = b"n" * 16, b"s" * 16


class Shared(Log):
    """Events of two members in a shared log: each with the time of its block, in seconds after the start."""

    def __init__(self) -> None:
        super().__init__()
        self.sequences = {NORTH: 0, SOUTH: 0}

    def put(self, node: bytes, stated_s: int, block_s: int, kind: str = "app.start", **more: object) -> Event:
        sequence = self.sequences[node]
        self.sequences[node] += 1
        event = self.add(kind, OPERATOR, stated_s * SECOND, sequence=sequence, **more)
        self.events[-1] = replace(
            event, node=node, block_time_us=START + block_s * SECOND, hospital="south" if node == SOUTH else "north"
        )
        return self.events[-1]


def test_each_member_of_a_shared_log_has_a_numbering_of_its_own() -> None:
    log = Shared()
    for second in range(4):
        log.put(NORTH, second, second)
        log.put(SOUTH, second, second)
    watched = replace(QUIET, sequence_gap=True)
    assert log.alerts(watched) == []
    log.sequences[SOUTH] += 2
    missing = log.put(SOUTH, 5, 5)
    (alert,) = log.alerts(watched)
    assert (alert.rule, alert.entries) == ("sequence-gap", (missing.id,))
    assert alert.what == "entry 6 of south follows its entry 3"


def test_joining_begins_another_chain_of_the_same_node() -> None:
    log = Log()
    for sequence in range(3):
        log.add("app.start", OPERATOR, sequence)
    joined = log.add("app.start", OPERATOR, 4, sequence=0)
    log.events[-1] = replace(joined, first=3, block_time_us=START)
    assert log.alerts(replace(QUIET, sequence_gap=True)) == []


def test_an_entry_dated_after_the_block_that_follows_is_named_with_its_hospital() -> None:
    log = Shared()
    log.put(SOUTH, 59, 0)
    early = log.put(SOUTH, 7300, 100)
    log.put(NORTH, 100, 100)  # of the same block, which tells nothing new
    assert log.alerts(replace(QUIET, clock_skew_s=60)) == []
    log.put(NORTH, 101, 101)
    (alert,) = log.alerts(replace(QUIET, clock_skew_s=60))
    assert (alert.rule, alert.severity, alert.entries) == ("future-dated", 8, (early.id,))
    assert alert.what == "entry 1 of south states a time 119 minutes after that of the next block"
    assert log.alerts(replace(QUIET, late_minutes=1)) == []


def test_an_entry_ahead_of_the_clock_here_is_named_before_there_is_a_next_block() -> None:
    log = Shared()
    early = log.put(SOUTH, 7400, 100)
    watched = replace(QUIET, clock_skew_s=60)
    (alert,) = log.alerts(watched, 200 * SECOND)
    assert (alert.rule, alert.severity, alert.entries) == ("future-dated", 8, (early.id,))
    assert alert.what == "entry 0 of south states a time that is 2 hours ahead of this clock"
    log.put(NORTH, 210, 210)
    (later,) = log.alerts(watched, 8000 * SECOND)
    assert later.id == alert.id  # whoever found it, and when


def test_the_first_entries_after_a_silence_are_younger_than_their_block_and_no_alert() -> None:
    log = Shared()
    log.put(SOUTH, 0, 0)
    log.put(SOUTH, 7200, 1)  # the time of a block is that of the agreement on the one before
    log.put(NORTH, 7201, 7201)
    assert log.alerts(replace(QUIET, clock_skew_s=60)) == []


def test_an_entry_dated_before_its_nodes_last_one_is_back_dated_and_no_other_nodes_clock_matters() -> None:
    log = Shared()
    log.put(NORTH, 1000, 1000)
    log.put(SOUTH, 500, 1000)  # behind the other's, in a halt or by its clock: not back-dated
    log.put(SOUTH, 450, 1001)
    forged = log.put(SOUTH, 400, 1002)
    (alert,) = log.alerts(replace(QUIET, clock_skew_s=60))
    assert (alert.rule, alert.severity, alert.entries) == ("back-dated", 8, (forged.id,))
    assert "100 seconds before that of an entry before it" in alert.what


def test_entries_that_waited_long_for_their_block_raise_one_alert_an_hour_and_node() -> None:
    log = Shared()
    late = [log.put(SOUTH, second, 4000 + second) for second in range(5)]
    log.put(SOUTH, 4005, 4005)
    found = log.alerts(replace(QUIET, clock_skew_s=60, late_minutes=60))
    assert [(alert.rule, alert.severity, alert.entries) for alert in found] == [("late-entry", 4, (late[0].id,))]


def test_what_another_members_people_do_is_its_own_nodes_to_watch() -> None:
    log = Shared()
    for number in range(4):
        log.put(SOUTH, number, number, "study.access", study=f"1.{number}", purpose="ETREAT")
    everything = replace(QUIET, studies_per_hour=1, review_hours=1, failed_logins=1)
    now = START + 10 * HOUR_US
    assert find(log.events, everything, now, log.details, own=NORTH) == ([], [])
    assert {alert.rule for alert in find(log.events, everything, now, log.details, own=SOUTH)[0]} == {
        "many-studies",
        "unreviewed",
    }


def test_evidence_is_an_alert_with_the_members_name_and_the_same_one_at_every_member() -> None:
    wrong = Misconduct("double-sign", SOUTH, "south", START, 17, "height 17")
    first, second = (Watch(QUIET, own=own).proved(wrong) for own in (NORTH, SOUTH))
    assert first == second
    assert (first.rule, first.severity) == ("double-sign", 12)
    assert first.what == "A validator signed two blocks at one height: south, height 17"
    assert Watch(QUIET).proved(wrong._replace(height=18)).id != first.id


def test_breaking_another_hospitals_glass_waits_for_a_review_at_both_ends() -> None:
    for kind, did in (
        ("emergency.start", "Dr Who took a study of south by breaking the glass"),
        ("consent.grant", "south took a study of this hospital by breaking the glass"),
    ):
        log = Log()
        emergency = bytes([7]) * 32
        opened = log.add(kind, DOCTOR, 0, {"refs": [emergency], "member": "south"}, purpose="ETREAT")
        log.add("consent.grant", DOCTOR, 1, {"refs": []})  # for treatment: no glass was broken
        (alert,) = log.alerts(replace(QUIET, review_hours=1), 2 * HOUR_US)
        assert (alert.rule, alert.entries) == ("unreviewed", (opened.id,))
        review = "review it in the console under Emergencies, or with cairn ledger review"
        assert alert.what == f"{did}, and nobody reviewed it within 1 hours; {review}"
        # Who gave reviews what it gave, or the entry that it gave it for, which is the other hospital's.
        log.add("audit.review", OPERATOR, 2, {"entry": emergency if kind == "consent.grant" else opened.id})
        assert log.alerts(replace(QUIET, review_hours=1), 2 * HOUR_US) == []


def test_alerts_of_what_is_in_no_log_have_one_identity() -> None:
    first, again = (glass_broken(b"e" * 32, "south", own, START) for own in (True, False))
    assert first.id == again.id and first.entries == (b"e" * 32,) and "south" in first.what
    hour = [offered_wrong("south", f"bafy{number}", START + number) for number in range(2)]
    assert hour[0].id == hour[1].id != offered_wrong("south", "bafy", START + HOUR_US).id
    assert hour[0].id != offered_wrong("north", "bafy0", START).id
