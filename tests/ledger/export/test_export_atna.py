"""DICOM audit messages (PS3.15 A.5) and the syslog messages around them (RFC 5424, RFC 5425)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from audit_message_schema import violations
from export_events import EMERGENCY, ERASED, NODE, STUDY, detail_of, details_of, event_of
from hypothesis import given
from hypothesis import strategies as st

from ledger.event import Detail, Event, Participant, Patient
from ledger.export.atna import BOM, LARGEST, Source, audit_message, clean, date_time, framed, syslog_message
from ledger.types import ENTRY_TYPES

GOLDEN = Path(__file__).parent / "golden"
SOURCE = Source("pacs.example.org", "CAIRN", "cairn/0001")
ANY_TEXT = st.text(st.characters(), max_size=40)


def parsed(event: Event, details: Sequence[Detail] = (), source: Source = SOURCE) -> ElementTree.Element:
    return ElementTree.fromstring(audit_message(event, details, source))


def pairs(message: ElementTree.Element) -> dict[str, str]:
    """The details of the first participant object."""
    first = message.find("ParticipantObjectIdentification")
    assert first is not None
    return {
        one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode()
        for one in first.iter("ParticipantObjectDetail")
    }


def roles(message: ElementTree.Element) -> list[str | None]:
    """The DICOM role of each participant."""
    return [
        next((role.get("csd-code") for role in one.iter("RoleIDCode") if role.get("codeSystemName") == "DCM"), None)
        for one in message.iter("ActiveParticipant")
    ]


def objects(message: ElementTree.Element) -> list[tuple[str | None, str | None, str | None]]:
    """(type, role, type of the id) of each participant object."""
    return [
        (
            one.get("ParticipantObjectTypeCode"),
            one.get("ParticipantObjectTypeCodeRole"),
            one.find("ParticipantObjectIDTypeCode").get("csd-code"),  # type: ignore[union-attr]
        )
        for one in message.iter("ParticipantObjectIdentification")
    ]


STUDY_OBJECT, PATIENT_OBJECT, LOG_OBJECT = ("2", "3", "110180"), ("1", "1", "2"), ("2", "13", "12")


@pytest.mark.parametrize("kind", ENTRY_TYPES)
def test_a_message_of_each_type_is_valid_and_says_what_the_table_says(kind: str) -> None:
    message = parsed(event_of(kind), details_of(kind))
    assert violations(message) == []
    event_id = message.find("EventIdentification/EventID")
    assert event_id is not None
    assert event_id.get("csd-code") == str(ENTRY_TYPES[kind].event)
    assert event_id.get("codeSystemName") == "DCM"
    said = pairs(message)
    assert said["Ledger Entry"] == event_of(kind).id.hex()
    assert said["Entry Type"] == kind
    assert sum(one.get("UserIsRequestor") == "true" for one in message.iter("ActiveParticipant")) <= 1


@pytest.mark.parametrize(
    ("kind", "participants", "things"),
    [
        ("app.start", ["110151", "110150"], [LOG_OBJECT]),  # A.5.3.1
        ("audit.view", [None], [LOG_OBJECT]),  # A.5.3.2
        ("study.export", ["110153", "110154"], [STUDY_OBJECT, PATIENT_OBJECT]),  # A.5.3.4
        ("study.import", ["110152", "110155"], [STUDY_OBJECT, PATIENT_OBJECT]),  # A.5.3.5
        ("study.access", [None], [STUDY_OBJECT, PATIENT_OBJECT]),  # A.5.3.6
        ("study.store", ["110153", "110152"], [STUDY_OBJECT, PATIENT_OBJECT]),  # A.5.3.7
        ("study.delete", [None], [STUDY_OBJECT, PATIENT_OBJECT]),  # A.5.3.8
        ("study.query", ["110153", "110152"], [("2", "3", "12")]),  # A.5.3.10
        ("access.refused", [None, None], [("2", "13", "110182")]),  # A.5.3.11
        ("auth.fail", [None, None], [LOG_OBJECT]),  # A.5.3.12
    ],
)
def test_participants_and_objects_are_those_of_the_message_s_own_table(
    kind: str, participants: list[str | None], things: list[tuple[str, str, str]]
) -> None:
    message = parsed(event_of(kind), details_of(kind))
    assert roles(message) == participants
    assert objects(message) == things


def test_instances_are_counted_by_sop_class() -> None:
    classes = parsed(event_of("study.store"), details_of("study.store")).iter("SOPClass")
    assert {one.get("UID"): one.get("NumberOfInstances") for one in classes} == {
        "1.2.840.10008.5.1.4.1.1.2": "3",
        "1.2.840.10008.5.1.4.1.1.88.11": "1",
    }


def test_a_viewing_tells_how_many_instances_without_a_class_that_it_does_not_know() -> None:
    message = parsed(event_of("study.access"), details_of("study.access"))
    assert [one.attrib for one in message.iter("SOPClass")] == [{"NumberOfInstances": "2"}]
    assert pairs(message)["Served frame"] == "4"


@pytest.mark.parametrize(
    ("outcomes", "action"),
    [
        (["again", "again"], "R"),
        (["again", "healed"], "U"),
        (["again", "new"], "C"),
        (["version"], "C"),
        ([], "C"),
    ],
)
def test_the_action_says_whether_the_receiver_held_the_instances(outcomes: list[str], action: str) -> None:
    details = [
        detail_of({"instance": f"1.2.{place}", "class": "1.2", "outcome": outcome}, place)
        for place, outcome in enumerate(outcomes)
    ]
    assert parsed(event_of("study.store"), details)[0].get("EventActionCode") == action


def test_an_alert_is_described_in_its_record_s_words() -> None:
    body: dict[str, object] = {"rule": "no-such-rule", "what": "9 failed logins", "alert": b"\1"}
    message = parsed(event_of("security.alert", outcome=4), [detail_of(body)])
    assert pairs(message)["Alert Description"] == "9 failed logins"
    assert violations(message) == []


def test_what_changed_in_the_configuration_is_told() -> None:
    changes: dict[str, object] = {"changes": [{"setting": "web.port", "from": "default", "to": "8043"}]}
    message = parsed(event_of("config.change"), [detail_of(changes)])
    assert pairs(message)["Record changes"] == "setting web.port, from default, to 8043"


def test_a_break_glass_access_is_marked_as_emergency_override() -> None:
    message = parsed(EMERGENCY)
    code = message.find("EventIdentification/EventTypeCode")
    assert code is not None
    assert (code.get("csd-code"), code.get("originalText")) == ("110127", "Emergency Override Started")
    assert pairs(message)["Reason"] == "unconscious in the emergency room"
    assert pairs(message)["Purpose Of Use"] == "ETREAT"


def test_an_erased_study_is_named_by_nothing_and_said_to_be_erased() -> None:
    message = parsed(ERASED, [detail_of(None), detail_of(None, 1)])
    assert violations(message) == []
    assert objects(message) == [LOG_OBJECT]
    assert pairs(message)["Study"] == "erased"
    assert pairs(message)["Records Erased"] == "2"
    assert STUDY not in ElementTree.tostring(message, encoding="unicode")


def test_a_failure_says_its_outcome_and_why() -> None:
    failed = parsed(event_of("access.refused"), details_of("access.refused"))
    assert failed[0].get("EventOutcomeIndicator") == "4"
    assert failed.findtext("EventIdentification/EventOutcomeDescription") == "role the role viewer may not store"
    major = parsed(event_of("study.store", outcome=12))
    assert major.findtext("EventIdentification/EventOutcomeDescription") == "major failure"


@pytest.mark.parametrize(
    ("address", "kind", "shown"),
    [
        ("192.0.2.7", "2", "192.0.2.7"),
        ("2001:DB8::0:7", "2", "2001:db8::7"),
        ("ct1.example.org", "1", "ct1.example.org"),
    ],
)
def test_network_access_points_are_addresses_or_names(address: str, kind: str, shown: str) -> None:
    actor = Participant("device", "CT", "", address, "dimse")
    first = parsed(event_of("study.store", actor=actor)).find("ActiveParticipant")
    assert first is not None
    assert (first.get("NetworkAccessPointTypeCode"), first.get("NetworkAccessPointID")) == (kind, shown)
    assert first.get("AlternativeUserID") == "AETITLE=CT"


@pytest.mark.parametrize("kind", ["study.store", "study.access", "auth.fail", "admin.token"])
def test_the_message_is_the_golden_one(kind: str) -> None:
    message = syslog_message(event_of(kind), audit_message(event_of(kind), details_of(kind), SOURCE), SOURCE)
    assert message == (GOLDEN / f"{kind}.syslog").read_bytes()


def test_the_header_is_that_of_rfc_5424_and_ps3_15_a_6() -> None:
    event = event_of("study.access")
    message = syslog_message(event, audit_message(event, (), SOURCE), SOURCE)
    header, _, body = message.partition(BOM)
    assert header == b"<85>1 2023-11-14T22:13:20.123456Z pacs.example.org cairn - DICOM+RFC3881 - "
    assert body.startswith(b'<?xml version="1.0" encoding="UTF-8"?><AuditMessage>')


def test_a_failure_is_a_warning() -> None:
    assert syslog_message(event_of("auth.fail"), b"", SOURCE).startswith(b"<84>1 ")


def test_a_host_name_that_is_not_printable_ascii_does_not_break_the_header() -> None:
    header = syslog_message(event_of("app.start"), b"", Source("päcs one\n")).partition(BOM)[0]
    assert re.fullmatch(rb"<85>1 \S+ p\?cs\?one\? cairn - DICOM\+RFC3881 - ", header)
    assert b"Z - cairn " in syslog_message(event_of("app.start"), b"", Source(""))


def test_a_frame_counts_octets_not_characters() -> None:
    assert framed("é".encode()) == b"2 \xc3\xa9"


def test_times_are_utc_to_the_microsecond_whatever_the_clock_claimed() -> None:
    assert date_time(0) == "1970-01-01T00:00:00.000000Z"
    assert date_time(2**63 - 1) == "9999-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    "character", ["\0", "\n", "\r", "\t", "\x1b", "\x7f", "\x85", "\u202e", "\u2028", "\ufffe", "\ud800"]
)
def test_control_characters_never_reach_a_message(character: str) -> None:
    assert clean(f"a{character}b") == "a\ufffdb"


def test_letters_of_every_script_and_their_joiners_stay() -> None:
    for name in ("Müller^Jörg", "山田^太郎", "می‌خواهم", "Ивано́в", "🩻"):
        assert clean(name) == name


@given(
    name=ANY_TEXT,
    reason=ANY_TEXT,
    role=ANY_TEXT,
    patient=ANY_TEXT,
    asked=ANY_TEXT,
    kind=st.sampled_from([*ENTRY_TYPES]),
)
def test_no_text_makes_a_message_that_is_not_xml(
    name: str, reason: str, role: str, patient: str, asked: str, kind: str
) -> None:
    event = event_of(
        kind,
        actor=Participant("user", name, role, name, "http"),
        reason=reason,
        patient=Patient(patient, role, name),
    )
    message = audit_message(event, [detail_of({"items": [[asked, 1]], "name": reason})], Source(name, role, reason))
    root = ElementTree.fromstring(message.decode())
    assert root.tag == "AuditMessage"
    assert not re.search(rb"[\x00-\x1f\x7f]", syslog_message(event, message, Source(name)))


def test_the_longest_message_is_one_that_every_receiver_takes() -> None:
    long = "\N{MUSICAL SYMBOL G CLEF}" * 500
    many = [detail_of({f"{n}{long}"[:60]: long for n in range(100)} | {"items": [[long, 1]]})]
    many += [detail_of({"instance": f"1.2.{n}", "class": f"1.2.{'9' * 50}.{n}"}, n) for n in range(1, 500)]
    event = event_of("study.store", reason=long)
    assert len(syslog_message(event, audit_message(event, many, SOURCE), SOURCE)) <= LARGEST


def test_the_same_event_gives_the_same_bytes() -> None:
    first, second = (audit_message(event_of("study.store"), details_of("study.store"), SOURCE) for _ in range(2))
    assert first == second
    assert NODE.hex().encode() in first
