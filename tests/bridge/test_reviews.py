"""Emergencies with their reviews: each by whatever of its entries was reviewed, and none twice."""

from __future__ import annotations

import pytest

from bridge.consortium_model import Emergency, Review
from bridge.index.emergencies import EmergencyRow
from bridge.reviews import Reviews
from ledger.alerts import HOUR_US
from ledger.event import Detail, Event, Participant
from ledger.types import EMERGENCY
from tests.contract.memory_trail import MemoryTrail

NOW = 1_700_000_000_000_000
DOCTOR = Participant("user", "Dr Who", "clinician", "", "")
ADA = Participant("user", "Ada", "admin", "", "")
OWN, OTHER = b"o" * 16, b"x" * 16
STUDY, TAG = "1.2.3", b"t" * 16


class Node:
    """A trail, the rows across hospitals, and what is told of both."""

    def __init__(self) -> None:
        self.trail, self.rows = MemoryTrail(), list[EmergencyRow]()
        self.count = 0
        self.reviews = Reviews(self.trail, lambda: self.rows, OWN, lambda: "h0", 72)

    def add(self, kind: str, who: Participant = ADA, node: bytes = OWN, **body: object) -> Event:
        index, self.count = self.count, self.count + 1
        entry, purpose = index.to_bytes(32, "big"), "HOPERAT" if kind.startswith("audit") else EMERGENCY
        event = Event(index, entry, node, index, kind, NOW + index, purpose, 0, who, 1, study=STUDY)
        self.trail.add(event, [Detail(event.id, 0, event.time_us, body, b"")])
        return event

    def broke(self, entry: bytes, own: bool, at: int = NOW) -> None:
        other = ("h1", OTHER)
        self.rows.insert(0, EmergencyRow(entry, own, other[1], other[0], STUDY, TAG, "in shock", at, at + HOUR_US))

    def one(self) -> Emergency:
        (found,) = self.reviews.all()
        assert list(self.reviews.due()) == ([] if found.reviewed else [found.due_us])
        return found


@pytest.fixture
def node() -> Node:
    return Node()


def test_nothing_is_told_of_a_node_where_nobody_broke_the_glass(node: Node) -> None:
    node.add("study.access", DOCTOR, OTHER)  # another hospital's own
    assert node.reviews.all() == []


def test_an_access_in_this_hospital_is_told_and_reviewed(node: Node) -> None:
    access = node.add("study.access", DOCTOR)
    waiting = node.one()
    assert (waiting.entry, waiting.who, waiting.local, waiting.reviewed) == (
        access.id,
        "Dr Who (clinician)",
        True,
        False,
    )
    assert waiting.due_us == access.time_us + 72 * HOUR_US
    review = node.add("audit.review", entry=access.id, note="no time to ask")
    for _ in range(2):
        assert node.one().reviews == (Review(review.id, "Ada (admin)", review.time_us, "no time to ask"),)
    assert node.one().reviewed


def test_who_took_a_study_is_known_where_they_belong(node: Node) -> None:
    start = node.add("emergency.start", DOCTOR)
    node.broke(start.id, own=True)
    taken = node.one()
    assert (taken.who, taken.from_member, taken.to_member, taken.own) == ("Dr Who (clinician)", "h1", "h0", False)
    assert not taken.local


def test_one_whose_entry_the_trail_has_not_yet_is_told_all_the_same(node: Node) -> None:
    node.broke(b"\xff" * 32, own=True)
    assert (node.one().who, node.one().reason) == ("", "in shock")


def test_one_that_was_broken_off_is_reviewed_by_its_entry_alone(node: Node) -> None:
    start = node.add("emergency.start", DOCTOR, member="h1", reason="in shock")
    left = node.one()
    assert (left.from_member, left.to_member, left.own, left.reason) == ("h1", "h0", False, "in shock")
    node.broke(start.id, own=True)
    assert node.one().entry == start.id


@pytest.mark.parametrize("of", ["their entry", "what was given for it"])
def test_what_was_given_is_reviewed_by_either_entry(node: Node, of: str) -> None:
    start = node.add("emergency.start", DOCTOR, OTHER)
    node.broke(start.id, own=False)
    assert node.one().who == ""
    grant = node.add("consent.grant", refs=[start.id])
    node.add("audit.review", entry=start.id if of == "their entry" else grant.id, note="first")
    assert [one.finding for one in node.one().reviews] == ["first"]
    node.add("audit.review", entry=start.id, note="second")
    assert [one.finding for one in node.one().reviews] == ["first", "second"]


def test_many_reviews_are_read_by_pages(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.reviews.PAGE", 2)
    accesses = [node.add("study.access", DOCTOR) for _ in range(5)]
    for access in accesses:
        node.add("audit.review", entry=access.id, note=str(access.index))
    told = {one.entry: [each.finding for each in one.reviews] for one in node.reviews.all()}
    assert told == {access.id: [str(access.index)] for access in accesses}
    assert [one.entry for one in node.reviews.all()] == [access.id for access in reversed(accesses)]


def test_of_many_the_newest_are_told_and_those_that_wait(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.reviews.MOST_LOCAL", 2)
    accesses = [node.add("study.access", DOCTOR) for _ in range(5)]
    for access in accesses[1:]:
        node.add("audit.review", entry=access.id, note="fine")
    assert [one.entry for one in node.reviews.all()] == [accesses[4].id, accesses[3].id, accesses[0].id]
    assert node.reviews.due() == [accesses[0].time_us + 72 * HOUR_US]


def test_without_hours_nothing_is_due(node: Node) -> None:
    node.add("study.access", DOCTOR)
    (found,) = Reviews(node.trail, list, None, str, None).all()
    assert (found.due_us, found.local) == (None, True)
