"""Events as FHIR R4 AuditEvent resources after IHE Basic Audit Log Patterns (BALP) 1.1.

A resource names the BALP profile that it meets in `meta.profile`, and none where BALP has none: its profiles are of
successes. Its id is the entry's leaf hash in hex, and an entity of type 4 ("Other") in the role of a security resource
names the ledger entry by that hash, so that whoever holds the resource can ask for the proof of just this entry.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final

from ledger.event import OUTCOMES, Detail, Event
from ledger.export.atna import clean, date_time
from ledger.export.content import Content, content
from ledger.sentence import profile, sentence, type_code
from ledger.types import ENTRY_TYPES, EVENT_NAMES, PURPOSES, TYPE_NAMES, Profile

Json = dict[str, object]
CANONICAL: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/"
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
REST: Final = "http://terminology.hl7.org/CodeSystem/audit-event-type"
INTERACTION: Final = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE: Final = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
ENTITY_TYPE: Final = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
OBJECT_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
PROVENANCE: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
ABSENT: Final = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
ENTRY: Final = "urn:cairn:ledger-entry"
NODE: Final = "urn:cairn:node"
UNDETAILED: Final = frozenset({"study.store", "study.access", "study.import"})
"""Types whose resource is made of the event alone: they may have thousands of records, and need none of them here."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What one family of BALP profiles fixes: subtype, and the types of the agents client, server and user."""

    interaction: str
    client: tuple[str, str, str]
    server: tuple[str, str, str]
    user: str


_SOURCE_ROLE: Final = (DCM, "110153", "Source Role ID")
_DESTINATION_ROLE: Final = (DCM, "110152", "Destination Role ID")
_PATTERNS: Final[Mapping[Profile | None, _Pattern]] = MappingProxyType(
    {
        "Create": _Pattern("create", _SOURCE_ROLE, _DESTINATION_ROLE, "AUT"),
        "Read": _Pattern("read", _DESTINATION_ROLE, _SOURCE_ROLE, "IRCP"),
        "Update": _Pattern("update", _SOURCE_ROLE, _DESTINATION_ROLE, "AUT"),
        "Delete": _Pattern("delete", (DCM, "110150", "Application"), (PROVENANCE, "custodian", "Custodian"), "CST"),
        "Query": _Pattern("search", _SOURCE_ROLE, _DESTINATION_ROLE, "IRCP"),
        "PrivacyDisclosure.Source": _Pattern("", _DESTINATION_ROLE, _SOURCE_ROLE, "IRCP"),
        None: _Pattern("", _SOURCE_ROLE, _DESTINATION_ROLE, "AUT"),
    }
)
_USERS: Final = MappingProxyType({"AUT": "author (originator)", "IRCP": "information recipient", "CST": "custodian"})


@dataclass(frozen=True, slots=True)
class Observer:
    """The node that reports: its host name, the log's name (the checkpoints' origin), its hospital in a consortium."""

    host: str
    log: str = ""
    hospital: str = ""

    def of(self, event: Event) -> Observer:
        """Who observed an event: another hospital's node knows its own, and is known here by its name alone."""
        return self if event.hospital in ("", self.hospital) else Observer(event.hospital, self.log, event.hospital)


def audit_event(event: Event, details: Sequence[Detail], observer: Observer) -> Json:
    """The event as an AuditEvent resource.

    Parameters
    ----------
    event
        An event of any type of `ledger.types`.
    details
        Its records; not read for the types of `UNDETAILED`, so that the resource does not depend on who makes it.
    observer
        The node that reports.
    """
    row, named, observer = ENTRY_TYPES[event.type], profile(event), observer.of(event)
    site = event.hospital or observer.log
    told = content(event.type, () if event.type in UNDETAILED else details)
    pattern = _PATTERNS[row.profile]
    resource: Json = {"resourceType": "AuditEvent", "id": event.id.hex()}
    if named is not None:
        resource["meta"] = {"profile": [CANONICAL + named]}
    resource["type"], resource["subtype"] = _types(
        event, row.profile, pattern, type_code(event, told.facts.get("rule"))
    )
    resource["action"] = action_of(event.type)
    resource["recorded"] = date_time(event.time_us)
    resource["outcome"] = str(event.outcome)
    if event.outcome:
        resource["outcomeDesc"] = clean("; ".join(told.asked) or OUTCOMES[event.outcome])
    if event.purpose:
        resource["purposeOfEvent"] = [_purpose(event.purpose)]
    resource["agent"] = _agents(event, row.profile, pattern, told, observer)
    resource["source"] = {
        **({"site": clean(site)} if site else {}),
        "observer": _node(event, observer),
        "type": [_coding(SOURCE_TYPE, "4", "Application Server")],
    }
    resource["entity"] = _entities(event, row.profile, told)
    if not resource["subtype"]:
        del resource["subtype"]
    return resource


