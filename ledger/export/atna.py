"""Events as DICOM audit messages (PS3.15 A.5) in syslog messages (RFC 5424), as PS3.15 A.6 and IHE ITI-20 send them.

A message is a function of its event alone, so what is sent twice is the same bytes twice and can be told apart from
two events. Every message names the ledger entry that it tells of: the entry's leaf hash, node and sequence stand as
ParticipantObjectDetail of its first participant object (an event without one has the audit log itself as its object),
so that whoever reads the repository can ask the node for the proof.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final, Literal, NamedTuple
from unicodedata import category
from xml.etree import ElementTree

from ledger.event import OUTCOMES, Detail, Event
from ledger.export.content import Content, content
from ledger.sentence import sentence, type_code
from ledger.types import ENTRY_TYPES, EVENT_NAMES, TYPE_NAMES

SECURITY: Final = 10  # facility of authorization messages (RFC 5424 6.2.1), which PS3.15 A.6 asks for
NOTICE, WARNING = 5, 4  # severities: normal but significant; an event that failed
MSGID: Final = "DICOM+RFC3881"
APP_NAME: Final = "cairn"
BOM: Final = b"\xef\xbb\xbf"  # RFC 5424 6.4: MSG-UTF8 begins with it
LARGEST: Final = 32768  # octets that every receiver must take (PS3.15 A.6)

_APPLICATION, _LAUNCHER, _DESTINATION, _SOURCE, _TO_MEDIUM, _FROM_MEDIUM = range(110150, 110156)
_ROLES: Final = MappingProxyType(
    {
        _APPLICATION: "Application",
        _LAUNCHER: "Application Launcher",
        _DESTINATION: "Destination Role ID",
        _SOURCE: "Source Role ID",
        _TO_MEDIUM: "Destination Media",
        _FROM_MEDIUM: "Source Media",
    }
)
"""Code meanings of PS3.16 CID 402 "Audit Active Participant Role ID Code"."""


@dataclass(frozen=True, slots=True)
class Source:
    """The node that reports: its host name, its AE title, and the log's name (the checkpoints' origin).

    It reports its own events alone; `node` is its id where the log has those of other members, too.
    """

    host: str
    ae_title: str = ""
    log: str = ""
    node: bytes | None = None


class _Form(NamedTuple):
    """What a table of PS3.15 A.5.3 asks of one event ID.

    `actor` and `node` are the role IDs of who acted and of this node; 0 for a participant without a role ID that the
    table fixes, None for none at all. `medium` is the role of a medium or file. `requests` says whether the actor is
    the requestor.
    """

    actor: int
    node: int | None
    objects: Literal["study", "query", "log", "alert", "none"]
    medium: int | None = None
    requests: bool = True


_FORMS: Final = MappingProxyType(
    {
        110100: _Form(_LAUNCHER, _APPLICATION, "none"),  # A.5.3.1
        110101: _Form(0, None, "log"),  # A.5.3.2
        110103: _Form(0, None, "study"),  # A.5.3.6
        110104: _Form(_SOURCE, _DESTINATION, "study"),  # A.5.3.7
        110105: _Form(0, None, "study"),  # A.5.3.8
        110106: _Form(_SOURCE, None, "study", medium=_TO_MEDIUM),  # A.5.3.4
        110107: _Form(_DESTINATION, None, "study", medium=_FROM_MEDIUM),  # A.5.3.5
        110112: _Form(_SOURCE, _DESTINATION, "query"),  # A.5.3.10
        110113: _Form(0, 0, "alert", requests=False),  # A.5.3.11: the node reports, the actor performed
        110114: _Form(0, 0, "none"),  # A.5.3.12
    }
)
_LIFE_CYCLES: Final = MappingProxyType(
    {
        "study.store": "1",
        "study.import": "2",
        "study.access": "6",
        "study.export": "10",
        "archive.export": "10",
        "study.delete": "14",
        "study.erase": "15",
    }
)
"""ParticipantObjectDataLifeCycle of the study (PS3.15 A.5.1.2.3)."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode categories
_JOINERS: Final = frozenset("\u200c\u200d")  # of category Cf, and letters' own in Persian and Indic names
_LONGEST, _MOST_FACTS, _MOST_CLASSES = 512, 16, 100  # octets of a value, and counts: a message stays below LARGEST


