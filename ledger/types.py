"""The one closed table of entry types, from which code, documentation, exports and the console take what they need.

Codes are those of DICOM PS3.16: EventID of CID 400 "Audit Event ID", EventTypeCode of CID 401 "Audit Event Type Code"
(of Security Alerts, CID 403). Action codes are those of PS3.15 A.5.2.1 (EventActionCode): C create, R read, U update, D
delete, E execute.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

Action = Literal["C", "R", "U", "D", "E"]
Profile = Literal["Create", "Read", "Update", "Delete", "Query", "PrivacyDisclosure.Source"]


class EntryType(NamedTuple):
    """One kind of entry.

    Parameters
    ----------
    name, meaning
        Its name in entries, and what it states.
    action
        What an entry holds as `ac`.
    study
        Whether it is about one study.
    event
        DICOM EventID (CID 400), by which PS3.15 A.5.3 says what its audit message holds.
    type_code
        DICOM EventTypeCode (CID 401), None where A.5.3 asks for none; a break-glass access, and each alert, bear
        another (`ledger.sentence.type_code`).
    message_action
        EventActionCode of the audit message: what A.5.3 demands of that event ID, which may differ from `action`.
    profile
        The IHE BALP profile without "IHE.BasicAudit." and, when the patient is known, without "Patient" before it;
        None where BALP has none. BALP profiles are of successes alone: another outcome has none.
    sentence
        What people read: `{actor}` and `{study}` are filled in by `ledger.sentence`.
    """

    name: str
    meaning: str
    action: Action
    study: bool
    event: int
    type_code: int | None
    message_action: Action
    profile: Profile | None
    sentence: str


# A table is read by its rows.
# fmt: off
_TABLE = (
    EntryType(
        "study.store", "Instances of a study were received and stored.", "C", True,
        110104, None, "C", "Create", "{actor} stored images of {study}",
    ),
    EntryType(
        "study.access", "Instances of a study were viewed or retrieved.", "R", True,
        110103, None, "R", "Read", "{actor} viewed {study}",
    ),
    EntryType(
        "study.query", "Studies were searched for.", "E", False,
        110112, None, "E", "Query", "{actor} searched the archive",
    ),
    EntryType(
        "study.delete", "A study was deleted from the index; its key is kept.", "D", True,
        110105, None, "D", "Delete", "{actor} deleted {study}; its key is kept",
    ),
    EntryType(
        "study.erase", "A study's keys were destroyed, so that its content cannot be read again.", "D", True,
        110105, None, "D", "Delete", "{actor} destroyed the keys of {study}",
    ),
    EntryType(
        "study.export", "A study was written to a file or medium outside the node.", "R", True,
        110106, None, "R", "PrivacyDisclosure.Source", "{actor} wrote {study} to a file or medium",
    ),
    EntryType(
        "study.import", "A study was read in from a file or medium.", "C", True,
        110107, None, "C", "Create", "{actor} read {study} in from a file or medium",
    ),
    EntryType(
        "consent.grant", "A member was given access to a study.", "C", True,
        110113, 110135, "E", None, "{actor} gave a member access to {study}",
    ),
    EntryType(
        "consent.revoke", "A member's access to a study was ended.", "D", True,
        110113, 110135, "E", None, "{actor} ended a member's access to {study}",
    ),
    EntryType(
        "auth.fail", "A credential or sender was not recognised.", "E", False,
        110114, 110122, "E", None, "{actor} was not recognised",
    ),
    EntryType(
        "access.refused", "An authenticated actor asked for what its role does not allow.", "E", False,
        110113, 110132, "E", None, "{actor} was refused what the role does not allow",
    ),
    EntryType(
        "admin.token", "A credential was created or revoked.", "U", False,
        110113, 110137, "E", None, "{actor} created or revoked a credential",
    ),
    EntryType(
        "admin.key", "A key of the node was created, rotated or retired.", "U", False,
        110113, 110129, "E", None, "{actor} created, rotated or retired a key of the node",
    ),
    EntryType(
        "config.change", "The configuration of the node was changed.", "U", False,
        110113, 110131, "E", None, "{actor} changed the configuration",
    ),
    EntryType(
        "app.start", "The node was started.", "E", False,
        110100, 110120, "E", None, "{actor} started the node",
    ),
    EntryType(
        "app.stop", "The node was stopped.", "E", False,
        110100, 110121, "E", None, "{actor} stopped the node",
    ),
    EntryType(
        "audit.view", "The ledger itself was read.", "R", False,
        110101, None, "R", None, "{actor} read the ledger",
    ),
    EntryType(
        "audit.review", "An entry, such as a break-glass access, was reviewed.", "U", False,
        110101, None, "R", None, "{actor} reviewed an entry of the ledger",
    ),
    EntryType(
        "archive.export", "The whole archive, keys included, was copied to a folder or medium.", "R", False,
        110106, None, "R", None, "{actor} copied the whole archive to a folder or medium",
    ),
    EntryType(
        "content.scrub", "Stored content was read back and checked, and mended where it was damaged.", "E", False,
        110113, 110132, "E", None, "{actor} checked the stored content",
    ),
    EntryType(
        "security.alert", "A rule found something that ought to be looked at.", "E", False,
        110113, 110132, "E", None, "{actor} raised an alert",
    ),
    EntryType(
        "ledger.join", "A node joined a consortium; the log that it kept alone ends with this root.", "C", False,
        110113, 110129, "E", None, "{actor} closed the node's own log and joined the consortium",
    ),
    EntryType(
        "gov.propose", "A change of the consortium's members, keys or validators was proposed.", "C", False,
        110113, 110129, "E", None, "{actor} proposed a change of the consortium",
    ),
    EntryType(
        "gov.vote", "A member voted on a proposal.", "U", False,
        110113, 110129, "E", None, "{actor} voted on a change of the consortium",
    ),
    EntryType(
        "share.receipt", "A study that another member shared was verified and taken in.", "C", True,
        110107, None, "C", "Create", "{actor} took in {study}, which another member shared",
    ),
    EntryType(
        "share.end", "The keys of a study that another member had shared were deleted.", "D", True,
        110105, None, "D", "Delete", "{actor} deleted the keys of {study}, which another member had shared",
    ),
    EntryType(
        "emergency.start", "A member's study was taken by breaking the glass, for a limited time.", "E", True,
        110113, 110127, "E", None, "{actor} broke the glass to get {study} from another member",
    ),
    EntryType(
        "emergency.end", "An access by breaking the glass ended.", "E", True,
        110113, 110138, "E", None, "{actor} ended the emergency access to {study}",
    ),
    EntryType(
        "replica.assign", "A member was asked to keep a study's sealed blocks, without its key.", "C", True,
        110113, 110135, "E", None, "{actor} asked another member to keep the sealed blocks of {study}",
    ),
    EntryType(
        "replica.receipt", "The sealed blocks of another member's study are held here, whole.", "U", False,
        110113, 110132, "E", None, "{actor} confirmed that another member's sealed blocks are kept here",
    ),
    EntryType(
        "replica.release", "A member need no longer keep the sealed blocks that it was asked to keep.", "D", True,
        110113, 110135, "E", None, "{actor} released another member from keeping the sealed blocks of {study}",
    ),
)
# fmt: on

ENTRY_TYPES: MappingProxyType[str, EntryType] = MappingProxyType({row.name: row for row in _TABLE})
EMERGENCY = "ETREAT"
"""The purpose of use of a break-glass access (HL7 v3 ActReason "emergency treatment")."""
PURPOSES: MappingProxyType[str, str] = MappingProxyType(
    {
        "TREAT": "treatment",
        EMERGENCY: "emergency treatment (break-glass)",
        "BTG": "breaking the glass",
        "HOPERAT": "healthcare operations",
        "HPAYMT": "healthcare payment",
        "HRESCH": "healthcare research",
        "PATRQT": "the patient's request",
        "PUBHLTH": "public health",
    }
)
"""Purposes of use, HL7 v3 ActReason codes, in words; other codes are shown as they are."""
EVENT_NAMES: MappingProxyType[int, str] = MappingProxyType(
    {
        110100: "Application Activity",
        110101: "Audit Log Used",
        110103: "DICOM Instances Accessed",
        110104: "DICOM Instances Transferred",
        110105: "DICOM Study Deleted",
        110106: "Export",
        110107: "Import",
        110112: "Query",
        110113: "Security Alert",
        110114: "User Authentication",
    }
)
"""The code meanings of the event IDs used here (PS3.16 CID 400)."""
TYPE_NAMES: MappingProxyType[int, str] = MappingProxyType(
    {
        110120: "Application Start",
        110121: "Application Stop",
        110122: "Login",
        110126: "Node Authentication",
        110127: "Emergency Override Started",
        110129: "Security Configuration",
        110131: "Software Configuration",
        110132: "Use of Restricted Function",
        110133: "Audit Recording Stopped",
        110135: "Object Security Attributes Changed",
        110137: "User Security Attributes Changed",
        110138: "Emergency Override Stopped",
    }
)
"""The code meanings of the event type codes used here (PS3.16 CID 401 and 403)."""
