"""Breaking the glass among hospitals in one process: what comes, for how long, who is told, what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge import replica_commands
from bridge.alerts import Alerts
from bridge.config import Replication, Sharing
from bridge.consortium_model import Emergency
from bridge.emergencies import PATH, Glass, glass_of
from bridge.errors import Busy, CapacityError, ContentMissing, EngineFault, Forbidden, NotFound, RequestError
from bridge.ledger_reading import opener
from bridge.model import Actor, ActorKind, Role
from bridge.replica_overview import emergencies
from bridge.services.deliver_share import deliver
from bridge.services.end_share import end_shares
from bridge.services.follow_shares import follow
from bridge.services.provenance import now_us
from bridge.services.receive_share import take_in
from bridge.sharing import ending_of, receiver_of
from ledger.alerts import glass_broken
from ledger.types import EMERGENCY
from tests.bridge.consortium_in_memory import Consortium, Listener
from tests.bridge.services.conftest import SENDER, instance, part10, recorded

STUDY = "1.2.826.0.1.3680043.8.498.93"
DOCTOR = Actor(ActorKind.USER, "Dr Who", Role.CLINICIAN, "127.0.0.1", "http")
REASON = "unconscious patient, no time to ask"
HOUR_S = 3600


def member(name: str) -> Actor:
    return Actor(ActorKind.PEER, name, None, "192.0.2.1", "members")


class Ward:
    """One hospital with its glass and the members' process, stepped by the test."""

    def __init__(self, consortium: Consortium, name: str) -> None:
        self.consortium, self.hospital = consortium, consortium.hospitals[name]
        self.node = self.hospital.node
        assert self.node.sharing is not None
        self.sharing = self.node.sharing
        self.node.statements._made = self._made
        glass = glass_of(self.node)
        assert glass is not None
        self.glass: Glass = glass
        self.node.glass = glass
        self.receiver = receiver_of(self.node, self.sharing)
        self.ending = ending_of(self.node, self.receiver)

    def restart(self) -> None:
        """What a process knows of the ledger and of its alerts when it begins."""
        self.node.watch = self.watch()
        self.glass = self.node.glass = glass_of(self.node) or self.glass

    def watch(self) -> Alerts:
        node, place = self.node, self.node.settings.home / "run" / "alerts.lock"
        opened = opener(node.keys, node.keystore)
        return Alerts(node.audit, node.access, node.index.database, opened, node.settings.alerts, lock=place)

    def policy(self, **values: Any) -> None:
        self.glass = self.node.glass = replace(self.glass, policy=Sharing(**values))

    def step(self) -> None:
        follow(self.sharing, self.node.index.followed)
        end_shares(self.ending)
        self.glass.step()
        deliver(self.sharing)
        take_in(self.receiver)

    def alerts(self) -> list[str]:
        return [alert.what for alert in self.node.watch.recorded() if alert.rule == "emergency"]

    def _made(self, root: bytes, final: bool) -> bytes | None:
        self.consortium.seal()
        return self.hospital.made(root, final)


class Wards:
    """h0 has the study; h1 breaks the glass; h2 is another."""

    def __init__(self, folder: Path) -> None:
        self.consortium = Consortium(folder, [Replication()] * 3)
        self.h0, self.h1, self.h2 = (Ward(self.consortium, name) for name in ("h0", "h1", "h2"))

    def settle(self, rounds: int = 5) -> None:
        for _ in range(rounds):
            self.consortium.seal()
            for ward in (self.h0, self.h1, self.h2):
                if not ward.hospital.down:
                    ward.step()
            self.consortium.clock.pass_by(0.5)
        self.consortium.seal()

    def pass_by(self, seconds: float) -> None:
        self.consortium.clock.pass_by(seconds)
        self.settle()

    @property
    def tag(self) -> bytes:
        return self.h0.node.index.trees.of_study(STUDY)[0].tag

    def has_it(self, ward: Ward) -> bool:
        try:
            ward.node.index.locate(STUDY)
            ward.node.keys.open(self.tag, 0)
        except (NotFound, ContentMissing):
            return False
        return True


def ask(listener: Listener, method: str, path: str, body: Any = None) -> Any:
    """As the listener, with the path of emergencies."""
    if path != PATH:
        return ASK(listener, method, path, body)
    try:
        listener._node().accept_emergency(listener.actor, json.loads(json.dumps(body)))
    except (Forbidden, NotFound) as error:
        raise ContentMissing(error.detail) from None
    except CapacityError as error:
        raise EngineFault(error.detail) from None