def audit_message(event: Event, details: Sequence[Detail], source: Source) -> bytes:
    """The event in the XML of PS3.15 A.5.1, UTF-8 with its declaration.

    Parameters
    ----------
    event
        An event of any type of `ledger.types`.
    details
        Its records, as far as they can be opened; none is allowed, and then nothing is said of instances.
    source
        The node that sends the message.
    """
    row, form = ENTRY_TYPES[event.type], _FORMS[ENTRY_TYPES[event.type].event]
    told = content(event.type, details)
    root = ElementTree.Element("AuditMessage")
    identification = _element(
        root,
        "EventIdentification",
        EventActionCode=_stored(told) if event.type == "study.store" else row.message_action,
        EventDateTime=date_time(event.time_us),
        EventOutcomeIndicator=str(event.outcome),
    )
    _coded(identification, "EventID", row.event, EVENT_NAMES[row.event])
    code = type_code(event, told.facts.get("rule"))
    if code is not None:
        _coded(identification, "EventTypeCode", code, TYPE_NAMES[code])
    if event.outcome:
        why = "; ".join(told.asked)[:_LONGEST] if event.type in ("auth.fail", "access.refused") else ""
        _element(identification, "EventOutcomeDescription").text = clean(why or OUTCOMES[event.outcome])
    _participants(root, event, form, told, source)
    name = event.hospital or source.log
    site = {"AuditEnterpriseSiteID": clean(name)} if name else {}
    reporter = _element(root, "AuditSourceIdentification", **site, AuditSourceID=event.node.hex())
    _element(reporter, "AuditSourceTypeCode", **{"csd-code": "4"})  # application server process
    _objects(root, event, form, told)
    encoded: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    return b'<?xml version="1.0" encoding="UTF-8"?>' + encoded


def _stored(told: Content) -> str:
    """EventActionCode of A.5.3.7: R when all was held already, U when held copies were mended, else C."""
    if not told.received or set(told.received) - {"again", "healed"}:
        return "C"
    return "U" if told.received["healed"] else "R"


def syslog_message(event: Event, message: bytes, source: Source) -> bytes:
    """The audit message as SYSLOG-MSG (RFC 5424 section 6): header, no structured data, BOM, UTF-8."""
    priority = SECURITY * 8 + (WARNING if event.outcome else NOTICE)
    host = re.sub(r"[^!-~]", "?", source.host)[:255] or "-"  # PRINTUSASCII (RFC 5424 6), "-" when it is not known
    header = f"<{priority}>1 {date_time(event.time_us)} {host} {APP_NAME} - {MSGID} - "
    return header.encode("ascii") + BOM + message


def framed(message: bytes) -> bytes:
    """A syslog message as SYSLOG-FRAME: its length in octets before it (RFC 5425 section 4.3)."""
    return b"%d %b" % (len(message), message)


def date_time(time_us: int) -> str:
    """Microseconds since the epoch as xsd:dateTime and as RFC 5424 TIMESTAMP, in UTC; at most the end of year 9999."""
    moment = _EPOCH + timedelta(microseconds=min(time_us, _LAST_US))
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """The text with U+FFFD for whatever XML 1.0 section 2.2 does not have, and for every other control character.

    Nothing that a sender chose can then break a line, hide itself or end the message early. Format characters (Unicode
    Cf, such as those that turn the direction of writing) and line separators count as control characters here.
    """
    if text.isprintable():  # as nearly all texts are: then none of these is in it
        return text
    return "".join("\ufffd" if _is_control(character) else character for character in text)


def _is_control(character: str) -> bool:
    """Whether it is a control or format character, half of a surrogate pair, or a noncharacter (Unicode 23.7)."""
    if category(character) in _CONTROLS:
        return character not in _JOINERS
    return ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF


def _participants(root: ElementTree.Element, event: Event, form: _Form, told: Content, source: Source) -> None:
    """ActiveParticipant elements: who acted, this node, and the medium; for an alert the node, which reports, first."""
    acted = _participant(event.actor.name or "unknown", requestor=form.requests)
    if event.actor.how == "dimse":
        acted.set("AlternativeUserID", clean(f"AETITLE={event.actor.name}"))
    elif event.actor.name:
        acted.set("UserName", clean(event.actor.name))
    # A.5.3.12 asks for the network access point of who tries to log in; a command is given on the node's own machine.
    _network(acted, event.actor.address or source.host)
    _role(acted, form.actor)
    if event.actor.role:
        role = clean(event.actor.role)
        _element(acted, "RoleIDCode", **{"csd-code": role, "codeSystemName": "Cairn", "originalText": role})
    found = [acted]
    if form.node is not None:
        node = _participant(event.node.hex(), requestor=False)
        if source.ae_title:
            node.set("AlternativeUserID", clean(f"AETITLE={source.ae_title}"))
        _network(node, source.host)
        _role(node, form.node)
        found.insert(0 if form.objects == "alert" else 1, node)
    if form.medium is not None:
        medium = _participant(told.facts.get("target") or told.facts.get("path") or "file", requestor=False)
        _role(medium, form.medium)
        identifier = _element(medium, "MediaIdentifier")
        _coded(identifier, "MediaType", 110037, "URI")  # PS3.16 CID 405: a file, wherever it lies
        found.append(medium)
    root.extend(found)


def _participant(user_id: str, *, requestor: bool) -> ElementTree.Element:
    attributes = {"UserID": clean(user_id), "UserIsRequestor": "true" if requestor else "false"}
    return ElementTree.Element("ActiveParticipant", attributes)


def _network(participant: ElementTree.Element, address: str) -> None:
    """NetworkAccessPointID and its type: 2 for an IP address, 1 for a name (PS3.15 A.5.1)."""
    if not address:
        return
    try:
        address, kind = str(ip_address(address)), "2"
    except ValueError:
        kind = "1"
    participant.set("NetworkAccessPointID", clean(address))
    participant.set("NetworkAccessPointTypeCode", kind)


