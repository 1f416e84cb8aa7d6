"""What the node's own index knows of studies and patients: names for UIDs, and UIDs for what somebody typed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bridge.dicom.attributes import Level, key
from bridge.dicom.matching import Query, match_for
from bridge.dicom.transfer_syntaxes import is_uid
from bridge.errors import QueryInvalid
from dicomweb.console.words import StudyNote
from dicomweb.node import Node
from ledger.event import Patient

_INCLUDE: Final = frozenset(
    key_.tag
    for key_ in map(key, ("PatientID", "PatientName", "IssuerOfPatientID", "StudyDescription", "ModalitiesInStudy"))
)
_COUNTS: Final = frozenset({"00201206", "00201208"})
_MOST_STUDIES: Final = 200
_MOST_FOUND: Final = 20
_PATTERNS: Final = re.compile(r'[*?"\\,^=]')
"""What a key would take for a pattern or a list, and what parts a person name."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a typed text can mean: a study, a patient, or several patients to choose from; all empty: nothing here."""

    study: str | None = None
    patient: str | None = None
    choices: tuple[Patient, ...] = ()


def notes(node: Node, studies: Iterable[str | None], *, counts: bool = False) -> Mapping[str, StudyNote]:
    """What the index says of these studies, by UID, in one query; of the first 200 of them."""
    uids = sorted({uid for uid in studies if uid is not None})[:_MOST_STUDIES]
    if not uids:
        return {}
    wanted = match_for(key("StudyInstanceUID"), "\\".join(uids))
    include = _INCLUDE | _COUNTS if counts else _INCLUDE
    page = node.search(Query(Level.STUDY, keys=(wanted,), include=include, limit=len(uids)))
    return {_first(match, "0020000D"): _note(match) for match in page.matches}


def resolve(node: Node, typed: str) -> Found:
    """The study or patient that somebody typed: Study Instance UID, Patient ID, accession number, or (part of) a name.

    What looks like a study's UID is one, whether the index still has it or not: the ledger may.
    """
    words = typed.strip()
    if len(words) >= 8 and "." in words and is_uid(words):
        return Found(study=words)
    if words and not _PATTERNS.search(words):
        if any(_first(match, "00100020") == words for match in _studies(node, "PatientID", words)):
            return Found(patient=words)
        for keyword in ("AccessionNumber", "StudyInstanceUID"):
            for match in _studies(node, keyword, words):
                return Found(study=_first(match, "0020000D"))
    name = _PATTERNS.sub(" ", words).strip()
    if not name:
        return Found()
    named: dict[str, Patient] = {}
    for match in _studies(node, "PatientName", name, fuzzy=True) or _studies(node, "PatientName", f"*{name}*"):
        of = _patient(match)
        if of.id:
            named.setdefault(of.id, of)
    if len(named) == 1:
        return Found(patient=next(iter(named)))
    return Found(choices=tuple(named.values()))


def _studies(node: Node, keyword: str, value: str, *, fuzzy: bool = False) -> tuple[Mapping[str, object], ...]:
    """The studies whose key has this value; none for a value that the key cannot have."""
    try:
        wanted = match_for(key(keyword), value, fuzzy=fuzzy)
        return node.search(Query(Level.STUDY, keys=(wanted,), include=_INCLUDE, limit=_MOST_FOUND)).matches
    except QueryInvalid:
        return ()


def _note(match: Mapping[str, object]) -> StudyNote:
    return StudyNote(
        _first(match, "00081030"),
        "/".join(_values(match, "00080061")),
        _first(match, "00080020"),
        _number(match, "00201206"),
        _number(match, "00201208"),
        _patient(match),
    )


def _patient(match: Mapping[str, object]) -> Patient:
    return Patient(_first(match, "00100020"), _first(match, "00100021"), _first(match, "00100010"))


def _number(match: Mapping[str, object], tag: str) -> int:
    found = _first(match, tag)
    return int(found) if found.isdigit() else 0


def _first(match: Mapping[str, object], tag: str) -> str:
    return next(iter(_values(match, tag)), "")


def _values(match: Mapping[str, object], tag: str) -> list[str]:
    """The values of an attribute of DICOM JSON as texts; of a person name the first group that it has."""
    attribute = match.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    found = []
    for value in values if isinstance(values, list | tuple) else ():
        if isinstance(value, Mapping):
            value = next((value[name] for name in ("Alphabetic", "Ideographic", "Phonetic") if name in value), "")
        found.append(str(value))
    return found
