"""The schema of PS3.15 A.5.1.1 (RELAX NG) as a table, and what checks a message against it.

For each element: its attributes with the form of their values ("?" for an optional one), and its children in order with
how often each may be there. `a|b` stands for a choice of which exactly one must be there.
"""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from xml.etree import ElementTree

TOKEN = r"(?:[^\s](?:.*[^\s])?)?"  # xsd:token: no space at either end; nothing here has two in a row
ANY = r"[^\n\r\t]*"
BASE64 = "base64"
OID = r"[0-2]((\.0)|(\.[1-9][0-9]*))*"
BOOLEAN = "true|false|0|1"
DATE_TIME = r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"
CODED = {"csd-code": TOKEN, "codeSystemName": TOKEN, "displayName?": TOKEN, "originalText": TOKEN}


class Element(NamedTuple):
    """Attributes, children (name, least, most), and the form of the text; None where there is none."""

    attributes: dict[str, str]
    children: tuple[tuple[str, int, int], ...] = ()
    text: str | None = None


MANY = 10**6
SCHEMA = {
    "AuditMessage": Element(
        {},
        (
            ("EventIdentification", 1, 1),
            ("ActiveParticipant", 1, MANY),
            ("AuditSourceIdentification", 1, 1),
            ("ParticipantObjectIdentification", 0, MANY),
        ),
    ),
    "EventIdentification": Element(
        {"EventActionCode?": "[CRUDE]", "EventDateTime": DATE_TIME, "EventOutcomeIndicator": "0|4|8|12"},
        (("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1)),
    ),
    "EventID": Element(CODED),
    "EventTypeCode": Element(CODED),
    "EventOutcomeDescription": Element({}, (), ANY),
    "AuditSourceIdentification": Element(
        {"AuditEnterpriseSiteID?": TOKEN, "AuditSourceID": TOKEN}, (("AuditSourceTypeCode", 0, MANY),)
    ),
    "AuditSourceTypeCode": Element({"csd-code": "[1-9]"}),
    "ActiveParticipant": Element(
        {
            "UserID": ANY,
            "AlternativeUserID?": ANY,
            "UserName?": ANY,
            "UserIsRequestor": BOOLEAN,
            "NetworkAccessPointID?": TOKEN,
            "NetworkAccessPointTypeCode?": "[1-5]",
        },
        (("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1)),
    ),
    "RoleIDCode": Element(CODED),
    "MediaIdentifier": Element({}, (("MediaType", 1, 1),)),
    "MediaType": Element(CODED),
    "ParticipantObjectIdentification": Element(
        {
            "ParticipantObjectID": TOKEN,
            "ParticipantObjectTypeCode?": "[1-4]",
            "ParticipantObjectTypeCodeRole?": "[1-9]|1[0-9]|2[0-6]",
            "ParticipantObjectDataLifeCycle?": "[1-9]|1[0-5]",
            "ParticipantObjectSensitivity?": TOKEN,
        },
        (
            ("ParticipantObjectIDTypeCode", 1, 1),
            ("ParticipantObjectName|ParticipantObjectQuery", 1, 1),
            ("ParticipantObjectDetail", 0, MANY),
            ("ParticipantObjectDescription", 0, MANY),
        ),
    ),
    "ParticipantObjectIDTypeCode": Element(CODED),
    "ParticipantObjectName": Element({}, (), TOKEN),
    "ParticipantObjectQuery": Element({}, (), BASE64),
    "ParticipantObjectDetail": Element({"type": TOKEN, "value": BASE64}),
    "ParticipantObjectDescription": Element(
        {},
        (
            ("MPPS", 0, MANY),
            ("Accession", 0, MANY),
            ("SOPClass", 0, MANY),
            ("ParticipantObjectContainsStudy", 0, 1),
            ("Encrypted", 0, 1),
            ("Anonymized", 0, 1),
        ),
    ),
    "SOPClass": Element({"UID?": OID, "NumberOfInstances": r"\d+"}, (("Instance", 0, MANY),)),
    "Instance": Element({"UID": OID}),
}


def violations(element: ElementTree.Element, path: str = "") -> list[str]:
    """What the schema forbids in an element and below it; empty when it is valid."""
    here = f"{path}/{element.tag}"
    row = SCHEMA.get(element.tag)
    if row is None:
        return [f"{here}: not in the schema"]
    found = _attributes(element, row, here)
    if row.text is None:
        if (element.text or "").strip():
            found.append(f"{here}: has text")
    elif not _has_form(element.text or "", row.text):
        found.append(f"{here}: its text has another form")
    found += _children(element, row, here)
    for child in element:
        found += violations(child, here)
    return found


def _attributes(element: ElementTree.Element, row: Element, here: str) -> list[str]:
    forms = {name.rstrip("?"): form for name, form in row.attributes.items()}
    found = [f"{here}: has @{name}" for name in element.attrib if name not in forms]
    found += [
        f"{here}: lacks @{name}" for name in row.attributes if not name.endswith("?") and element.get(name) is None
    ]
    return found + [
        f"{here}: @{name} is {value!r}"
        for name, value in element.attrib.items()
        if name in forms and not _has_form(value, forms[name])
    ]


def _children(element: ElementTree.Element, row: Element, here: str) -> list[str]:
    tags = [child.tag for child in element]
    for names, least, most in row.children:
        count = 0
        while tags and tags[0] in names.split("|"):
            tags.pop(0)
            count += 1
        if not least <= count <= most:
            return [f"{here}: {count} of {names}"]
    return [f"{here}: {tags[0]} is out of place"] if tags else []


def _has_form(value: str, form: str) -> bool:
    if form != BASE64:
        return re.fullmatch(form, value) is not None
    try:
        base64.b64decode(value, validate=True)
    except ValueError:
        return False
    return True
