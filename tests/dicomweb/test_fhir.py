"""`/fhir/AuditEvent`: searched and read as FHIR R4 has it, for who may audit; errors are OperationOutcomes."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_in_memory import MADE_US, ORIGIN, Ledger
from node_in_memory import STUDY, Client, FakeNode

from bridge.errors import AccessNotRecordable, RequestError
from dicomweb.fhir_search import parse, span
from ledger.event import Patient
from ledger.types import ENTRY_TYPES
from tests.ledger.export.balp_profiles import PROFILES, violations

ROOT = "/fhir/AuditEvent"
OTHER_STUDY = "1.2.840.99"


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    """Ten entries: three viewings by two people of two patients, a query, a refusal and what a node does by itself."""
    made = Ledger().attach(node)
    jane, joe = Patient("P-1", "1.2.3", "Doe^Jane"), Patient("P-2", "Ward 3", "Bloggs^Joe")
    made.add("app.start", {"version": "1"}, actor="cairn", role="")
    made.add("study.store", {"instance": "1.9"}, actor="CT", role="device", study=STUDY, patient=jane)
    made.add("study.store", {"instance": "1.8"}, actor="CT", role="device", study=OTHER_STUDY, patient=joe)
    made.add("study.access", {"opens": True}, actor="ann", study=STUDY, patient=jane)
    made.add("study.access", {"opens": True}, actor="bob", role="clinician", study=STUDY, patient=jane)
    made.add("study.access", {"opens": True}, actor="ann", study=OTHER_STUDY, patient=joe)
    made.add("study.query", {"items": [["study", 2]]}, actor="ann")
    made.add("access.refused", {"items": [["role viewer may not store", 1]]}, actor="ann", outcome=4)
    made.add("study.delete", {"why": "test"}, actor="root", role="admin", study=OTHER_STUDY, patient=joe)
    made.add("audit.view", {"items": [["entries", 1]]}, actor="eve", role="auditor")
    return made


def bundle(client: Client, query: str = "") -> dict[str, Any]:
    response = client.get(f"{ROOT}?{query}")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/fhir+json"
    document = response.json()
    assert (document["resourceType"], document["type"]) == ("Bundle", "searchset")
    assert isinstance(document, dict)
    return document


def indices(client: Client, query: str = "") -> list[int]:
    return [index_of(entry["resource"]) for entry in bundle(client, query).get("entry", [])]


def index_of(resource: dict[str, Any]) -> int:
    return int(next(d["valueString"] for e in resource["entity"] for d in e.get("detail", ()) if d["type"] == "index"))


def test_all_events_newest_first_each_conforming(client: Client, ledger: Ledger) -> None:
    found = bundle(client)
    resources = [entry["resource"] for entry in found["entry"]]
    assert [index_of(one) for one in resources] == list(range(9, -1, -1))
    for entry, one in zip(found["entry"], resources, strict=True):
        assert violations(one) == []
        assert entry["fullUrl"] == f"http://127.0.0.1:8042{ROOT}/{one['id']}"
    assert {name for one in resources for name in one.get("meta", {}).get("profile", [])} <= set(PROFILES)
    assert resources[0]["source"]["site"] == ORIGIN


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("patient=P-1", [4, 3, 1]),
        ("patient=Patient/P-1", [4, 3, 1]),
        ("patient.identifier=P-2", [8, 5, 2]),
        ("patient:identifier=urn:oid:1.2.3|P-1", [4, 3, 1]),
        ("patient.identifier=urn:oid:9.9.9|P-1", []),
        ("agent=ann", [7, 6, 5, 3]),
        ("agent=ann,bob&patient=P-1", [4, 3]),
        ("agent-name:exact=CT", [2, 1]),
        ("agent-role=clinician", [4]),
        (f"entity={STUDY}", [4, 3, 1]),
        (f"entity=urn:oid:{OTHER_STUDY}", [8, 5, 2]),
        (f"entity.identifier=urn:dicom:uid|urn:oid:{OTHER_STUDY}&action=R", [5]),
        (f"entity=ImagingStudy/{STUDY},{OTHER_STUDY}&action=C", [2, 1]),
        ("action=R", [9, 5, 4, 3]),
        ("action=D,C", [8, 2, 1]),
        ("outcome=4", [7]),
        ("outcome=http://terminology.hl7.org/CodeSystem/audit-event-outcome|4", [7]),
        ("type=rest", [8, 6, 5, 4, 3, 2, 1]),
        ("type=110113", [7]),
        ("type=http://dicom.nema.org/resources/ontology/DCM|110100", [0]),
        ("type=rest&action=E", [6]),
        ("type=110113&action=D", []),
        ("agent=nobody", []),
        ("_sort=-date&_format=json&agent=bob", [4]),
    ],
)
def test_searches(client: Client, ledger: Ledger, query: str, expected: list[int]) -> None:
    assert indices(client, query) == expected


T = "2023-11-14T22:13:2"  # entry n is made n seconds after 22:13:20


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"date={T}3Z", [3]),
        (f"date=eq{T}3", [3]),
        (f"date=ge{T}7Z", [9, 8, 7]),
        (f"date=gt{T}7Z", [9, 8]),
        (f"date=le{T}1Z", [1, 0]),
        (f"date=lt{T}1Z", [0]),
        (f"date=sa{T}7Z", [9, 8]),
        (f"date=eb{T}1Z", [0]),
        (f"date=ge{T}2Z&date=lt{T}5Z", [4, 3, 2]),
        ("date=2023-11-14", list(range(9, -1, -1))),
        ("date=2023-11", list(range(9, -1, -1))),
        ("date=2023", list(range(9, -1, -1))),
        ("date=gt2023-11-14", []),
        ("date=lt2023-11-14T22:13", []),
        ("date=ge2023-11-14T23:13:27%2B01:00", [9, 8, 7]),
        (f"date=gt{T}5Z&date=lt{T}5Z", []),
        (f"date={T}3.000Z", [3]),
        (f"date={T}3.5Z", []),
    ],
)
def test_dates_are_spans_as_wide_as_they_are_precise(
    client: Client, ledger: Ledger, query: str, expected: list[int]
) -> None:
    assert indices(client, query) == expected


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024", "1704067200", "1735689600"),
        ("2024-02", "1706745600", "1709251200"),
        ("2024-12-31", "1735603200", "1735689600"),
        ("2024-01-01T00:00", "1704067200", "1704067260"),
        ("2024-01-01T00:00:59-00:30", "1704069059", "1704069060"),
    ],
)
def test_a_date_covers(text: str, start: str, end: str) -> None:
    assert span(text) == ("eq", int(start) * 1_000_000, int(end) * 1_000_000)


def test_pages_link_to_the_next_until_there_is_none(client: Client, ledger: Ledger) -> None:
    url, seen = f"{ROOT}?_count=2&agent=ann", []
    while url:
        page = client.get(url).json()
        seen += [index_of(entry["resource"]) for entry in page["entry"]]
        links = {link["relation"]: link["url"] for link in page["link"]}
        assert links["self"].endswith(url.partition("?")[2])
        url = links.get("next", "")
    assert seen == [7, 6, 5, 3]


def test_one_is_read_by_its_entry_s_leaf_hash(client: Client, ledger: Ledger) -> None:
    leaf = ledger.log.leaves[6].hex()
    response = client.get(f"{ROOT}/{leaf}")
    assert response.status_code == 200
    assert response.json()["id"] == leaf
    assert response.json() == bundle(client, "type=rest&action=E")["entry"][0]["resource"]


@pytest.mark.parametrize(
    "query",
    [
        "date=yesterday",
        "date=2023-13-01",
        "date=ne2023",
        "action=X",
        "outcome=1",
        "_count=0",
        "_count=many",
        "_cursor=-1",
        "_sort=date",
        "entity=../etc",
        "patient=",
        "patient=P-1&patient=P-2",
        "patient=P-1&patient.identifier=P-2",
        "patients=P-1",
        "_include=AuditEvent:patient",
        "_format=xml",
    ],
)
def test_what_cannot_be_honoured_is_refused(client: Client, ledger: Ledger, node: FakeNode, query: str) -> None:
    response = client.get(f"{ROOT}?{query}")
    assert response.status_code == (406 if "_format" in query else 400)
    assert response.headers["content-type"] == "application/fhir+json"
    outcome = response.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["severity"] == "error"
    assert outcome["issue"][0]["code"] in ("invalid", "not-supported")
    assert node.recorded == []


def test_values_are_not_repeated_in_a_refusal(client: Client, ledger: Ledger) -> None:
    assert "Bloggs" not in client.get(f"{ROOT}?Bloggs^Joe=1&date=Bloggs").text


@pytest.mark.parametrize("path", [f"{ROOT}/{'0' * 64}", f"{ROOT}/nothing", "/fhir/Patient", "/fhir/", "/fhir"])
def test_what_is_not_there_is_a_404_operation_outcome(client: Client, ledger: Ledger, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["resourceType"]) == (404, "OperationOutcome")
    assert response.json()["issue"][0]["code"] == "not-found"


def test_a_record_s_leaf_is_not_an_audit_event(client: Client, ledger: Ledger) -> None:
    record = next(iter(ledger.log.records))
    assert client.get(f"{ROOT}/{record.hex()}").status_code == 404


@pytest.mark.parametrize(("role", "status"), [("auditor", 200), ("admin", 200), ("viewer", 403), ("clinician", 403)])
def test_only_who_may_audit_reads(anonymous: Client, ledger: Ledger, node: FakeNode, role: str, status: int) -> None:
    anonymous.headers = {"authorization": f"Bearer {role}", "accept": "application/fhir+json"}
    for path in (ROOT, f"{ROOT}/{ledger.log.leaves[0].hex()}"):
        node.recorded.clear()
        response = anonymous.get(path)
        assert response.status_code == status
        assert node.recorded[0][:2] == (("audited" if status == 200 else "refused"), role)
    assert anonymous.get("/fhir/metadata").status_code == 200


def test_without_a_credential_nothing_is_told(anonymous: Client, ledger: Ledger) -> None:
    for path in (ROOT, f"{ROOT}/{'0' * 64}", "/fhir/metadata", "/fhir/Patient"):
        response = anonymous.get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.json()["issue"][0]["code"] == "login"


def test_if_the_reading_cannot_be_recorded_nothing_is_served(
    client: Client, ledger: Ledger, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise AccessNotRecordable("the disk is full")

    monkeypatch.setattr(node, "audited", full)
    response = client.get(ROOT)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["issue"][0]["code"] == "transient"


def test_the_media_type_follows_accept(client: Client, ledger: Ledger) -> None:
    assert client.get(ROOT, headers={"accept": "application/json"}).headers["content-type"] == "application/json"
    assert (
        client.get(ROOT, headers={"accept": "text/html,*/*;q=0.8"}).headers["content-type"] == "application/fhir+json"
    )
    assert client.get(ROOT, headers={"accept": "application/fhir+xml"}).status_code == 406


def test_the_capability_statement_lists_every_search_parameter(client: Client, ledger: Ledger) -> None:
    statement = client.get("/fhir/metadata").json()
    assert (statement["resourceType"], statement["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    (resource,) = statement["rest"][0]["resource"]
    assert resource["type"] == "AuditEvent"
    for parameter in resource["searchParam"]:
        if parameter["name"] != "date":
            with_value = {"action": "R", "outcome": "0", "entity": STUDY, "type": "rest"}.get(parameter["name"], "x")
            parse([(parameter["name"], with_value)])
    assert set(resource["supportedProfile"]) == set(PROFILES)


def test_head_answers_as_get_without_a_body(client: Client, ledger: Ledger) -> None:
    response = client.head(ROOT)
    assert response.status_code == 200
    assert response.content == b""


def test_types_that_exclude_each_other_match_nothing_and_never_everything() -> None:
    asked = parse([("type", "no-such-type")])
    assert asked.empty
    assert not parse([("action", "R")]).empty
    with pytest.raises(RequestError):
        parse([("action", "r")])
    assert MADE_US == 1_700_000_000_000_000
    assert set(parse([("action", "C,R,U,D,E")]).query().types) == set(ENTRY_TYPES)
