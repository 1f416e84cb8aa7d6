"""A patient's access report: complete, printable, safe to open, honest about what it cannot tell."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from ledger_in_memory import ORIGIN, SERIES, Ledger
from node_in_memory import STUDY, Client, FakeNode

from dicomweb import access_report
from dicomweb.access_report import COLUMNS
from ledger.event import Patient

JANE = Patient("P/1 é", "1.2.3", "Doe^Jane")
PATH = "/console/patients/P%2F1%20%C3%A9/report"
AUDITOR = {"authorization": "Bearer auditor", "accept": "text/html"}


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    made = Ledger().attach(node)
    made.add("study.store", {"instance": "1.9", "class": "1.2"}, actor="CT", role="device", study=STUDY, patient=JANE)
    made.add(
        "study.access",
        {"opens": True, "study": STUDY},
        {"items": [["frame", f"{SERIES}.1", "1", 3], ["instance", f"{SERIES}.2", "", 1], ["metadata", "", "", 2]]},
        actor="ann",
        study=STUDY,
        patient=JANE,
    )
    made.add("study.access", {"opens": True}, actor="=bob()", study=STUDY, patient=JANE, purpose="ETREAT")
    made.add("study.access", {"opens": True}, actor="other", study="9.9.9", patient=Patient("P-2"))
    made.add("study.query", {"items": [["study", 1]]}, actor="ann")
    return made


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(client: Client, path: str = PATH) -> str:
    response = client.get(path, headers=AUDITOR)
    assert response.status_code == 200, response.text
    return response.text


def rows(client: Client) -> list[dict[str, str]]:
    response = client.get(f"{PATH}.csv", headers=AUDITOR)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(response.text, newline=""), strict=True))
    assert not read or list(read[0]) == list(COLUMNS)
    return read


def test_it_says_who_saw_what_when_why_and_from_where(client: Client, ledger: Ledger) -> None:
    text = Elements(page(client)).text
    for words in ("P/1 é", "Doe, Jane", "ann", "viewer", "127.0.0.1", STUDY, "treatment (TREAT)", ORIGIN):
        assert words in text, words
    assert "Served: 2 images, 3 frames, headers 2 times." in text
    assert "14 Nov 2023, 22:13:21" in text
    assert ledger.log.leaves[1].hex() in text
    assert "9.9.9" not in text


def test_the_newest_checkpoint_is_in_it(client: Client, ledger: Ledger) -> None:
    note = ledger.log.checkpoint()
    assert note is not None
    assert note.strip() in Elements(page(client)).text


def test_a_break_glass_access_stands_out(client: Client, ledger: Ledger) -> None:
    emphasised = [attributes for tag, attributes in Elements(page(client)).found if tag == "tr" and attributes]
    assert emphasised == [{"class": "emergency"}]


def test_it_needs_nothing_but_itself(client: Client, ledger: Ledger) -> None:
    document = page(client)
    found = Elements(document).found
    assert not [tag for tag, _ in found if tag in ("script", "img", "iframe", "form")]
    assert not [attributes for _, attributes in found if any(name.startswith("on") for name in attributes)]
    assert [attributes["href"] for tag, attributes in found if tag == "link"] == ["data:,"]
    style = re.search(r"<style>(.*?)</style>", document, re.DOTALL)
    assert style is not None
    policy = client.get(PATH, headers=AUDITOR).headers["content-security-policy"]
    assert base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode() in policy
    assert "@page{size:A4" in style.group(1)
    assert "default-src 'none'" in policy


def test_it_tells_what_is_not_in_it(client: Client, ledger: Ledger) -> None:
    text = Elements(page(client)).text
    for words in ("upper bound", "erased", "Searches and refused requests", "not what a person looked at"):
        assert words in text


def test_names_are_text_and_never_markup(client: Client, node: FakeNode) -> None:
    evil = Patient("P-3", "", "<script>alert(1)</script>^X")
    Ledger().attach(node).add("study.access", {"opens": True}, actor="<b>", study=STUDY, patient=evil)
    document = page(client, "/console/patients/P-3/report")
    assert "<script" not in document
    assert "&lt;b&gt;" in document


def test_the_csv_has_a_line_for_each_event_of_the_patient(client: Client, ledger: Ledger) -> None:
    found = rows(client)
    assert [row["what"] for row in found] == ["study.access", "study.access", "study.store"]
    viewing = found[1]
    assert (viewing["who"], viewing["images"], viewing["frames"], viewing["headers"]) == ("ann", "2", "3", "2")
    assert (viewing["began"], viewing["ended"]) == ("2023-11-14T22:13:21.000Z", "2023-11-14T22:13:21.000Z")
    assert viewing["entry"] == ledger.log.leaves[1].hex()
    assert found[0]["who"] == "'=bob()"
    assert found[2]["images"] == ""


def test_sealed_blocks_are_told_apart_from_images(client: Client, ledger: Ledger) -> None:
    items = {"items": [["sealed block", "", "", 12]]}
    ledger.add("study.access", {"opens": True}, items, actor="partner", study=STUDY, patient=JANE, how="gateway")
    assert "Served: 12 sealed blocks, which show nothing without the study's key." in Elements(page(client)).text
    newest = rows(client)[0]
    assert (newest["who"], newest["how"], newest["images"], newest["sealed blocks"]) == (
        "partner",
        "gateway",
        "0",
        "12",
    )


def test_people_of_another_hospital_are_told_as_somebody_there(client: Client, ledger: Ledger) -> None:
    ledger.add("study.access", {}, actor="0a" * 16, role="viewer", study=STUDY, patient=JANE)
    ledger.trail._events = [
        replace(event, hospital="h2") if event.actor.name == "0a" * 16 else event for event in ledger.trail._events
    ]
    text = Elements(page(client)).text
    assert text.count("Somebody at h2") == 2
    assert "0a0a" not in text


def test_of_a_patient_of_whom_nothing_is_known_it_says_so(client: Client, ledger: Ledger) -> None:
    text = Elements(page(client, "/console/patients/nobody/report")).text
    assert "Nobody, as far as the ledger has it." in text
    assert "Nothing is recorded." in text


def test_more_events_than_it_holds_are_said_to_be_missing(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_report, "MOST_EVENTS", 2)
    monkeypatch.setattr(access_report, "_PAGE", 1)
    assert "Only the newest 2 events are in this report" in Elements(page(client)).text
    assert rows(client)[-1]["what"].startswith("only the newest 2")
    monkeypatch.setattr(access_report, "MOST_EVENTS", 3)
    assert "Only the newest" not in Elements(page(client)).text


def test_two_patients_with_one_id_are_pointed_out(client: Client, ledger: Ledger) -> None:
    ledger.add("study.access", {"opens": True}, study="7.7.7", patient=Patient(JANE.id, "9.9"))
    text = Elements(page(client)).text
    assert "More than one patient has this ID" in text


def test_reading_it_is_recorded_without_the_patient(client: Client, ledger: Ledger, node: FakeNode) -> None:
    page(client)
    assert node.recorded == [("audited", "auditor", "access report")]


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("clinician", 403), ("admin", 200), (None, 401)])
def test_it_is_for_auditors_and_administrators(
    anonymous: Client, ledger: Ledger, role: str | None, status: int
) -> None:
    headers = {"accept": "text/html"} | ({"authorization": f"Bearer {role}"} if role else {})
    for path in (PATH, f"{PATH}.csv"):
        response = anonymous.get(path, headers=headers)
        assert response.status_code == status
        assert status == 200 or "Doe" not in response.text
