"""A unit of writing as rows: everything about it that can be worked out before the transaction. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge.content.manifest import InstanceBlock
from bridge.content.sealed_metadata import SealedMetadata
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
    """The rows of one instance, without the ids that the database gives.

    `study_tag` is that of the instance's tree, `origin` says whose tree it is (see `bridge.model.Tree`).

    Those of its patient, study and series are worked out when asked for: they are needed for the first instance only.
    """

    unit: WriteUnit | RebuiltInstance
    study_tag: bytes
    origin: bytes | None
    instance: Row
    data: Row

    @property
    def key(self) -> InstanceKey:
        """The instance's."""
        return self.unit.key

    def patient(self) -> Row:
        """As `patient_row`."""
        return patient_row(self.unit.attributes)

    def study(self) -> Row:
        """The study's, as its first instance tells of it."""
        return {**study_row(self.unit.key.study, self.unit.attributes), "received": self.unit.received}

    def tree(self) -> Row:
        """The tree's, before anything of it is closed."""
        return {"origin": self.origin, "tag": self.study_tag, "root": None, "covered": 0}

    def series(self) -> Row:
        """The series', as its first instance tells of it."""
        return {**series_row(self.unit.key.series, self.unit.attributes), "instances": 0}

    def requests(self) -> list[Row]:
        """As `request_rows`."""
        return request_rows(self.unit.attributes)


def patient_row(attributes: Attributes) -> Row:
    """A patient's values; `identity` tells patients apart: SHA-256 (16 bytes of it) of all patient-level values."""
    encoded = _encode(attributes.patient)
    return {
        "identity": hashlib.sha256(encoded.encode()).digest()[:16],
        **_columns(Level.PATIENT, attributes.patient),
        "attributes": encoded,
    }


def study_row(uid: str, attributes: Attributes) -> Row:
    """A study's values, as one of its instances tells of it."""
    values = attributes.study
    return {**_columns(Level.STUDY, values), "uid": uid, "attributes": _encode(values, {"0020000D": uid})}


def series_row(uid: str, attributes: Attributes) -> Row:
    """A series' values, as one of its instances tells of it."""
    values = attributes.series
    return {**_columns(Level.SERIES, values), "uid": uid, "attributes": _encode(values, {"0020000E": uid})}


def request_rows(attributes: Attributes) -> list[Row]:
    """One for each item of the series' Request Attributes Sequence (0040,0275)."""
    return _requests(attributes.series)


def instance_rows(
    unit: WriteUnit | RebuiltInstance, study_tag: bytes | None, origin: bytes | None = None
) -> InstanceRows:
    """The rows of an instance. Raises ValueError without a study tag: every instance is sealed under a study's key."""
    if study_tag is None:
        raise ValueError("an instance belongs to a study's tree")
    values = unit.attributes.instance
    return InstanceRows(
        unit=unit,
        study_tag=study_tag,
        origin=origin,
        instance={
            **_columns(Level.INSTANCE, values),
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
            "attributes": _encode(values, {"00080018": unit.key.sop, "00080016": unit.sop_class}),
        },
        data={"frames": unit.frames, "bulk": unit.bulk, "json": unit.json},
    )


def rebuilt(
    metadata: SealedMetadata,
    block: InstanceBlock,
    link: bytes,
    attributes: Attributes,
    blocks: tuple[BlockPosition, ...] = (),
) -> RebuiltInstance:
    """An instance from its block and sealed metadata; `link` is the block's CID, `blocks` where all of it lies."""
    return RebuiltInstance(
        key=InstanceKey(metadata.study, metadata.series, metadata.sop),
        sop_class=metadata.sop_class,
        transfer_syntax=metadata.transfer_syntax,
        digest=metadata.digest,
        tag=block.tag,
        generation=block.generation,
        object=SealedObject(block.object, metadata.header, metadata.length),
        link=link,
        data_set=metadata.data_set,
        frames=metadata.frames,
        bulk=metadata.bulk,
        json=metadata.json,
        attributes=attributes,
        received=metadata.received,
        source=metadata.source,
        blocks=blocks,
    )


def block_rows(positions: Sequence[BlockPosition], instance: int | None) -> list[Row]:
    """The rows of an instance's blocks, or of blocks that are no instance's."""
    return [{**position._asdict(), "instance": instance} for position in positions]


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


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, check_circular=False)


def _encode(values: Values, keys: Mapping[str, str] | None = None) -> str:
    """The values as canonical JSON; the identifying UIDs are those of the row, whatever the header wrote."""
    named = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in (keys or {}).items()}
    return _ENCODER.encode({**values, **named})