ASK = Listener.ask


@pytest.fixture
def wards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wards]:
    monkeypatch.setattr(Listener, "ask", ask)
    made = Wards(tmp_path)
    with made.h0.node.store.reception(SENDER) as reception:
        for number in range(2):
            incoming = reception.begin()
            incoming.write(part10(instance(study=STUDY, series=f"{STUDY}.1", sop=f"{STUDY}.1.{number}", fill=number)))
            incoming.commit()
    yield made
    made.consortium.close()


@pytest.mark.parametrize("by", ["uid", "tag"])
def test_the_study_comes_for_some_hours_and_both_are_alerted(wards: Wards, by: str) -> None:
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY if by == "uid" else wards.tag.hex(), REASON)
    where = (
        ": an emergency access without a grant; review it in the console under Emergencies, or with cairn ledger review"
    )
    assert wards.h1.alerts() == [f"somebody here broke the glass for a study of h0{where}"]
    wards.settle()
    assert wards.has_it(wards.h1) and not wards.has_it(wards.h2)
    assert wards.h0.alerts() == [f"h1 broke the glass for a study of this hospital{where}"]
    assert wards.h2.alerts() == []
    (final,) = wards.consortium.of_type("emergency.start")
    assert final.id == row.entry and final.entry.purpose == EMERGENCY
    assert final.entry.terms["of"] == wards.h0.hospital.member.node
    (granted,) = wards.consortium.of_type("consent.grant")
    assert granted.entry.node == wards.h0.hospital.member.node
    assert (granted.entry.purpose, granted.entry.refs, granted.entry.study) == (EMERGENCY, (row.entry,), wards.tag)
    assert len(wards.consortium.of_type("share.receipt")) == 1
    wards.pass_by(4 * HOUR_S)
    assert not wards.has_it(wards.h1)
    assert len(wards.consortium.of_type("emergency.end")) == len(wards.consortium.of_type("share.end")) == 1


class Killed(BaseException):
    """The process is gone at this place."""


def killed(*_: Any, **__: Any) -> Any:
    raise Killed


