"""The rules at work: each finding becomes one record, over restarts, failures and what is older than two hours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bridge import alerts, config
from bridge.alerts import Alerts
from bridge.config import Content, Settings
from bridge.crypto.keystore import open_keystore
from bridge.errors import NotFound, RequestError, StorageFull
from bridge.ledger_reading import opener
from bridge.model import OPERATOR
from bridge.node import Node
from ledger.alerts import HOUR_US
from ledger.event import Detail, Event, EventQuery, Participant
from tests.bridge.services.conftest import CHEAP, recorded
from tests.contract.memory_trail import MemoryTrail

NOW = 1_700_000_000_000_000
DOCTOR = Participant("user", "Dr Who", "viewer", "10.0.0.7", "http")
STRANGER = Participant("user", "unknown", "", "192.0.2.9", "http")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    settings = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    opened = Node(settings, open_keystore(settings.home, cost=CHEAP), "command")
    yield opened
    opened.close()


class Ledger:
    """A trail in memory and the alerts over it; `begin` is what a start of the node does."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.trail = MemoryTrail()
        self.count = 0
        self.now = NOW

    def add(
        self, kind: str, who: Participant, at_us: int, body: Mapping[str, object] | None = None, **more: str
    ) -> Event:
        index, self.count = self.count, self.count + 1
        fields = {"purpose": "TREAT", "study": f"1.{index}", **more}
        event = Event(
            *(index, index.to_bytes(32, "big"), b"n" * 16, index, kind, NOW + at_us),
            *(fields["purpose"], 0, who, 1),
            study=fields["study"],
        )
        self.trail.add(event, [Detail(event.id, 0, event.time_us, body or {}, b"")])
        return event

    def begin(self, **settings: int | None) -> Alerts:
        numbers = {"studies_per_hour": None, "failed_logins": None, "review_hours": None, **settings}
        node = self.node
        return Alerts(
            self.trail,
            node.access,
            node.index.database,
            opener(node.keys, node.keystore),
            config.Alerts(**numbers),  # type: ignore[arg-type]
            clock=lambda: self.now,
        )


@pytest.fixture
def ledger(node: Node) -> Ledger:
    return Ledger(node)


def rules(found: Sequence[object]) -> list[str]:
    return [str(getattr(alert, "rule")) for alert in found]  # noqa: B009


def test_a_finding_is_recorded_once_however_often_it_is_looked_for(ledger: Ledger) -> None:
    watching = ledger.begin(studies_per_hour=2)
    assert watching.step() == 0
    for number in range(3):
        ledger.add("study.access", DOCTOR, number)
    assert [watching.step() for _ in range(3)] == [1, 0, 0]
    ledger.add("study.access", DOCTOR, 4)
    assert watching.step() == 0  # the same actor in the same hour
    assert ledger.begin(studies_per_hour=2).step() == 0  # another start
    (body,) = recorded(ledger.node, "security.alert")
    assert (body["rule"], body["severity"], body["type_code"]) == ("many-studies", 4, 110132)
    (alert,) = watching.recorded()
    assert (alert.id, alert.what, len(alert.entries)) == (body["alert"], body["what"], 3)


def test_what_could_not_be_recorded_is_recorded_later(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = ledger.begin(studies_per_hour=1)
    for number in range(2):
        ledger.add("study.access", DOCTOR, number)

    def full(*_: object, **__: object) -> None:
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger.node.access, "administered", full)
        with pytest.raises(StorageFull):
            watching.step()
    assert watching.step() == 1
    assert rules(watching.recorded()) == ["many-studies"]


