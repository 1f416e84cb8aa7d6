"""The constraints of the IHE BALP 1.1 profiles and of FHIR R4 AuditEvent as rules, and what checks a resource by them.

Written after the profiles' definitions (FSH): fixed codes, cardinalities, slices by the pattern of `type`, required
value sets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

Resource = dict[str, Any]
DCM = "http://dicom.nema.org/resources/ontology/DCM"
REST = ("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest")
INTERACTION = "http://hl7.org/fhir/restful-interaction"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
ENTITY = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
CANONICAL = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
SOURCES = {(PARTICIPATION, code) for code in ("AUT", "INF", "CST")}
RECIPIENT = {(PARTICIPATION, "IRCP")}
REST_ROLES = {(ROLE, code) for code in ("3", "4", "20")}


@dataclass(frozen=True)
class Slice:
    """Members of `agent` or `entity` whose type is one of `types`: how many, what each must and must not have."""

    types: set[tuple[str, str]]
    least: int
    most: int
    needs: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    roles: set[tuple[str, str]] | None = None
    requestor: bool | None = None


@dataclass(frozen=True)
class Rules:
    """One profile: type, a subtype of which one must be there, action, outcome (None: any), agents, entities."""

    type: tuple[str, str]
    subtypes: set[tuple[str, str]]
    action: str
    outcome: str | None
    agents: dict[str, Slice]
    entities: dict[str, Slice] = field(default_factory=dict)
    least_entities: int = 1
    most_subtypes: int = 10**6


PATIENT = Slice({(ENTITY, "1")}, 1, 1, needs=("what",), roles={(ROLE, "1")})
DATA = Slice({(ENTITY, "2")}, 1, 1, needs=("what",), roles=REST_ROLES)
QUERY = Slice({(ENTITY, "2")}, 1, 1, needs=("query",), forbids=("what", "lifecycle", "detail"), roles={(ROLE, "24")})
_PLAIN = ("role", "altId", "name", "location", "policy", "media", "purposeOfUse")
_BARE = ("lifecycle", "name", "query", "detail")


def _agents(client: tuple[str, str], server: tuple[str, str], user: set[tuple[str, str]]) -> dict[str, Slice]:
    ends = {"needs": ("who", "network"), "forbids": ("media",)}
    return {
        "client": Slice({client}, 1, 1, **ends),  # type: ignore[arg-type]
        "server": Slice({server}, 1, 1, **ends),  # type: ignore[arg-type]
        "user": Slice(user, 0, 1, needs=("who",), forbids=("media", "network"), requestor=True),
    }


_SOURCE, _DESTINATION = (DCM, "110153"), (DCM, "110152")
_DELETE_AGENTS = {
    "client": Slice({(DCM, "110150")}, 1, 1, needs=("who", "network"), forbids=_PLAIN),
    "server": Slice(
        {("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "custodian")},
        1,
        1,
        needs=("who", "network"),
        forbids=_PLAIN,
    ),
    "user": Slice(
        SOURCES,
        0,
        1,
        needs=("who",),
        forbids=("altId", "location", "policy", "media", "network"),
        requestor=True,
    ),
}
_DISCLOSURE = {
    "source": Slice({_SOURCE}, 1, 1, needs=("who", "network")),
    "recipient": Slice({_DESTINATION}, 1, 1, needs=("who", "network")),
}


def _interactions(*codes: str) -> set[tuple[str, str]]:
    return {(INTERACTION, code) for code in codes}


_BASE = {
    "Create": Rules(REST, _interactions("create"), "C", "0", _agents(_SOURCE, _DESTINATION, SOURCES), {"data": DATA}),
    "Read": Rules(
        REST, _interactions("read", "vread"), "R", "0", _agents(_DESTINATION, _SOURCE, RECIPIENT), {"data": DATA}
    ),
    "Update": Rules(
        REST, _interactions("update", "patch"), "U", "0", _agents(_SOURCE, _DESTINATION, SOURCES), {"data": DATA}
    ),
    "Query": Rules(
        REST,
        _interactions("search", "search-type", "search-system"),
        "E",
        "0",
        _agents(_SOURCE, _DESTINATION, RECIPIENT),
        {"query": QUERY},
    ),
    "Delete": Rules(
        REST,
        _interactions("delete"),
        "D",
        "0",
        _DELETE_AGENTS,
        {"data": Slice({(ENTITY, "2")}, 1, 1, needs=("what",), forbids=_BARE, roles=REST_ROLES)},
        most_subtypes=1,
    ),
}


def _with_patient(name: str, rules: Rules) -> Rules:
    patient = PATIENT
    if name == "Delete":
        patient = Slice(PATIENT.types, 1, 1, needs=("what",), forbids=(*_BARE, "securityLabel"), roles=PATIENT.roles)
    return Rules(
        rules.type,
        rules.subtypes,
        rules.action,
        rules.outcome,
        rules.agents,
        {**rules.entities, "patient": patient},
        2,
        rules.most_subtypes,
    )


PROFILES = {
    **{CANONICAL + name: rules for name, rules in _BASE.items()},
    **{f"{CANONICAL}Patient{name}": _with_patient(name, rules) for name, rules in _BASE.items()},
    f"{CANONICAL}PrivacyDisclosure.Source": Rules(
        (DCM, "110106"),
        {("http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle", "disclose")},
        "R",
        None,
        _DISCLOSURE,
        {"patient": PATIENT},
        2,
    ),
}


def violations(resource: Resource) -> list[str]:
    """What R4 and the profiles that the resource names forbid; empty when it conforms."""
    found = _r4(resource)
    for named in resource.get("meta", {}).get("profile", []):
        found += _profile(resource, PROFILES[named])
        if named.endswith("PrivacyDisclosure.Source"):  # invariant val-audit-source
            source = next(one for one in resource["agent"] if _SOURCE in _codes(one["type"]))
            if source["who"] != resource["source"]["observer"]:
                found.append("the source is not who observed")
    return found


def _r4(resource: Resource) -> list[str]:
    found = []
    for name in ("type", "recorded", "agent", "source"):
        if not resource.get(name):
            found.append(f"no {name}")
    if resource["resourceType"] != "AuditEvent" or not re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", resource["id"]):
        found.append("not an AuditEvent with an id")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", resource["recorded"]):
        found.append("recorded is not an instant")
    if resource.get("action") not in (None, *"CRUDE") or resource.get("outcome") not in (None, "0", "4", "8", "12"):
        found.append("action or outcome out of their value sets")
    if not resource["source"].get("observer"):
        found.append("no source.observer")
    return found + _members(resource) + _empty(resource, "")


def _members(resource: Resource) -> list[str]:
    found = []
    for agent in resource["agent"]:
        if not isinstance(agent.get("requestor"), bool):
            found.append("an agent without requestor")
        if agent.get("network", {}).get("type") not in (None, "1", "2", "3", "4", "5"):
            found.append("network.type out of its value set")
    for entity in resource.get("entity", ()):
        if "name" in entity and "query" in entity:  # invariant sev-1
            found.append("an entity with name and query")
        for detail in entity.get("detail", ()):
            if not detail.get("type") or len(set(detail) & {"valueString", "valueBase64Binary"}) != 1:
                found.append("a detail without type or value")
    return found


def _empty(value: Any, path: str) -> list[str]:
    """JSON of FHIR has no empty strings, arrays or objects (R4 2.6.2)."""
    if value in ("", [], {}):
        return [f"{path} is empty"]
    if isinstance(value, dict):
        return [fault for name, one in value.items() for fault in _empty(one, f"{path}.{name}")]
    if isinstance(value, list):
        return [fault for one in value for fault in _empty(one, path)]
    return [f"{path} is null"] if value is None else []


def _profile(resource: Resource, rules: Rules) -> list[str]:
    found = []
    if _code(resource["type"]) != rules.type:
        found.append("another type")
    subtypes = [_code(one) for one in resource.get("subtype", ())]
    if not set(subtypes) & rules.subtypes or len(subtypes) > rules.most_subtypes:
        found.append(f"subtypes {subtypes}")
    if resource["action"] != rules.action:
        found.append("another action")
    if rules.outcome is not None and resource["outcome"] != rules.outcome:
        found.append("another outcome")
    if len(resource["agent"]) < 2 or len(resource["entity"]) < rules.least_entities:
        found.append("too few agents or entities")
    for name, rule in rules.agents.items():
        found += _slice(name, rule, [one for one in resource["agent"] if _codes(one["type"]) & rule.types])
    for name, rule in rules.entities.items():
        found += _slice(name, rule, [one for one in resource["entity"] if {_code(one["type"])} & rule.types])
    for one in resource["entity"]:
        if _code(one["type"]) == (ENTITY, "1") and one["what"].get("type", "Patient") != "Patient":
            found.append("the person is no Patient")
    return found


def _slice(name: str, rule: Slice, members: list[Resource]) -> list[str]:
    found = [] if rule.least <= len(members) <= rule.most else [f"{len(members)} of {name}"]
    for one in members:
        found += [f"{name} lacks {part}" for part in rule.needs if part not in one]
        found += [f"{name} has {part}" for part in rule.forbids if part in one]
        if rule.roles is not None and _code(one.get("role", {})) not in rule.roles:
            found.append(f"{name} has another role")
        if rule.requestor is not None and one["requestor"] is not rule.requestor:
            found.append(f"{name} is not the requestor")
    return found


def _code(coding: Resource) -> tuple[str, str]:
    return coding.get("system", ""), coding.get("code", "")


def _codes(concept: Resource) -> set[tuple[str, str]]:
    return {_code(coding) for coding in concept["coding"]}