@pytest.mark.parametrize("before", ["the entry's id", "the row", "the alert"])
def test_who_was_killed_while_breaking_the_glass_is_alerted_once_when_the_ledger_has_it(
    wards: Wards, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    with monkeypatch.context() as patched:
        if before == "the entry's id":
            patched.setattr(wards.h1.node.statements, "_made", killed)
        elif before == "the row":
            patched.setattr(wards.h1.glass.rows, "add", killed)
        else:
            patched.setattr(wards.h1.node.watch, "tell", killed)
            wards.h1.glass = replace(wards.h1.glass, tell=killed)
        with pytest.raises(Killed):
            wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    assert wards.h1.alerts() == []
    wards.h1.restart()
    wards.settle()
    assert len(wards.h0.alerts()) == len(wards.h1.alerts()) == 1
    for ward in (wards.h0, wards.h1):
        ward.restart()
        ward.node.index.followed.advance("emergencies", -1)
    wards.settle()
    assert len(wards.h0.alerts()) == len(wards.h1.alerts()) == 1
    (final,) = wards.consortium.of_type("emergency.start")
    assert wards.h1.node.watch.recorded()[0].entries == (final.id,)


def broken_off(wards: Wards, monkeypatch: pytest.MonkeyPatch) -> Emergency:
    """h1 is killed between its entry and its row; what its trail tells of that."""
    with monkeypatch.context() as patched:
        patched.setattr(wards.h1.glass.rows, "add", killed)
        with pytest.raises(Killed):
            wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    (final,) = wards.consortium.of_type("emergency.start")
    times = (now_us() - HOUR_S * 1_000_000,) * 2
    return Emergency(final.id, None, "h0", "h1", False, REASON, *times, reviewed=False)


def test_one_that_was_broken_off_is_listed_at_both(wards: Wards, monkeypatch: pytest.MonkeyPatch) -> None:
    left = broken_off(wards, monkeypatch)
    local = replace(left, entry=bytes(32), from_member="h1")
    for ward, trail in ((wards.h0, []), (wards.h1, [left, local])):
        node: Any = SimpleNamespace(glass=ward.glass, index=ward.node.index, emergencies=lambda trail=trail: trail)
        (told,) = replica_commands.emergencies(node, {}, print)["emergencies"]  # type: ignore[index]
        assert (told["emergency"], told["by"], told["of"]) == (left.entry.hex(), "h1", "h0")
        if ward is wards.h1:
            assert (told["state"], told["reason"], told["reviewed"]) == ("broken off", REASON, False)
            node.emergencies = lambda: [replace(left, started_us=now_us())]
            assert replica_commands.emergencies(node, {}, print)["emergencies"][0]["state"] == "asked"  # type: ignore[index]


def test_one_that_was_broken_off_is_ended_and_never_asked_for(wards: Wards, monkeypatch: pytest.MonkeyPatch) -> None:
    left = broken_off(wards, monkeypatch)
    wards.h1.glass.end(DOCTOR, left.entry)
    wards.settle()
    at_h0, at_h1 = (ward.node.index.emergencies.of(left.entry) for ward in (wards.h0, wards.h1))
    assert at_h0 is not None and at_h1 is not None
    assert at_h0.ended is not None and at_h1.ended is not None and at_h1.stated
    assert not wards.has_it(wards.h1) and len(wards.consortium.of_type("emergency.end")) == 1
    assert wards.consortium.of_type("consent.grant") == []
    with pytest.raises(RequestError):
        wards.h1.glass.end(DOCTOR, left.entry)
    with pytest.raises(NotFound):
        wards.h2.glass.end(DOCTOR, left.entry)


def test_whose_study_it_is_is_alerted_though_it_was_killed_when_it_had_written_it_down(
    wards: Wards, monkeypatch: pytest.MonkeyPatch
) -> None:
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.h0.glass = replace(wards.h0.glass, tell=killed)
    wards.consortium.seal()
    with pytest.raises(Killed):
        wards.h0.step()
    assert len(wards.h0.node.index.emergencies.all()) == 1 and wards.h0.alerts() == []
    wards.h0.restart()
    wards.settle()
    assert len(wards.h0.alerts()) == len(wards.h1.alerts()) == 1
    assert wards.has_it(wards.h1)


def test_processes_that_tell_an_emergency_at_once_tell_it_once(wards: Wards) -> None:
    """Of the command that broke the glass and of what follows the ledger, each has its own alerts."""
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    told = glass_broken(bytes(32), row.member, True, row.started)
    watches = [wards.h1.node.watch, *(wards.h1.watch() for _ in range(3))]
    together = threading.Barrier(len(watches))

    def tell(watch: Alerts) -> None:
        together.wait(60)
        watch.tell(told)

    with ThreadPoolExecutor(len(watches)) as pool:
        list(pool.map(tell, watches))
    assert [alert.id for alert in wards.h1.node.watch.recorded()].count(told.id) == 1


def test_the_reason_is_kept_at_both_and_stands_on_no_ledger(wards: Wards) -> None:
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    for one in wards.consortium.entries:
        assert REASON.encode() not in one.envelope and STUDY.encode() not in one.envelope
    for ward, name in ((wards.h0, "h0"), (wards.h1, "h1")):
        (told,) = emergencies(ward.node.index.emergencies.open(wards.consortium.clock()), name)
        assert (told.reason, told.study, told.from_member, told.to_member) == (REASON, STUDY, "h0", "h1")
        assert told.own == (name == "h0") and not told.reviewed
    assert [body["reason"] for body in recorded(wards.h0.node, "consent.grant")] == [REASON]


def test_it_ends_when_who_broke_the_glass_says_so(wards: Wards) -> None:
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    generation = wards.h0.node.keys.study_key(STUDY).generation
    wards.h1.glass.end(DOCTOR, row.entry)
    wards.settle()
    assert not wards.has_it(wards.h1)
    given = wards.h0.node.index.shares.given(row.entry)
    assert given is not None and not given.live
    assert wards.h0.node.keys.study_key(STUDY).generation == generation + 1
    with pytest.raises(RequestError):
        wards.h1.glass.end(DOCTOR, row.entry)
    with pytest.raises(NotFound):
        wards.h0.glass.end(DOCTOR, row.entry)


def test_a_hospital_may_refuse_by_policy_and_is_alerted_all_the_same(wards: Wards) -> None:
    wards.h0.policy(emergency="off")
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    assert not wards.has_it(wards.h1)
    refused = wards.h1.node.index.emergencies.of(row.entry)
    assert refused is not None and refused.refused and "gives nothing" in str(refused.trouble)
    assert wards.h0.alerts() and wards.h1.alerts()


def test_it_comes_after_a_quiet_night_too_when_the_time_of_its_block_is_that_of_the_evening(wards: Wards) -> None:
    wards.consortium.quiet_us = 9 * HOUR_S * 1_000_000
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    assert wards.has_it(wards.h1)
    told = wards.h0.node.index.emergencies.of(row.entry)
    given = wards.h0.node.index.shares.given(row.entry)
    assert told is not None and given is not None
    assert told.started == given.at == row.started and given.expires == row.until


def test_a_time_ahead_of_whose_study_it_is_makes_it_no_longer(wards: Wards) -> None:
    wards.h1.policy(emergency_hours=13)
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.consortium.seal()
    (final,) = wards.consortium.of_type("emergency.start")
    ahead = replace(final.entry, time_us=final.entry.time_us + 9 * HOUR_S * 1_000_000)
    wards.consortium.entries[final.index] = replace(final, entry=ahead)
    wards.settle()
    assert not wards.has_it(wards.h1)
    refused = wards.h1.node.index.emergencies.of(row.entry)
    assert refused is not None and "at most 4 hours" in str(refused.trouble)


def test_a_member_that_was_retired_is_told_so_when_it_would_break_the_glass(wards: Wards) -> None:
    wards.consortium.retire("h1")
    with pytest.raises(RequestError, match="this hospital was retired"):
        wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    assert not wards.consortium.of_type("emergency.start")


def test_no_longer_than_whose_study_it_is_lets_it(wards: Wards) -> None:
    wards.h1.policy(emergency_hours=48)
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    assert not wards.has_it(wards.h1)
    wards.h0.policy(emergency_hours=1)
    wards.h1.policy(emergency_hours=1)
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    assert wards.has_it(wards.h1)
    wards.pass_by(HOUR_S)
    assert not wards.has_it(wards.h1)


def test_a_hospital_that_does_not_answer_is_asked_until_it_is_over(wards: Wards) -> None:
    wards.h0.hospital.down = True
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    assert not wards.has_it(wards.h1)
    wards.h0.hospital.down = False
    wards.pass_by(60)
    assert wards.has_it(wards.h1)


def test_its_time_is_over_though_the_hospital_is_down_and_a_newer_key_follows(wards: Wards) -> None:
    wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    wards.settle()
    generation = wards.h0.node.keys.study_key(STUDY).generation
    wards.h0.hospital.down = True
    wards.pass_by(4 * HOUR_S)
    assert not wards.has_it(wards.h1)
    assert len(wards.consortium.of_type("emergency.end")) == len(wards.consortium.of_type("share.end")) == 1
    wards.h0.hospital.down = False
    wards.settle()
    assert wards.h0.node.keys.study_key(STUDY).generation == generation + 1
    assert len([row for row in wards.h0.node.index.emergencies.all() if row.reviewed is None]) == 1  # it must review


def test_what_is_not_held_or_not_named_is_refused(wards: Wards) -> None:
    row = wards.h1.glass.start(DOCTOR, "h0", "1.2.3", REASON)
    wards.settle()
    refused = wards.h1.node.index.emergencies.of(row.entry)
    assert refused is not None and refused.refused
    for of, study, reason in (("h9", STUDY, REASON), ("h1", STUDY, REASON), ("h0", "x", REASON), ("h0", STUDY, " ")):
        with pytest.raises(RequestError):
            wards.h1.glass.start(DOCTOR, of, study, reason)


def test_only_the_entry_of_who_asks_opens_and_only_one_study(wards: Wards) -> None:
    accept: Callable[[Actor, Any], None] = wards.h0.glass.accept
    row = wards.h1.glass.start(DOCTOR, "h0", STUDY, REASON)
    asked = {"entry": row.entry.hex(), "study": STUDY, "reason": REASON}
    with pytest.raises(Forbidden):
        accept(member("h2"), asked)
    with pytest.raises(Forbidden):
        accept(member("nobody"), asked)
    with pytest.raises(Busy):
        accept(member("h1"), {**asked, "entry": bytes(32).hex()})
    for wrong in ({}, [], {**asked, "entry": "00"}, {**asked, "reason": ""}, {**asked, "study": "../x"}, None):
        with pytest.raises(RequestError):
            accept(member("h1"), wrong)
    wards.settle()
    accept(member("h1"), asked)
    with wards.h0.node.store.reception(SENDER) as reception:
        incoming = reception.begin()
        incoming.write(part10(instance(study=f"{STUDY}.2")))
        incoming.commit()
    with pytest.raises(Forbidden, match="another study"):
        accept(member("h1"), {**asked, "study": f"{STUDY}.2"})
    assert len(wards.consortium.of_type("consent.grant")) == 1
    wards.pass_by(5 * HOUR_S)
    with pytest.raises(Forbidden):
        accept(member("h1"), asked)
