"""Exports of a shared log tell whose event it is, and pass another member's off as nobody else's."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from xml.etree import ElementTree

from ledger.export import csv as events_csv
from ledger.export.atna import Source, audit_message
from ledger.export.fhir import Observer, audit_event
from tests.ledger.export.export_events import T0, event_of

SOUTH = replace(
    event_of("study.access"),
    index=141,
    first=100,
    hospital="south",
    block_time_us=T0 + 1_000_000,
    study=None,
    patient=None,
)


def test_csv_has_the_hospital_the_place_in_its_log_and_the_time_of_the_block() -> None:
    header, row = csv.reader(io.StringIO("".join(events_csv.lines([SOUTH]))))
    told = dict(zip(header, row, strict=True))
    assert (told["hospital"], told["index"], told["log index"]) == ("south", "141", "41")
    assert told["block time"] == "2023-11-14T22:13:21.123456Z"
    _, alone = csv.reader(io.StringIO("".join(events_csv.lines([event_of("study.access")]))))
    assert alone[-3:] == ["", "41", ""]


def test_fhir_names_the_hospital_as_the_site_and_not_this_host_for_anothers_event() -> None:
    observer = Observer("pacs.north.example", "cairn/shared", "north")
    found = json.loads(json.dumps(audit_event(SOUTH, (), observer)))
    assert found["source"]["site"] == "south"
    assert "pacs.north.example" not in json.dumps(found)
    assert {"type": "hospital", "valueString": "south"} in found["entity"][-1]["detail"]
    own = audit_event(replace(SOUTH, hospital="north"), (), observer)
    assert "pacs.north.example" in json.dumps(own)
    alone = json.dumps(audit_event(event_of("study.access"), (), Observer("host", "cairn/0001")))
    assert "cairn/0001" in alone and "hospital" not in alone


def test_atna_names_the_hospital_as_the_enterprise_site() -> None:
    message = ElementTree.fromstring(audit_message(SOUTH, (), Source("host", log="cairn/shared")))
    source = message.find("AuditSourceIdentification")
    assert source is not None and source.get("AuditEnterpriseSiteID") == "south"