def action_of(kind: str) -> str:
    """AuditEvent.action of a type: its own where BALP has a profile, else that of the DICOM audit message."""
    row = ENTRY_TYPES[kind]
    return row.action if row.profile is not None else row.message_action


def searchset(resources: Sequence[Json], links: Mapping[str, str], base: str) -> Json:
    """A Bundle of matches (FHIR R4 3.1.1): `links` by relation, `base` the absolute URL of the FHIR root."""
    bundle: Json = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": relation, "url": url} for relation, url in links.items()],
    }
    if resources:  # JSON of FHIR has no empty arrays (R4 2.6.2)
        bundle["entry"] = [
            {"fullUrl": f"{base}/AuditEvent/{one['id']}", "resource": one, "search": {"mode": "match"}}
            for one in resources
        ]
    return bundle


def _types(event: Event, family: Profile | None, pattern: _Pattern, code: int | None) -> tuple[Json, list[Json]]:
    """type and subtype: RESTful operations as BALP has them, with DICOM's code beside; all else by DICOM's codes."""
    dicom = _coding(DCM, str(ENTRY_TYPES[event.type].event), EVENT_NAMES[ENTRY_TYPES[event.type].event])
    special = [_coding(DCM, str(code), TYPE_NAMES[code])] if code is not None else []
    if family is None:
        return dicom, special
    if family == "PrivacyDisclosure.Source":
        return dicom, [_coding(LIFECYCLE, "disclose", "Disclose Record Lifecycle Event"), *special]
    rest = _coding(REST, "rest", "RESTful Operation")
    interaction = _coding(INTERACTION, pattern.interaction, pattern.interaction)
    # The profiles of Delete allow no second subtype; all others are open.
    return rest, [interaction] if family == "Delete" else [interaction, dicom, *special]


def _agents(event: Event, family: Profile | None, pattern: _Pattern, told: Content, observer: Observer) -> list[Json]:
    """client, server and, where a person or token acted, user; of a disclosure recipient, source and who asked."""
    actor = event.actor
    is_user = actor.kind == "user"
    # A command is given on the node's own machine.
    address = actor.address or observer.host or "unknown"
    name = clean(actor.name) or "unknown"
    client: Json = {"type": _concept(*pattern.client)}
    if family == "PrivacyDisclosure.Source":
        target = clean(told.facts.get("target") or told.facts.get("path") or "a file or medium")
        client |= {"who": {"display": target}, "requestor": False, "network": _network(target, "5")}
    else:
        who: Json = {"display": clean(address)} if is_user else {"type": "Device", "display": name}
        client |= {"who": who, "requestor": not is_user, "network": _network(address)}
    server: Json = {
        "type": _concept(*pattern.server),
        "who": _node(event, observer),
        "requestor": False,
        "network": _network(observer.host),
    }
    if not is_user and family != "PrivacyDisclosure.Source":
        return [client, server]
    user: Json = {
        "type": _concept(PARTICIPATION, pattern.user, _USERS[pattern.user]),
        **({"role": [{"text": clean(actor.role)}]} if actor.role else {}),
        "who": {"identifier": {"system": f"{NODE}:{event.node.hex()}:actor", "value": name}, "display": name},
        "name": name,
        "requestor": True,
        **({"purposeOfUse": [_purpose(event.purpose)]} if event.purpose else {}),
    }
    return [client, server, user]


def _entities(event: Event, family: Profile | None, told: Content) -> list[Json]:
    found: list[Json] = []
    if family == "Query":
        found.append(_query(told))
    elif ENTRY_TYPES[event.type].study:
        found.append(_data(_study(event), "3", "Report"))
    elif family is None:
        found.append(_subject(event, told))
    if event.patient is not None:
        found.append(_patient(event))
    found.append(_entry(event))
    return found


def _data(what: Json, role: str, meaning: str) -> Json:
    return {
        "what": what,
        "type": _coding(ENTITY_TYPE, "2", "System Object"),
        "role": _coding(OBJECT_ROLE, role, meaning),
    }


