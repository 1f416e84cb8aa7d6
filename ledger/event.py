"""An entry as people read it: who did what to which study, when, why and with what outcome.

The envelope holds tags where this holds names: who has the node's keys resolves them. Exports, the console and searches
take events from here; verification never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ActorKind = Literal["system", "user", "device", "peer"]
OUTCOMES = {0: "success", 4: "minor failure", 8: "serious failure", 12: "major failure"}
"""EventOutcomeIndicator (PS3.15 A.5.2.1), in words."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Who acted: kind, name, role, network address, and how; texts may be empty.

    How: "dimse", "http", "gateway" (sealed blocks by a token), "members" (sealed blocks to a member), "command".
    """

    kind: ActorKind
    name: str
    role: str = ""
    address: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """Of whom: Patient ID (0010,0020), its issuer (0010,0021), Patient's Name (0010,0010) for display alone."""

    id: str
    issuer: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log, resolved as far as this node's keys reach.

    `index` is its place in the node's trail, which is its own log and then the log it shares with others; `id` its
    32-byte leaf hash, `node` the 16-byte id of the node that wrote it and `sequence` its number there; `type` a name of
    `ledger.types`; `time_us` microseconds since the epoch, by that node's clock; `purpose` an HL7 v3 ActReason code and
    `reason` what the user gave; `outcome` 0, 4, 8 or 12. `study` is a Study Instance UID: None for an event about no
    study, and when its key is gone or was never held, which `erased` tells. `records` counts its records, 0 when that
    is not known here.

    `hospital` is the name of the member whose node wrote it, "" while the node is in no consortium; `first` the trail's
    index of the first entry of its log; `block_time_us` the time that a consortium's members agreed on for the block
    that it is in, that of their votes for the one before; None in a log of the node's own.
    """

    index: int
    id: bytes
    node: bytes
    sequence: int
    type: str
    time_us: int
    purpose: str
    outcome: int
    actor: Participant
    records: int
    reason: str = ""
    study: str | None = None
    erased: bool = False
    patient: Patient | None = None
    hospital: str = ""
    first: int = 0
    block_time_us: int | None = None

    @property
    def place(self) -> int:
        """Its index in the log that it is in."""
        return self.index - self.first

    @property
    def shared(self) -> bool:
        """Whether it is in the log of a consortium."""
        return self.block_time_us is not None


@dataclass(frozen=True, slots=True)
class Detail:
    """One record of an event: its 32-byte leaf, its place among the records, and what it says; None when erased."""

    leaf: bytes
    position: int
    time_us: int | None
    body: Mapping[str, object] | None
    encoded: bytes | None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events: no restriction where nothing is given; of several values in a field any may hold.

    `patient` is a Patient ID. Times are in microseconds, `since_us` inclusive, `until_us` not. `before` is an index:
    events below it alone, for the next page, since pages run from the newest to the oldest.
    """

    types: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    patient: str | None = None
    purposes: tuple[str, ...] = ()
    outcomes: tuple[int, ...] = ()
    nodes: tuple[bytes, ...] = ()
    hospitals: tuple[str, ...] = ()
    since_us: int | None = None
    until_us: int | None = None
    before: int | None = None
    limit: int = 100