def test_break_glass_that_nobody_reviewed_is_told_when_it_is_due_also_after_a_start(ledger: Ledger) -> None:
    opened = ledger.add("study.access", DOCTOR, 0, purpose="ETREAT")
    for number in range(5):
        ledger.add("app.start", DOCTOR, (10 + number) * HOUR_US)
    ledger.now = NOW + 71 * HOUR_US
    watching = ledger.begin(review_hours=72)
    assert watching.step() == 0
    assert watching.find(NOW + HOUR_US) == ([], [opened])
    ledger.now = NOW + 72 * HOUR_US
    assert watching.step() == 1 and ledger.begin(review_hours=72).step() == 0
    assert rules(watching.recorded()) == ["unreviewed"]


def test_a_review_in_time_leaves_nothing_to_tell(ledger: Ledger) -> None:
    opened = ledger.add("study.access", DOCTOR, 0, purpose="ETREAT")
    watching = ledger.begin(review_hours=1)
    reviewed = watching.review(OPERATOR, opened.id, "  in shock  ")
    assert reviewed == opened
    (body,) = recorded(ledger.node, "audit.review")
    assert (body["entry"], body["reviewed"], body["note"]) == (opened.id, "study.access", "in shock")
    ledger.add("audit.review", DOCTOR, 1, body)
    ledger.now = NOW + 90 * HOUR_US
    assert watching.step() == 0 and watching.find(NOW) == ([], [])


@pytest.mark.parametrize("note", ["", "   ", "x" * (alerts.LONGEST_NOTE + 1)])
def test_a_review_needs_a_note(ledger: Ledger, note: str) -> None:
    opened = ledger.add("study.access", DOCTOR, 0, purpose="ETREAT")
    with pytest.raises(RequestError):
        ledger.begin().review(OPERATOR, opened.id, note)
    with pytest.raises(NotFound):
        ledger.begin().review(OPERATOR, b"?" * 32, "seen")
    assert recorded(ledger.node, "audit.review") == []


def test_failed_logins_count_by_what_their_records_say(ledger: Ledger) -> None:
    ledger.add("auth.fail", STRANGER, 0, {"items": [["unknown", "no such token", 11]]})
    watching = ledger.begin(failed_logins=10)
    assert watching.step() == 1
    assert rules(watching.find(NOW)[0]) == ["failed-logins"] and watching.find(NOW + 1)[0] == []


def test_many_events_are_taken_in_pages_and_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "PAGE", 7)
    watching = ledger.begin(studies_per_hour=30)
    for number in range(20):
        ledger.add("study.access", DOCTOR, number)
    assert watching.step() == 0
    for number in range(20, 45):
        ledger.add("study.access", DOCTOR, number)
    assert watching.step() == 1
    (alert,) = watching.recorded()
    assert len(alert.entries) == 31 and rules(watching.find(NOW)[0]) == ["many-studies"]


def test_nothing_new_costs_one_event(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        ledger.add("study.access", DOCTOR, number)
    watching = ledger.begin()
    watching.step()
    given: list[int] = []
    search = ledger.trail.search

    def counted(query: EventQuery) -> Sequence[Event]:
        found = search(query)
        given.append(len(found))
        return found

    monkeypatch.setattr(ledger.trail, "search", counted)
    watching.step()
    assert given == [1]
    for number in range(3):
        ledger.add("study.access", DOCTOR, 50 + number)
    watching.step()
    assert given == [1, 1, 2]


def test_a_flood_of_findings_is_recorded_in_portions(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "AT_ONCE", 3)
    for number in range(8):
        ledger.add("study.access", DOCTOR, 0, purpose="ETREAT", study=f"2.{number}")
    ledger.now = NOW + 2 * HOUR_US
    watching = ledger.begin(review_hours=1)
    assert [watching.step() for _ in range(4)] == [3, 3, 2, 0]
    assert len(watching.recorded()) == 8


def test_settings_turn_rules_off() -> None:
    off = alerts.thresholds(config.Alerts(None, None, None, "off", "off"))
    assert (off.studies_per_hour, off.after_revocation, off.sequence_gap) == (None, False, False)
    assert alerts.thresholds(config.Alerts()).after_revocation