def _study(event: Event) -> Json:
    """The study by its UID as an OID; once its keys are gone, only that there was one."""
    if event.study is None:
        return {"extension": [{"url": ABSENT, "valueCode": "masked"}], "type": "ImagingStudy", "display": "erased"}
    return {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{clean(event.study)}"}}


def _query(told: Content) -> Json:
    """What was asked as far as it is recorded: the levels, never the keys, since these name patients."""
    asked = "\n".join(f"{what} x {count}" for what, count in told.asked.items()) or "not told"
    return {
        "type": _coding(ENTITY_TYPE, "2", "System Object"),
        "role": _coding(OBJECT_ROLE, "24", "Query"),
        "query": base64.b64encode(asked.encode("utf-8", "replace")).decode(),
    }


def _subject(event: Event, told: Content) -> Json:
    """What an event without a profile was about: the node, with what the records state of it."""
    stated = [{"type": clean(name), "valueString": clean(value)} for name, value in sorted(told.facts.items()) if value]
    asked = [{"type": "asked", "valueString": clean(what)} for what in told.asked if what]
    return {
        **_data({"type": "Device", "identifier": _identifier(NODE, event.node.hex())}, "13", "Security Resource"),
        "description": clean(sentence(event)),
        **({"detail": [*stated, *asked]} if stated or asked else {}),
    }


def _patient(event: Event) -> Json:
    """A logical reference to the patient (FHIR R4 2.3.0.1): this node keeps no Patient resources."""
    patient = event.patient
    if patient is None:
        raise ValueError("the event has no patient")
    what: Json = {"type": "Patient", "identifier": _identifier(clean(patient.issuer), clean(patient.id))}
    if patient.name and ENTRY_TYPES[event.type].profile != "Delete":
        what["display"] = clean(patient.name)
    return {
        "what": what,
        "type": _coding(ENTITY_TYPE, "1", "Person"),
        "role": _coding(OBJECT_ROLE, "1", "Patient"),
    }


def _entry(event: Event) -> Json:
    """The ledger entry; of a type that no BALP slice claims ("Other"), so that it never counts as the data."""
    return {
        "what": {"identifier": _identifier(ENTRY, event.id.hex())},
        "type": _coding(ENTITY_TYPE, "4", "Other"),
        "role": _coding(OBJECT_ROLE, "13", "Security Resource"),
        "name": "Ledger entry",
        "description": clean(sentence(event)),
        "detail": [
            {"type": "entry type", "valueString": event.type},
            {"type": "index", "valueString": str(event.place)},
            {"type": "sequence", "valueString": str(event.sequence)},
            {"type": "records", "valueString": str(event.records)},
            *([{"type": "hospital", "valueString": clean(event.hospital)}] if event.hospital else []),
            *([{"type": "block time", "valueString": date_time(final)}] if (final := event.block_time_us) else []),
        ],
    }


def _node(event: Event, observer: Observer) -> Json:
    return {
        "type": "Device",
        "identifier": _identifier(NODE, event.node.hex()),
        **({"display": clean(observer.host)} if observer.host else {}),
    }


def _network(address: str, kind: str | None = None) -> Json:
    """agent.network; type 2 for an IP address, 1 for a name (http://hl7.org/fhir/network-type)."""
    if kind is None:
        try:
            address, kind = str(ip_address(address)), "2"
        except ValueError:
            kind = "1"
    return {"address": clean(address) or "unknown", "type": kind}


def _purpose(code: str) -> Json:
    """A purpose of use; our words for it stand as text, since `display` is the terminology's own."""
    return {"coding": [{"system": ACT_REASON, "code": clean(code)}], "text": PURPOSES.get(code, clean(code))}


def _identifier(system: str, value: str) -> Json:
    return {"value": value} if not system else {"system": identifier_system(system), "value": value}


def identifier_system(issuer: str) -> str:
    """An identifier's system as a URI (FHIR R4 2.24.0.5): an OID by its URN, a name of DICOM's as one of our own."""
    if not issuer or issuer.startswith(("urn:", "http:", "https:")):
        return issuer
    if issuer.replace(".", "").isdigit():
        return f"urn:oid:{issuer}"
    return f"urn:cairn:issuer:{base64.urlsafe_b64encode(issuer.encode('utf-8', 'replace')).decode().rstrip('=')}"


def _concept(system: str, code: str, display: str) -> Json:
    return {"coding": [_coding(system, code, display)]}


def _coding(system: str, code: str, display: str) -> Json:
    return {"system": system, "code": code, "display": display}