def _role(participant: ElementTree.Element, code: int) -> None:
    if code:
        _coded(participant, "RoleIDCode", code, _ROLES[code])


def _objects(root: ElementTree.Element, event: Event, form: _Form, told: Content) -> None:
    """ParticipantObjectIdentification elements; the first bears the details."""
    found: list[ElementTree.Element] = []
    if form.objects == "query":
        found.append(_query(event, told))
    elif form.objects == "alert":
        found.append(_object("2", "13", event.node.hex(), ("110182", "DCM", "Node ID"), "Node"))
    if event.study is not None:
        found.append(_study(event, event.study))
    if not found:  # also of a study whose keys are gone: there is nothing left to name it by
        found.append(_object("2", "13", f"urn:cairn:log:{event.node.hex()}", _URI, "Security Audit Log"))
    if event.patient is not None:
        name = event.patient.name or event.patient.id
        found.append(_object("1", "1", event.patient.id, ("2", "RFC-3881", "Patient Number"), name))
        if event.patient.issuer:
            _detail(found[-1], "Issuer of Patient ID", event.patient.issuer)
    _details(found[0], event, told, alert=form.objects == "alert")
    for one in found:
        if event.study is not None and one.get("ParticipantObjectID") == clean(event.study):
            _instances(one, told)
    root.extend(found)


_URI: Final = ("12", "RFC-3881", "URI")


def _object(
    kind: str, role: str, identity: str, id_type: tuple[str, str, str], name: str | None, life_cycle: str | None = None
) -> ElementTree.Element:
    one = ElementTree.Element(
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": clean(identity),
            "ParticipantObjectTypeCode": kind,
            "ParticipantObjectTypeCodeRole": role,
        },
    )
    if life_cycle is not None:
        one.set("ParticipantObjectDataLifeCycle", life_cycle)
    code, system, meaning = id_type
    _element(
        one, "ParticipantObjectIDTypeCode", **{"csd-code": code, "codeSystemName": system, "originalText": meaning}
    )
    if name is not None:
        _element(one, "ParticipantObjectName").text = clean(name)
    return one


def _study(event: Event, study: str) -> ElementTree.Element:
    """The study, system object in the role of a report (A.5.3.6 and the tables beside it)."""
    return _object("2", "3", study, ("110180", "DCM", "Study Instance UID"), "Study", _LIFE_CYCLES.get(event.type))


def _query(event: Event, told: Content) -> ElementTree.Element:
    """What was asked, as far as it is recorded: the levels, never the keys, which name patients (A.5.3.10)."""
    one = _object("2", "3", "/dicom-web", _URI, None)
    asked = "\n".join(f"{what} x {count}" for what, count in told.asked.items())[:_LONGEST]
    _element(one, "ParticipantObjectQuery").text = base64.b64encode(asked.encode("utf-8", "replace")).decode()
    return one


def _details(first: ElementTree.Element, event: Event, told: Content, *, alert: bool) -> None:
    """The pairs of the first object: the entry, why, and what the records state."""
    pairs = {
        "Ledger Entry": event.id.hex(),
        "Ledger Node": event.node.hex(),
        "Ledger Sequence": str(event.sequence),
        "Entry Type": event.type,
        "Purpose Of Use": event.purpose,
    }
    if alert:
        pairs["Alert Description"] = told.facts.get("what") or sentence(event)
    if event.reason:
        pairs["Reason"] = event.reason
    if event.erased:
        pairs["Study"] = "erased"
    pairs |= {f"Served {what}": str(count) for what, count in sorted(told.served.items())}
    pairs |= {f"Record {name}": value for name, value in sorted(told.facts.items())[:_MOST_FACTS]}
    if told.unreadable:
        pairs["Records Erased"] = str(told.unreadable)
    for kind, value in pairs.items():
        _detail(first, kind, value)


def _detail(one: ElementTree.Element, kind: str, value: str) -> None:
    """A ValuePair, whose value is always base64 (PS3.15 A.5.1.1)."""
    encoded = base64.b64encode(value.encode("utf-8", "replace")[:_LONGEST]).decode()
    _element(one, "ParticipantObjectDetail", type=clean(kind)[:64], value=encoded)


def _instances(study: ElementTree.Element, told: Content) -> None:
    """ParticipantObjectDescription: a SOPClass for each class, with how many instances of it (A.5.2)."""
    if not told.classes:
        return
    description = _element(study, "ParticipantObjectDescription")
    for sop_class, count in sorted(told.classes.items())[:_MOST_CLASSES]:
        named = {"UID": clean(sop_class)} if sop_class else {}
        _element(description, "SOPClass", **named, NumberOfInstances=str(count))


def _coded(parent: ElementTree.Element, name: str, code: int, meaning: str) -> None:
    """A CodedValueType of the DICOM vocabulary."""
    _element(parent, name, **{"csd-code": str(code), "codeSystemName": "DCM", "originalText": meaning})


def _element(parent: ElementTree.Element, name: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, name, attributes)
