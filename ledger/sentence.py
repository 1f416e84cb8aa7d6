"""An event as one sentence for people, and the DICOM codes that depend on more than its type. Pure."""

from __future__ import annotations

from typing import Final

from ledger.alerts import RULES
from ledger.event import OUTCOMES, Event, Participant
from ledger.types import EMERGENCY, ENTRY_TYPES, PURPOSES

_HOW: Final = {
    "dimse": "over DICOM",
    "http": "over HTTP",
    "gateway": "by the gateway",
    "members": "as a member",
    "command": "by command",
}
_SEALED: Final = frozenset({"gateway", "members"})
"""Ways by which nothing but sealed blocks is given."""
_FAILED: Final = {
    "share.receipt": "{actor} did not take in {study}, which another member shared",
    "replica.receipt": "{actor} keeps another member's sealed blocks no longer",
}
"""What is said of an outcome other than success, where that is not to have done it badly."""
_REFUSALS: Final = frozenset({"auth.fail", "access.refused", "security.alert"})
EMERGENCY_OVERRIDE_STARTED: Final = 110127


def sentence(event: Event, study: str | None = None) -> str:
    """Who did what, to what, for what purpose and with what outcome: "Dr Who (viewer) viewed study 1.2.3 for ...".

    Parameters
    ----------
    event
        Any event of a type of `ledger.types`.
    study
        What to call the study; by default by its Study Instance UID. Names of patients are the caller's to give.
    """
    row = ENTRY_TYPES[event.type]
    of = "{actor} fetched sealed blocks of {study}" if is_sealed(event) else row.sentence
    failed = _FAILED.get(event.type) if event.outcome else None
    of = failed or of
    text = of.format(actor=actor(event.actor), study=study or _study(event))
    if event.type in ("study.access", "study.export"):
        text += f" for {PURPOSES.get(event.purpose, event.purpose)}"
    if event.reason:
        text += f" (reason: {event.reason})"
    if event.outcome and event.type not in _REFUSALS and failed is None:
        text += f", with {OUTCOMES.get(event.outcome, 'an unknown outcome')}"
    return text + "."


def is_sealed(event: Event) -> bool:
    """Whether an access was to sealed blocks alone, which show nothing to who has not the study's key."""
    return event.type == "study.access" and event.actor.how in _SEALED


def actor(participant: Participant) -> str:
    """Who acted, as a sentence begins: name, role and place, as far as they are known."""
    if participant.kind == "system":
        return "The operator" if participant.name == "operator" else "The node"
    known = [
        participant.role,
        f"at {participant.address}" if participant.address else "",
        _HOW.get(participant.how, ""),
    ]
    described = ", ".join(part for part in known if part)
    name = participant.name or "Somebody"
    return f"{name} ({described})" if described else name


def type_code(event: Event, rule: str | None = None) -> int | None:
    """DICOM EventTypeCode (PS3.16 CID 401): the type's own; of a break-glass access, Emergency Override Started.

    Of an alert it is that of its `rule`, which its record names.
    """
    if event.type == "security.alert" and rule is not None and rule in RULES:
        return RULES[rule].type_code
    if event.type == "study.access" and event.purpose == EMERGENCY:
        return EMERGENCY_OVERRIDE_STARTED
    return ENTRY_TYPES[event.type].type_code


def profile(event: Event) -> str | None:
    """The IHE BALP profile's name, such as "IHE.BasicAudit.PatientRead"; None when BALP has none for this event.

    BALP's profiles are of successes. Those of create, read, update, delete and query have a variant for a known
    patient; a disclosure must name one.
    """
    found = ENTRY_TYPES[event.type].profile
    if found is None or event.outcome:
        return None
    if found == "PrivacyDisclosure.Source":
        return f"IHE.BasicAudit.{found}" if event.patient is not None else None
    return f"IHE.BasicAudit.{'Patient' if event.patient is not None else ''}{found}"


def _study(event: Event) -> str:
    if event.study is not None:
        return f"study {event.study}"
    return "an erased study" if event.erased else "a study"
