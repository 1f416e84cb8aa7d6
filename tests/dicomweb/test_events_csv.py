"""`/ledger/events.csv`: every event of a search, streamed, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io

import pytest
from ledger_in_memory import Ledger
from node_in_memory import STUDY, Client, FakeNode

from dicomweb.ledger_api import events_csv
from ledger.event import Patient
from ledger.export.csv import COLUMNS

PATH = "/ledger/events.csv"


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    made = Ledger().attach(node)
    for number in range(12):
        made.add("study.access", actor=f"=reader{number}", study=STUDY, patient=Patient("P-1"))
    made.add("study.query", actor="ann")
    return made


def rows(client: Client, query: str = "") -> list[dict[str, str]]:
    response = client.get(f"{PATH}{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == events_csv.MEDIA_TYPE
    read = list(csv.DictReader(io.StringIO(response.text, newline=""), strict=True))
    assert not read or list(read[0]) == list(COLUMNS)
    return read


def test_every_event_page_after_page(client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_csv, "_PAGE", 5)
    assert [row["index"] for row in rows(client)] == [str(index) for index in range(12, -1, -1)]


def test_a_search_and_a_limit_narrow_it(client: Client, ledger: Ledger) -> None:
    assert [row["actor"] for row in rows(client, "?type=study.query")] == ["ann"]
    assert [row["index"] for row in rows(client, "?patient=P-1&limit=2")] == ["11", "10"]
    assert rows(client, "?actor=nobody") == []


def test_names_that_are_formulas_are_text(client: Client, ledger: Ledger) -> None:
    assert rows(client, "?patient=P-1&limit=1")[0]["actor"] == "'=reader11"


def test_it_is_recorded_and_for_auditors_alone(anonymous: Client, ledger: Ledger, node: FakeNode) -> None:
    anonymous.headers = {"authorization": "Bearer viewer", "accept": "*/*"}
    assert anonymous.get(PATH).status_code == 403
    anonymous.headers["authorization"] = "Bearer auditor"
    assert anonymous.get(PATH).status_code == 200
    assert ("audited", "auditor", "events.csv") in node.recorded


def test_what_cannot_be_honoured_is_refused(client: Client, ledger: Ledger) -> None:
    assert client.get(f"{PATH}?colour=red").status_code == 400
