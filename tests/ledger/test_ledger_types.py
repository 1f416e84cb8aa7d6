"""The one table of types, and what is derived from it: codes that exist, sentences that read, BALP's profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.sr._concepts_dict import concepts  # type: ignore[attr-defined]

from ledger.alerts import RULES
from ledger.event import Event, Participant, Patient
from ledger.sentence import actor, profile, sentence, type_code
from ledger.types import EMERGENCY, ENTRY_TYPES, EVENT_NAMES, PURPOSES, TYPE_NAMES

DOCTOR = Participant("user", "Dr Who", "viewer", "10.0.0.7", "http")
VIEWED = Event(3, bytes(32), bytes(16), 3, "study.access", 1_700_000_000_000_000, "TREAT", 0, DOCTOR, 2, study="1.2.3")
_DCM = {
    code: (meaning, contexts)
    for of_keyword in concepts["DCM"].values()
    for code, (meaning, contexts) in of_keyword.items()
}


def test_every_code_is_in_the_context_group_that_dicom_gives_it() -> None:
    for row in ENTRY_TYPES.values():
        assert 400 in _DCM[str(row.event)][1] and row.event in EVENT_NAMES
        if row.type_code is not None:
            assert (403 if row.event == 110113 else 401) in _DCM[str(row.type_code)][1]
            assert row.type_code in TYPE_NAMES
    for code, name in (*EVENT_NAMES.items(), *TYPE_NAMES.items()):
        assert _DCM[str(code)][0] == name


@pytest.mark.parametrize(
    ("event", "actions", "typed"),
    [  # PS3.15 Tables A.5.3.1-1 to A.5.3.13-1: EventActionCode, and whether EventTypeCode is mandatory
        (110100, "E", True),
        (110101, "R", False),
        (110103, "CRUD", False),
        (110104, "CRU", False),
        (110105, "D", False),
        (110106, "R", False),
        (110107, "C", False),
        (110112, "E", False),
        (110113, "E", True),
        (110114, "E", True),
    ],
)
def test_messages_have_the_action_and_type_that_part_15_demands(event: int, actions: str, typed: bool) -> None:
    rows = [row for row in ENTRY_TYPES.values() if row.event == event]
    assert rows
    for row in rows:
        assert row.message_action in actions
        assert row.type_code is not None or not typed


def test_every_type_makes_a_sentence() -> None:
    for name in ENTRY_TYPES:
        text = sentence(replace(VIEWED, type=name))
        assert text.startswith("Dr Who (viewer, at 10.0.0.7, over HTTP) ") and text.endswith(".") and "{" not in text


def test_a_sentence_says_who_what_why_and_with_what_outcome() -> None:
    assert sentence(VIEWED) == "Dr Who (viewer, at 10.0.0.7, over HTTP) viewed study 1.2.3 for treatment."
    broken = replace(VIEWED, purpose=EMERGENCY, reason="unconscious", outcome=8, study=None, erased=True)
    assert sentence(broken) == (
        "Dr Who (viewer, at 10.0.0.7, over HTTP) viewed an erased study for emergency treatment (break-glass)"
        " (reason: unconscious), with serious failure."
    )
    assert "viewed the CT of Doe^John for XYZ." in sentence(replace(VIEWED, purpose="XYZ"), "the CT of Doe^John")
    failed = replace(VIEWED, type="auth.fail", outcome=4, actor=Participant("user", "unknown"))
    assert sentence(failed) == "unknown was not recognised."
    not_taken = replace(VIEWED, type="share.receipt", outcome=8)
    assert sentence(not_taken).endswith(" did not take in study 1.2.3, which another member shared.")
    let_go = replace(VIEWED, type="replica.receipt", outcome=8, study=None)
    assert sentence(let_go).endswith(" keeps another member's sealed blocks no longer.")
    assert actor(Participant("system", "cairn")) == "The node" and actor(Participant("user", "")) == "Somebody"
    assert actor(Participant("system", "operator", "admin", "", "command")) == "The operator"
    assert EMERGENCY in PURPOSES


def test_a_break_glass_access_is_an_emergency_override() -> None:
    assert type_code(VIEWED) is None
    assert type_code(replace(VIEWED, purpose=EMERGENCY)) == 110127
    assert type_code(replace(VIEWED, type="app.start")) == 110120


def test_an_alert_has_the_type_of_its_rule() -> None:
    alert = replace(VIEWED, type="security.alert")
    assert (type_code(alert), type_code(alert, "sequence-gap"), type_code(alert, "?")) == (110132, 110133, 110132)
    for rule in RULES.values():
        assert 403 in _DCM[str(rule.type_code)][1] and rule.type_code in TYPE_NAMES


def test_a_profile_is_of_a_success_and_of_the_patient_when_known() -> None:
    known = replace(VIEWED, patient=Patient("P1"))
    assert profile(VIEWED) == "IHE.BasicAudit.Read" and profile(known) == "IHE.BasicAudit.PatientRead"
    assert profile(replace(known, outcome=4)) is None and profile(replace(known, type="auth.fail")) is None
    assert profile(replace(known, type="study.export")) == "IHE.BasicAudit.PrivacyDisclosure.Source"
    assert profile(replace(VIEWED, type="study.export")) is None


def test_who_was_given_sealed_blocks_alone_viewed_nothing() -> None:
    partner = Participant("user", "partner", "viewer", "10.0.0.7", "gateway")
    assert sentence(replace(VIEWED, actor=partner)) == (
        "partner (viewer, at 10.0.0.7, by the gateway) fetched sealed blocks of study 1.2.3 for treatment."
    )
    member = Participant("peer", "St. Elsewhere", "", "10.0.0.8", "members")
    assert sentence(replace(VIEWED, actor=member)).startswith("St. Elsewhere (at 10.0.0.8, as a member) fetched sealed")
