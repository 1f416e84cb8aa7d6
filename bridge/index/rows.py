"""A unit of writing as rows: everything about it that can be worked out before the transaction. Pure."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.dicom.attributes import BY_TAG, Attribute, Level, Matching
from bridge.dicom.comparison import texts
from bridge.index.schema import column_names, matched
from bridge.model import Attributes, BlockPosition, InstanceKey, SealedObject, SealedRecord, WriteUnit

Row = dict[str, Any]
Values = Mapping[str, Mapping[str, object]]

_REQUESTS = "00400275"
_MATCHED = {level: tuple((row, column_names(row)) for row in matched(level)) for level in Level}


@dataclass(frozen=True, slots=True)
class RebuiltInstance:
    """One instance as its instance block and sealed metadata tell of it: a `WriteUnit` without batch and record."""

    key: InstanceKey
    sop_class: str
    transfer_syntax: str
    digest: bytes
    tag: bytes
    generation: int
    object: SealedObject
    link: bytes
    data_set: int
    frames: bytes
    bulk: bytes
    json: bytes
    attributes: Attributes
    received: int
    source: str
    blocks: tuple[BlockPosition, ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceRows:
    """The rows of one instance and all above it, without the ids that the database gives."""

    key: InstanceKey
    sop_class: str
    digest: bytes
    patient: Row
    study: Row
    series: Row
    requests: Sequence[Row]
    instance: Row
    data: Row
    blocks: Sequence[Row]


def instance_rows(unit: WriteUnit | RebuiltInstance, study_tag: bytes | None) -> InstanceRows:
    """The rows of an instance; compresses its JSON (zlib level 1)."""
    attributes = unit.attributes
    patient_json = _encode(attributes.patient)
    return InstanceRows(
        key=unit.key,
        sop_class=unit.sop_class,
        digest=unit.digest,
        patient={
            "identity": hashlib.sha256(patient_json.encode()).digest()[:16],
            **_columns(Level.PATIENT, attributes.patient),
            "attributes": patient_json,
        },
        study={
            **_columns(Level.STUDY, attributes.study),
            "uid": unit.key.study,
            "tag": study_tag,
            "covered": 0,
            "root": None,
            "received": unit.received,
            "attributes": _encode(attributes.study, {"0020000D": unit.key.study}),
        },
        series={
            **_columns(Level.SERIES, attributes.series),
            "uid": unit.key.series,
            "instances": 0,
            "attributes": _encode(attributes.series, {"0020000E": unit.key.series}),
        },
        requests=_requests(attributes.series),
        instance={
            **_columns(Level.INSTANCE, attributes.instance),
            "sop": unit.key.sop,
            "digest": unit.digest,
            "damaged": False,
            "sop_class": unit.sop_class,
            "transfer_syntax": unit.transfer_syntax,
            "tag": unit.tag,
            "generation": unit.generation,
            "root": unit.object.root,
            "header": unit.object.header,
            "length": unit.object.length,
            "link": unit.link,
            "data_set": unit.data_set,
            "received": unit.received,
            "source": unit.source,
            "attributes": _encode(attributes.instance, {"00080018": unit.key.sop, "00080016": unit.sop_class}),
        },
        data={"frames": unit.frames, "bulk": unit.bulk, "json": zlib.compress(unit.json, 1)},
        blocks=[position._asdict() for position in unit.blocks],
    )


def record_rows(batch: int, position: int, records: Sequence[SealedRecord]) -> list[Row]:
    """The rows of records from a position on."""
    return [
        {"batch": batch, "position": position + number, "leaf": record.leaf, "sealed": record.sealed}
        for number, record in enumerate(records)
    ]


def _columns(level: Level, values: Values) -> Row:
    row: Row = {}
    for attribute, names in _MATCHED[level]:
        found = texts(attribute, values.get(attribute.tag))
        if attribute.matching is Matching.NUMBER:
            row[names[0]] = int(found[0]) if found else None
        else:
            row.update(zip(names, found or [""] * len(names), strict=True))
    return row


def _requests(values: Values) -> list[Row]:
    items = values.get(_REQUESTS, {}).get("Value")
    if not isinstance(items, (list, tuple)):
        return []
    step, procedure = BY_TAG[f"{_REQUESTS}.00400009"], BY_TAG[f"{_REQUESTS}.00401001"]
    return [
        {
            "item": number,
            "scheduled_procedure_step_id": _text(step, item),
            "requested_procedure_id": _text(procedure, item),
        }
        for number, item in enumerate(items)
        if isinstance(item, Mapping)
    ]


def _text(attribute: Attribute, item: Mapping[str, Mapping[str, object]]) -> str:
    return "".join(texts(attribute, item.get(attribute.tag.partition(".")[2]))[:1])


def _encode(values: Values, keys: Mapping[str, str] | None = None) -> str:
    """The values as canonical JSON; the identifying UIDs are those of the row, whatever the header wrote."""
    named = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in (keys or {}).items()}
    return json.dumps({**values, **named}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
