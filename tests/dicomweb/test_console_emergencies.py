"""The console's pages of emergencies: what waits for a review, who reviewed what with which finding, and the form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledger_in_memory import MADE_US, Ledger, some
from node_in_memory import STUDY, Client, FakeNode

from bridge import errors
from bridge.consortium_model import Emergency, Review
from bridge.model import Actor

START, FOREVER = b"\x0a" * 32, 2**60
GIVEN = Emergency(
    *(START, STUDY, "h0", "h3", True, "trauma room", MADE_US, FOREVER, False),
    due_us=FOREVER,
)
TAKEN = replace(GIVEN, entry=b"\x0b" * 32, from_member="h1", to_member="h0", own=False, who="Dr Who (clinician)")
REVIEW = Review(b"\x0c" * 32, "Ada (admin)", MADE_US, "the patient was in shock")


class Reviewing:
    """What is reviewed at a node in memory."""

    def __init__(self, node: Any) -> None:
        self.asked: list[tuple[object, ...]] = []
        node.review = self.review

    def review(self, actor: Actor, entry: bytes, note: str) -> None:
        if len(note) > 2000:
            raise errors.RequestError("a review needs a note of 1 to 2000 characters")
        self.asked.append((actor.name, entry, note))


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    return some().attach(node)


@pytest.fixture
def reviews(node: FakeNode, ledger: Ledger) -> Reviewing:
    node.broken = [GIVEN, TAKEN]
    return Reviewing(node)


@pytest.fixture
def admin(anonymous: Client) -> Client:
    anonymous.headers = {"authorization": "Bearer admin", "accept": "text/html"}
    return anonymous


def shown(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.text
    return response.text


def test_what_waits_is_listed_before_what_was_reviewed(admin: Client, reviews: Reviewing, node: FakeNode) -> None:
    node.broken = [GIVEN, replace(TAKEN, reviewed=True, reviews=(REVIEW,))]
    page = shown(admin, "/console/emergencies")
    assert "1 emergency access waits for review." in page
    assert "h3 broke the glass for a study of this hospital" in page
    assert "Somebody at h3, who is known there" in page
    assert "This hospital broke the glass for a study of h1" in page
    assert page.index("trauma room") < page.index("the patient was in shock")
    assert node.recorded == [("audited", "admin", "emergencies")]
    node.broken = []
    assert page.count("None.") == 0 and shown(admin, "/console/emergencies").count("None.") == 2


def test_what_is_overdue_stands_on_the_first_page(admin: Client, reviews: Reviewing, node: FakeNode) -> None:
    assert "2 emergency accesses wait for review. " in shown(admin, "/console/")
    node.broken = [replace(GIVEN, due_us=MADE_US), TAKEN]
    first = shown(admin, "/console/")
    assert "2 emergency accesses wait for review; 1 overdue. " in first
    assert 'class="note bad"' in first
    assert "1 review is overdue." in shown(admin, "/console/emergencies")
    assert "overdue for " in shown(admin, "/console/emergencies")
    node.broken = [replace(GIVEN, reviewed=True, due_us=MADE_US)]
    assert "for review" not in shown(admin, "/console/")
    assert "Every emergency access was reviewed." in shown(admin, "/console/emergencies")


def test_one_emergency_tells_who_why_when_and_has_the_form(admin: Client, reviews: Reviewing) -> None:
    page = shown(admin, f"/console/emergencies/{TAKEN.entry.hex()}")
    for told in ("Dr Who (clinician)", "trauma room", "It waits for its review", "Record the review", "It still lasts"):
        assert told in page
    assert "Nobody at h0 has looked at it so far." in page
    admin.headers["authorization"] = "Bearer auditor"
    page = shown(admin, f"/console/emergencies/{TAKEN.entry.hex()}")
    assert "Record the review" not in page
    assert "An administrator of this hospital can write the review here." in page
    admin.headers["authorization"] = "Bearer clinician"
    assert admin.get(f"/console/emergencies/{TAKEN.entry.hex()}").status_code == 403


def test_an_access_within_the_hospital_is_told_as_its_own_entry(
    admin: Client, reviews: Reviewing, node: FakeNode, ledger: Ledger
) -> None:
    event = next(event for event in ledger.trail._events if event.type == "study.access")
    node.broken = [replace(GIVEN, entry=event.id, from_member="", to_member="", who="Dr Who")]
    page = shown(admin, f"/console/emergencies/{event.id.hex()}")
    assert "Emergency access in this hospital" in page
    assert page.count("<tbody>") == 1
    assert "viewed" in page


def test_a_study_that_the_other_hospital_has_not_told_is_said(
    admin: Client, reviews: Reviewing, node: FakeNode
) -> None:
    node.broken = [replace(GIVEN, study=None, reason="")]
    page = shown(admin, f"/console/emergencies/{START.hex()}")
    assert "kept at the other hospital" in page
    assert "The other hospital has not told which study it is about." in page


def test_an_administrator_reviews_with_a_finding(admin: Client, reviews: Reviewing, node: FakeNode) -> None:
    form = {"entry": START.hex(), "finding": " justified: no time to ask "}
    answer = admin.post("/console/emergencies/reviews", data=form)
    assert answer.status_code == 303
    assert reviews.asked == [("admin", START, "justified: no time to ask")]
    where = answer.headers["location"]
    assert "The review is stated" in shown(admin, where)
    node.broken = [replace(GIVEN, reviewed=True, reviews=(REVIEW,))]
    page = shown(admin, where)
    assert "It was reviewed." in page
    assert "Ada (admin)" in page and "the patient was in shock" in page


@pytest.mark.parametrize(
    ("form", "status", "why"),
    [
        ({"entry": START.hex(), "finding": "  "}, 400, "A review needs a finding"),
        ({"entry": START.hex(), "finding": "x" * 2001}, 400, "A review needs a note of 1 to 2000"),
        ({"entry": "ab" * 32, "finding": "x"}, 404, "No emergency is known by this entry"),
        ({}, 404, "No emergency is known by this entry"),
    ],
)
def test_what_is_no_review_is_refused_with_the_reason(
    admin: Client, reviews: Reviewing, form: dict[str, str], status: int, why: str
) -> None:
    answer = admin.post("/console/emergencies/reviews", data=form)
    assert (answer.status_code, why in answer.text) == (status, True)
    assert reviews.asked == []


def test_only_administrators_review_and_only_from_these_pages(anonymous: Client, reviews: Reviewing) -> None:
    form = {"entry": START.hex(), "finding": "fine"}
    anonymous.headers = {"authorization": "Bearer auditor", "accept": "text/html"}
    assert anonymous.post("/console/emergencies/reviews", data=form).status_code == 403
    anonymous.headers = {"cookie": "cairn_session=session-admin", "accept": "text/html", "sec-fetch-site": "cross-site"}
    assert anonymous.post("/console/emergencies/reviews", data=form).status_code == 403
    assert anonymous.get("/console/emergencies/" + "ab" * 32).status_code == 404
    assert anonymous.get("/console/emergencies/reviews").status_code == 405
    assert reviews.asked == []
