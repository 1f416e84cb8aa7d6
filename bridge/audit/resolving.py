"""Rows of audit.db as events: studies by the keys that are held, patients by the index, reasons by the records.

What lies here only sealed, or under a tag, is looked up each time, so that it is gone the moment a key is.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from bridge.audit.schema import leaf_start
from bridge.crypto.keyring import Keyring
from bridge.index.audit_source import AuditSource
from bridge.model import SealedRecord
from ledger import record as ledger_record
from ledger.errors import LedgerError
from ledger.event import Detail, Event, EventQuery, Participant, Patient
from ledger.types import ENTRY_TYPES

Opener = Callable[[str | None, SealedRecord], bytes | None]
"""(study, sealed record) -> the record's bytes; None when no key of the study is held. Raises RecordUnreadable."""

HospitalOf = Callable[[bytes], str]
"""The name of the member whose node has this id; "" without a consortium."""

Row = tuple[Any, ...]
_AT_ONCE: Final = 500
_NOBODY: Final = b""
"""The id of no node."""
_ROWS: Final = """
SELECT event.idx, COALESCE((SELECT max(first) FROM log WHERE first <= event.idx), 0), block_time, leaf, node, sequence,
    type, time, purpose, outcome, kind, name, role, address, how, records, study, epoch, batch
FROM event JOIN combination ON combination.id = event.combination JOIN actor ON actor.id = combination.actor
WHERE event.idx"""
_REASONED: Final = frozenset(row.name for row in ENTRY_TYPES.values() if row.study and row.action != "C")
"""Types whose first record may tell a reason."""
ERASE: Final = "study.erase"


def rows_of(connection: sqlite3.Connection, indices: Sequence[int]) -> list[Row]:
    """The rows behind indices, in their order."""
    found: dict[int, Row] = {}
    left = iter(indices)
    while some := list(islice(left, _AT_ONCE)):
        marks = ", ".join("?" * len(some))
        found |= {row[0]: row for row in connection.execute(f"{_ROWS} IN ({marks})", some)}
    return [found[index] for index in indices]


def rows_by_leaf(connection: sqlite3.Connection, leaf: bytes) -> list[Row]:
    """The rows of entries that have, or of which a record may have, this leaf hash."""
    if len(leaf) != 32:
        return []
    return connection.execute(f"{_ROWS} IN (SELECT idx FROM leaf WHERE start = ?)", (leaf_start(leaf),)).fetchall()


def leaf_of(row: Row) -> bytes:
    """The leaf hash of a row's entry."""
    return bytes(row[3])


class Resolver:
    """Resolves rows. Thread-safe; all raise StorageFault."""

    def __init__(
        self,
        keys: Keyring,
        source: AuditSource,
        open_record: Opener,
        hospital_of: HospitalOf,
        erased_tags: Callable[[str], Sequence[bytes]] = lambda study: (),
    ) -> None:
        self._keys = keys
        self._erased_tags = erased_tags
        self._source = source
        self._open_record = open_record
        self._hospital_of = hospital_of

    def tags(self, query: EventQuery) -> list[bytes] | None:
        """The tags of the studies that a query restricts to; None when it does not.

        By its Study Instance UID an erased study's erasure is found, and nothing else of it.
        """
        if not query.studies and query.patient is None:
            return None
        studies = set(query.studies)
        if query.patient is not None:
            held = set(self._source.studies_of(query.patient))
            studies = studies & held if studies else held
        found = [tag for study in sorted(studies) for tag in self._keys.tags_of(study)]
        if tuple(query.types) == (ERASE,):
            found += [tag for study in sorted(studies) for tag in self._erased_tags(study)]
        return found

    def narrowed(self, connection: sqlite3.Connection, query: EventQuery) -> EventQuery:
        """The query with the nodes of the hospitals that it restricts to."""
        if not query.hospitals:
            return query
        known = [bytes(node) for (node,) in connection.execute("SELECT DISTINCT node FROM combination")]
        meant = [node for node in query.nodes or known if self._hospital_of(node) in query.hospitals]
        return replace(query, nodes=tuple(meant) or (_NOBODY,))

    def named(self, counted: Mapping[str, list[tuple[str, int]]]) -> dict[str, list[tuple[str, int]]]:
        """Facets with the names of hospitals instead of the ids of their nodes; without them while there are none."""
        named = dict(counted)
        total: Counter[str] = Counter()
        for node, number in named.pop("node"):
            total[self._hospital_of(bytes.fromhex(node))] += number
        if any(total):
            named["hospital"] = sorted(total.items(), key=lambda row: (-row[1], row[0]))
        return named

    def events(self, rows: Iterable[Row]) -> list[Event]:
        """The events of rows, in their order."""
        studies: dict[bytes, str | None] = {}
        patients: dict[str, Patient | None] = {}
        events = []
        for row in rows:
            index, first, block_time, leaf, node, sequence, kind, moment, purpose, outcome, *rest = row
            *actor, records, tag, epoch, batch = rest
            study = patient = None
            if tag is not None:
                study = studies[tag] if tag in studies else studies.setdefault(tag, self._keys.study_of(tag))
            if study is not None:
                known = study in patients
                patient = patients[study] if known else patients.setdefault(study, self._source.patient_of(study))
            events.append(
                Event(
                    index=index,
                    id=leaf,
                    node=node,
                    sequence=sequence,
                    type=kind,
                    time_us=moment,
                    purpose=purpose,
                    outcome=outcome,
                    actor=Participant(*actor),
                    records=records,
                    reason=self._reason(kind, study, epoch, batch),
                    study=study,
                    erased=tag is not None and study is None,
                    patient=patient,
                    hospital=self._hospital_of(node),
                    first=first,
                    block_time_us=block_time,
                )
            )
        return events

    def is_of(self, row: Row, leaf: bytes) -> bool:
        """Whether a leaf hash is that of the row's entry or of one of its records."""
        epoch, batch = row[-2:]
        return leaf_of(row) == leaf or (epoch == self._source.epoch and self._source.holds_record(batch, leaf))

    def details(self, row: Row) -> list[Detail]:
        """The records of a row's entry; [] when the index does not hold them any more."""
        epoch, batch = row[-2:]
        if epoch != self._source.epoch:
            return []
        return [self._detail(position, *one) for position, one in enumerate(self._source.records(batch))]

    def _reason(self, kind: str, study: str | None, epoch: bytes, batch: int) -> str:
        if kind not in _REASONED or (study is None and kind != ERASE) or epoch != self._source.epoch:
            return ""
        sealed = self._source.first_record(batch)
        # What an erasure says is sealed under the node's own key.
        body = None if sealed is None else self._detail(0, None if kind == ERASE else study, sealed).body
        reason = None if body is None else body.get("reason")
        return reason if isinstance(reason, str) else ""

    def _detail(self, position: int, study: str | None, sealed: SealedRecord) -> Detail:
        # A damaged record says as little as an erased one; which it is, `cairn ledger verify` tells.
        try:
            encoded = self._open_record(study, sealed)
            if encoded is not None:
                record = ledger_record.decode(encoded)
                return Detail(sealed.leaf, position, record.time_us, record.body, encoded)
        except LedgerError:
            pass
        return Detail(sealed.leaf, position, None, None, None)
