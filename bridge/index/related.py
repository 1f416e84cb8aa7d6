"""What a search works out rather than reads: counts, Modalities and SOP Classes in Study, availability.

Asked of the database once per page, in the page's own transaction, so that counts are right right after a commit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from bridge.dicom.attributes import BY_KEYWORD, Attribute, Level
from bridge.index import schema as s
from bridge.index.returned import AVAILABILITY, CHARACTER_SET, Returning

Rows = Sequence[Mapping[Any, Any]]
Values = dict[str, object]

_MODALITIES = BY_KEYWORD["ModalitiesInStudy"]
_CLASSES = BY_KEYWORD["SOPClassesInStudy"]
_STUDY_SERIES = BY_KEYWORD["NumberOfStudyRelatedSeries"]
_STUDY_INSTANCES = BY_KEYWORD["NumberOfStudyRelatedInstances"]
_SERIES_INSTANCES = BY_KEYWORD["NumberOfSeriesRelatedInstances"]
_PATIENT_COUNTS = tuple(
    BY_KEYWORD[f"NumberOfPatientRelated{counted}"] for counted in ("Studies", "Series", "Instances")
)


class Related:
    """The computed values of a page's rows."""

    def __init__(self) -> None:
        self._by_study: dict[int, Values] = defaultdict(dict)
        self._by_series: dict[int, Values] = defaultdict(dict)
        self._by_patient: dict[int, Values] = defaultdict(dict)

    @classmethod
    def of(cls, connection: Connection, returning: Returning, rows: Rows) -> Related:
        """What the rows of a page need, in at most four statements."""
        related = cls()
        if not rows:
            return related
        if any(returning.wants(attribute) for attribute in (_MODALITIES, _STUDY_SERIES, _STUDY_INSTANCES)):
            related._count_studies(connection, returning, _ids(rows, Level.STUDY))
        if returning.wants(_CLASSES):
            related._classes(connection, _ids(rows, Level.STUDY))
        if returning.wants(_SERIES_INSTANCES):
            related._count_series(connection, _ids(rows, Level.SERIES))
        if any(returning.wants(attribute) for attribute in _PATIENT_COUNTS):
            related._count_patients(connection, returning, _ids(rows, Level.PATIENT))
        return related

    def values(self, row: Mapping[Any, Any]) -> Values:
        """The computed values of one row, by tag."""
        found: Values = {CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]}}
        available = "UNAVAILABLE" if row.get("damaged") else "ONLINE"
        found[AVAILABILITY] = {"vr": "CS", "Value": [available]}
        for level, by_id in (("patient", self._by_patient), ("study", self._by_study), ("series", self._by_series)):
            identity = row.get(f"{level}_id")
            if identity is not None:
                found.update(by_id.get(identity, {}))
        return found

    def _count_studies(self, connection: Connection, returning: Returning, studies: Sequence[int]) -> None:
        modalities: dict[int, set[str]] = defaultdict(set)
        counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        statement = select(s.series.c.study, s.series.c.modality, s.series.c.instances)
        for study, modality, instances in connection.execute(statement.where(s.series.c.study.in_(studies))):
            counts[study][0] += 1
            counts[study][1] += instances
            if modality:
                modalities[study].add(modality)
        for study, (series, instances) in counts.items():
            values: dict[Attribute, dict[str, object]] = {
                _STUDY_SERIES: {"vr": "IS", "Value": [series]},
                _STUDY_INSTANCES: {"vr": "IS", "Value": [instances]},
            }
            if modalities[study]:  # none at all is left out: OHIF's study list fails on this one without a value
                values[_MODALITIES] = {"vr": "CS", "Value": sorted(modalities[study])}
            self._by_study[study].update((a.tag, value) for a, value in values.items() if returning.wants(a))

    def _classes(self, connection: Connection, studies: Sequence[int]) -> None:
        classes: dict[int, set[str]] = defaultdict(set)
        statement = (
            select(s.series.c.study, s.series_class.c.sop_class)
            .join(s.series_class, s.series_class.c.series == s.series.c.id)
            .where(s.series.c.study.in_(studies))
        )
        for study, sop_class in connection.execute(statement):
            classes[study].add(sop_class)
        for study, held in classes.items():
            self._by_study[study][_CLASSES.tag] = {"vr": "UI", "Value": sorted(held)}

    def _count_series(self, connection: Connection, series: Sequence[int]) -> None:
        statement = select(s.series.c.id, s.series.c.instances).where(s.series.c.id.in_(series))
        for identity, instances in connection.execute(statement):
            self._by_series[identity][_SERIES_INSTANCES.tag] = {"vr": "IS", "Value": [instances]}

    def _count_patients(self, connection: Connection, returning: Returning, patients: Sequence[int]) -> None:
        """Counts over every row with the same Patient ID and issuer (see `bridge.index.search`)."""
        one, other = s.patient.alias(), s.patient.alias()
        same_id = and_(
            one.c.patient_id != "",
            one.c.patient_id == other.c.patient_id,
            one.c.issuer_of_patient_id == other.c.issuer_of_patient_id,
        )
        statement = (
            select(
                one.c.id,
                func.count(s.study.c.id.distinct()),
                func.count(s.series.c.id),
                func.coalesce(func.sum(s.series.c.instances), 0),
            )
            .select_from(one)
            .join(other, or_(one.c.id == other.c.id, same_id))
            .join(s.study, s.study.c.patient == other.c.id)
            .join(s.series, s.series.c.study == s.study.c.id)
            .where(one.c.id.in_(patients))
            .group_by(one.c.id)
        )
        for patient, *counts in connection.execute(statement):
            for attribute, count in zip(_PATIENT_COUNTS, counts, strict=True):
                if returning.wants(attribute):
                    self._by_patient[patient][attribute.tag] = {"vr": "IS", "Value": [count]}


def _ids(rows: Rows, level: Level) -> list[int]:
    return list(dict.fromkeys(row[f"{level.value}_id"] for row in rows))
