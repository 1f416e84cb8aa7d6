"""The one closed table of entry types.

Event IDs are those of DICOM PS3.16 CID 400 "Audit Event ID" (PS3.15 A.5), action codes those of PS3.15 A.5.2.1
(EventActionCode): C create, R read, U update, D delete, E execute.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, NamedTuple

Action = Literal["C", "R", "U", "D", "E"]


class EntryType(NamedTuple):
    """One kind of entry: its name, what it states, its action code, whether it is about one study, its event ID."""

    name: str
    meaning: str
    action: Action
    study: bool
    event: int


_TABLE = (
    EntryType("study.store", "Instances of a study were received and stored.", "C", True, 110104),
    EntryType("study.access", "Instances of a study were viewed or retrieved.", "R", True, 110103),
    EntryType("study.query", "Studies were searched for.", "E", False, 110112),
    EntryType("study.delete", "A study was deleted from the index; its key is kept.", "D", True, 110105),
    EntryType(
        "study.erase", "A study's keys were destroyed, so that its content cannot be read again.", "D", True, 110105
    ),
    EntryType("study.export", "A study was written to a file or medium outside the node.", "R", True, 110106),
    EntryType("study.import", "A study was read in from a file or medium.", "C", True, 110107),
    EntryType("consent.grant", "A member was given access to a study.", "C", True, 110113),
    EntryType("consent.revoke", "A member's access to a study was ended.", "D", True, 110113),
    EntryType("auth.fail", "A credential or sender was not recognised.", "E", False, 110114),
    EntryType("access.refused", "An authenticated actor asked for what its role does not allow.", "E", False, 110113),
    EntryType("admin.token", "A credential was created or revoked.", "U", False, 110113),
    EntryType("admin.key", "A key of the node was created, rotated or retired.", "U", False, 110113),
    EntryType("config.change", "The configuration of the node was changed.", "U", False, 110100),
    EntryType("app.start", "The node was started.", "E", False, 110100),
    EntryType("app.stop", "The node was stopped.", "E", False, 110100),
    EntryType("audit.view", "The ledger itself was read.", "R", False, 110101),
)

ENTRY_TYPES: MappingProxyType[str, EntryType] = MappingProxyType({row.name: row for row in _TABLE})
