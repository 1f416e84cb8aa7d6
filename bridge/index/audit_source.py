"""What the audit trail reads of the index: who is behind an entry's tags, its records, whose study it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, literal_column, select

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.records import OF_BATCH, records_of
from bridge.model import ActorKind, SealedRecord
from ledger.event import Participant, Patient

_b, _r, _p = s.batch.c, s.record.c, s.patient.c
_IN_RANGE: Final = (_b.closed_seq >= bindparam("first"), _b.closed_seq <= bindparam("last"))
_ACTORS: Final = sql(
    select(
        *(_b.closed_seq, _b.records_root, _b.actor_kind, _b.actor_name, _b.actor_role, _b.actor_address, _b.actor_how)
    ).where(*_IN_RANGE)
)
_LEAVES: Final = sql(select(_b.closed_seq, _r.leaf).select_from(OF_BATCH).where(*_IN_RANGE))
_FIRST: Final = sql(
    select(_r.leaf, _r.sealed)
    .select_from(OF_BATCH)
    .where(_b.closed_seq == bindparam("of_batch"), _r.position == literal_column("0"))
)
_HAS: Final = sql(
    select(_r.position)
    .select_from(OF_BATCH)
    .where(_b.closed_seq == bindparam("of_batch"), _r.leaf == bindparam("of_leaf"))
)
_PATIENT: Final = sql(
    select(_p.patient_id, _p.issuer_of_patient_id, _p.attributes)
    .select_from(s.study.join(s.patient, s.study.c.patient == _p.id))
    .where(s.study.c.uid == bindparam("study"))
)
_STUDIES: Final = sql(
    select(s.study.c.uid)
    .select_from(s.study.join(s.patient, s.study.c.patient == _p.id))
    .where(_p.patient_id == bindparam("patient"))
)


class BatchActor(NamedTuple):
    """Whose closed batch it is: its records root, which an entry of it repeats, and the actor in words."""

    root: bytes
    actor: Participant


class AuditSource:
    """Look-ups in an index database that somebody else opens and closes. Thread-safe; all raise StorageFault.

    Batches go by their number in the order of closing, which counts within the epoch.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def epoch(self) -> bytes:
        """The database's epoch (`ledger.source.Cursor`)."""
        return self._database.epoch

    def actors(self, first: int, last: int) -> dict[int, BatchActor]:
        """The actors of the closed batches numbered `first` to `last`."""
        found = self._database.rows(_ACTORS, {"first": first, "last": last})
        return {
            number: BatchActor(root, Participant(ActorKind(kind).value, name, role or "", address, how))
            for number, root, kind, name, role, address, how in found
        }

    def leaves(self, first: int, last: int) -> Sequence[tuple[int, bytes]]:
        """(batch, leaf hash) of every record in the closed batches numbered `first` to `last`."""
        return self._database.rows(_LEAVES, {"first": first, "last": last})

    def records(self, batch: int) -> list[tuple[str | None, SealedRecord]]:
        """The records of a closed batch in order, each with its Study Instance UID; [] when it is not held."""
        return records_of(self._database, batch)

    def first_record(self, batch: int) -> SealedRecord | None:
        """The first record of a closed batch."""
        found = self._database.rows(_FIRST, {"of_batch": batch})
        return SealedRecord(*found[0]) if found else None

    def holds_record(self, batch: int, leaf: bytes) -> bool:
        """Whether a closed batch has a record with this leaf hash."""
        return bool(self._database.rows(_HAS, {"of_batch": batch, "of_leaf": leaf}))

    def patient_of(self, study: str) -> Patient | None:
        """The patient of a study that is held."""
        found = self._database.rows(_PATIENT, {"study": study})
        if not found:
            return None
        id, issuer, attributes = found[0]
        return Patient(id, issuer, _name(json.loads(attributes)))

    def studies_of(self, patient: str) -> list[str]:
        """The Study Instance UIDs held under a Patient ID, of whatever issuer."""
        return [study for (study,) in self._database.rows(_STUDIES, {"patient": patient})]


def _name(attributes: Mapping[str, Any]) -> str:
    """Patient's Name (0010,0010) of a DICOM JSON object as PS3.5 section 6.2.1.2 writes its groups."""
    for value in attributes.get("00100010", {}).get("Value", ()):
        if isinstance(value, Mapping):
            groups = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
            return "=".join(groups).rstrip("=")
        return str(value or "")
    return ""
