"""FHIR R4 AuditEvents against the constraints of the IHE BALP 1.1 profiles."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from balp_profiles import CANONICAL, PROFILES, violations
from export_events import DEVICE, EMERGENCY, ERASED, NODE, STUDY, SYSTEM, details_of, event_of
from hypothesis import given
from hypothesis import strategies as st

from ledger.event import Participant, Patient
from ledger.export.fhir import Observer, audit_event, searchset
from ledger.types import ENTRY_TYPES

OBSERVER = Observer("pacs.example.org", "cairn/0001")
TEXT = st.text(st.characters(), max_size=20)


def resource(kind: str, **changes: object) -> dict[str, Any]:
    return audit_event(event_of(kind, **changes), details_of(kind), OBSERVER)


def entity(found: dict[str, Any], code: str) -> dict[str, Any]:
    """The entity of a type."""
    (one,) = [one for one in found["entity"] if one["type"]["code"] == code]
    assert isinstance(one, dict)
    return one


@pytest.mark.parametrize("kind", ENTRY_TYPES)
@pytest.mark.parametrize("actor", [SYSTEM, DEVICE, Participant("user", "Dr Who", "viewer", "192.0.2.7", "http")])
@pytest.mark.parametrize("outcome", [0, 4, 12])
@pytest.mark.parametrize("known", [True, False])
def test_every_event_conforms_to_r4_and_to_the_profile_it_names(
    kind: str, actor: Participant, outcome: int, known: bool
) -> None:
    patient = Patient("P-17", "1.2.3.4", "Doe^Jane") if known and ENTRY_TYPES[kind].study else None
    assert violations(resource(kind, actor=actor, outcome=outcome, patient=patient)) == []


@pytest.mark.parametrize(
    ("kind", "profile"),
    [
        ("study.store", "PatientCreate"),
        ("study.access", "PatientRead"),
        ("study.query", "Query"),
        ("study.delete", "PatientDelete"),
        ("study.erase", "PatientDelete"),
        ("study.export", "PrivacyDisclosure.Source"),
        ("study.import", "PatientCreate"),
        ("auth.fail", None),
        ("app.start", None),
    ],
)
def test_the_profile_is_the_one_of_the_fact(kind: str, profile: str | None) -> None:
    named = resource(kind).get("meta", {}).get("profile", [])
    assert named == ([CANONICAL + profile] if profile else [])


def test_without_a_patient_the_plain_profile_is_named() -> None:
    assert resource("study.store", patient=None)["meta"]["profile"] == [CANONICAL + "Create"]
    assert "meta" not in resource("study.export", patient=None)


def test_a_failure_names_no_profile_and_says_why() -> None:
    failed = resource("access.refused")
    assert "meta" not in failed
    assert (failed["outcome"], failed["outcomeDesc"]) == ("4", "role the role viewer may not store")


@pytest.mark.parametrize("kind", ENTRY_TYPES)
def test_the_leaf_hash_is_the_id_and_an_entity(kind: str) -> None:
    found, leaf = resource(kind), event_of(kind).id.hex()
    assert found["id"] == leaf
    assert entity(found, "4")["what"]["identifier"] == {"system": "urn:cairn:ledger-entry", "value": leaf}


def test_study_patient_agents_and_purpose_are_there() -> None:
    found = resource("study.access")
    assert entity(found, "2")["what"]["identifier"] == {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}
    assert entity(found, "1")["what"]["identifier"] == {"system": "urn:oid:1.2.3.4", "value": "P-17"}
    client, server, user = found["agent"]
    assert client["network"] == {"address": "192.0.2.7", "type": "2"}
    assert server["who"]["identifier"] == {"system": "urn:cairn:node", "value": NODE.hex()}
    assert (user["name"], user["role"], user["requestor"]) == ("Dr Who", [{"text": "viewer"}], True)
    assert user["purposeOfUse"][0]["coding"][0]["code"] == "TREAT"
    assert found["recorded"] == "2023-11-14T22:13:20.123456Z"
    assert [one["code"] for one in found["subtype"]] == ["read", "110103"]


def test_a_break_glass_access_is_marked() -> None:
    found = audit_event(EMERGENCY, (), OBSERVER)
    assert "110127" in [one["code"] for one in found["subtype"]]  # type: ignore[attr-defined]
    assert found["purposeOfEvent"][0]["coding"][0]["code"] == "ETREAT"  # type: ignore[index]


def test_an_erased_study_is_masked_and_names_nobody() -> None:
    found: dict[str, Any] = audit_event(ERASED, (), OBSERVER)
    assert violations(found) == []
    assert found["meta"]["profile"] == [CANONICAL + "Read"]
    assert entity(found, "2")["what"]["extension"][0]["valueCode"] == "masked"
    assert STUDY not in json.dumps(found)


def test_a_query_tells_the_levels_that_were_asked() -> None:
    query = entity(resource("study.query"), "2")["query"]
    assert base64.b64decode(query) == b"study PatientID StudyDate 3 x 2\nseries 0 x 1"


def test_what_has_thousands_of_records_does_not_depend_on_them() -> None:
    event = event_of("study.store")
    assert audit_event(event, (), OBSERVER) == audit_event(event, details_of("study.store"), OBSERVER)


def test_an_issuer_that_is_a_name_becomes_a_uri() -> None:
    found = resource("study.access", patient=Patient("7", "St. Mary", ""))
    assert entity(found, "1")["what"]["identifier"]["system"].startswith("urn:cairn:issuer:")
    assert entity(resource("study.access", patient=Patient("7")), "1")["what"]["identifier"] == {"value": "7"}


@given(name=TEXT, role=TEXT, reason=TEXT, patient=TEXT, kind=st.sampled_from([*ENTRY_TYPES]))
def test_no_text_makes_a_resource_that_is_not_json_or_has_empty_values(
    name: str, role: str, reason: str, patient: str, kind: str
) -> None:
    event = event_of(
        kind,
        actor=Participant("user", name, role, name, "http"),
        reason=reason,
        patient=Patient(patient, role, name) if patient else None,
    )
    found = audit_event(event, details_of(kind), Observer(name, reason))
    assert json.loads(json.dumps(found, ensure_ascii=False).encode()) == found
    assert violations(found) == []


def test_a_searchset_names_each_match_by_its_url() -> None:
    bundle = searchset([resource("study.access")], {"self": "http://node/fhir/AuditEvent?_count=1"}, "http://node/fhir")
    assert bundle["type"] == "searchset"
    assert "total" not in bundle
    (entry,) = bundle["entry"]  # type: ignore[misc]
    assert entry["fullUrl"] == f"http://node/fhir/AuditEvent/{event_of('study.access').id.hex()}"
    assert entry["search"] == {"mode": "match"}
    assert bundle["link"] == [{"relation": "self", "url": "http://node/fhir/AuditEvent?_count=1"}]


def test_a_searchset_without_matches_has_no_empty_array() -> None:
    assert "entry" not in searchset([], {"self": "http://node/fhir/AuditEvent"}, "http://node/fhir")


def _without_network(one: dict[str, Any]) -> None:
    del one["agent"][0]["network"]


def _other_patient_role(one: dict[str, Any]) -> None:
    entity(one, "1")["role"]["code"] = "2"


def _second_data(one: dict[str, Any]) -> None:
    one["entity"].append(entity(one, "2"))


def _other_outcome(one: dict[str, Any]) -> None:
    one["outcome"] = "8"


def _user_on_the_network(one: dict[str, Any]) -> None:
    one["agent"][2]["network"] = {"address": "192.0.2.7", "type": "2"}


def _other_subtype(one: dict[str, Any]) -> None:
    one["subtype"][0]["code"] = "create"


@pytest.mark.parametrize(
    "spoil",
    [_without_network, _other_patient_role, _second_data, _other_outcome, _user_on_the_network, _other_subtype],
)
def test_the_rules_notice_what_breaks_a_profile(spoil: Callable[[dict[str, Any]], None]) -> None:
    spoiled = copy.deepcopy(resource("study.access"))
    spoil(spoiled)
    assert violations(spoiled) != []


def test_the_rules_cover_every_profile_that_a_type_may_name() -> None:
    families = {row.profile for row in ENTRY_TYPES.values()} - {None, "PrivacyDisclosure.Source"}
    assert {f"{CANONICAL}{patient}{name}" for name in families for patient in ("", "Patient")} <= set(PROFILES)
