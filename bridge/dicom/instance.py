"""Reading an instance as its data set arrives: who it is, its metadata, where its frames and bulk values lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from bridge.dicom import transfer_syntaxes
from bridge.dicom.bulk import BulkTable
from bridge.dicom.data_set import DataSetReader
from bridge.dicom.frames import FrameTable
from bridge.dicom.inflater import Inflater
from bridge.dicom.json_model import UTF8_TERM, Attribute
from bridge.dicom.limits import WARNINGS
from bridge.dicom.pixel_layout import frame_table
from bridge.dicom.uids import identifies
from bridge.errors import IdentityMissing
from bridge.model import InstanceKey

_SOP_CLASS: Final = "00080016"
_STUDY: Final = "0020000D"
_SERIES: Final = "0020000E"
_SOP_INSTANCE: Final = "00080018"
_UIDS: Final = frozenset((_SOP_CLASS, _STUDY, _SERIES, _SOP_INSTANCE))
_SPECIFIC_CHARACTER_SET: Final = "00080005"


@dataclass(frozen=True, slots=True)
class Identity:
    """SOP Class UID (0008,0016) and the instance's UIDs, as the data set has them."""

    sop_class: str
    key: InstanceKey


@dataclass(frozen=True, slots=True)
class ScannedInstance:
    """What one pass over a data set found.

    `attributes_json` is its DICOM JSON Model (PS3.18 Annex F) by tag in ascending order, `json` the same as compact
    UTF-8; `length` the bytes of the data set (inflated when its transfer syntax is deflated), from whose first the
    offsets in `frames` and `bulk` count; `warnings` say in words, without values, what was amiss.
    """

    identity: Identity
    attributes_json: dict[str, Attribute]
    json: bytes
    frames: FrameTable
    bulk: BulkTable
    length: int
    warnings: tuple[str, ...]


class InstanceReader:
    """Reads one data set that arrives in pieces; memory does not grow with pixel data or large bulk values.

    Parameters
    ----------
    transfer_syntax
        The UID from file meta information or the presentation context; one that is not known is taken for Explicit
        VR Little Endian.
    """

    def __init__(self, transfer_syntax: str) -> None:
        self._syntax = transfer_syntaxes.of(transfer_syntax)
        self._inflater = Inflater() if self._syntax.deflated else None
        self._reader = DataSetReader(self._syntax)
        self._identity: Identity | None = None

    @property
    def identity(self) -> Identity | None:
        """Who the instance is, as soon as all four UIDs have been read."""
        if self._identity is None and self._reader.attributes.keys() >= _UIDS:
            found = [self._uid(tag) for tag in (_SOP_CLASS, _STUDY, _SERIES, _SOP_INSTANCE)]
            if all(identifies(uid) for uid in found):
                sop_class, *key = found
                self._identity = Identity(sop_class, InstanceKey(*key))
        return self._identity

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes of the data set, in order, in pieces of any size.

        Raises
        ------
        Unreadable
            Damage, or more than `bridge.dicom.limits` allows.
        IdentityMissing
            The pixel data have begun, and a UID is missing or is none.
        """
        if self._inflater is None:
            self._reader.feed(data)
        else:
            for piece in self._inflater.feed(data):
                self._reader.feed(piece)
        if self._reader.pixel_data is not None:
            self._identified()

    def finish(self) -> ScannedInstance:
        """There are no more bytes.

        Raises
        ------
        Unreadable
            The data set is truncated.
        IdentityMissing
            A UID is missing or is none (PS3.5 section 9).
        """
        if self._inflater is not None:
            self._inflater.finish()
        self._reader.finish()
        identity = self._identified()
        frames = frame_table(self._reader, self._syntax)
        attributes = self._reader.attributes
        text = _compact(attributes)
        if _SPECIFIC_CHARACTER_SET not in attributes and not text.isascii():
            attributes = dict(sorted({**attributes, _SPECIFIC_CHARACTER_SET: _utf8()}.items()))
            text = _compact(attributes)
        return ScannedInstance(
            identity=identity,
            attributes_json=attributes,
            json=text.encode("utf-8", "replace"),
            frames=frames,
            bulk=BulkTable(self._reader.bulk),
            length=self._reader.length,
            warnings=tuple(sorted(self._reader.warnings)[:WARNINGS]),
        )

    def _uid(self, tag: str) -> str:
        values: list[Any] = self._reader.attributes.get(tag, {}).get("Value") or [None]
        return values[0] if isinstance(values[0], str) else ""

    def _identified(self) -> Identity:
        identity = self.identity
        if identity is not None:
            return identity
        for tag, name in (
            (_STUDY, "Study Instance UID (0020,000D)"),
            (_SERIES, "Series Instance UID (0020,000E)"),
            (_SOP_INSTANCE, "SOP Instance UID (0008,0018)"),
            (_SOP_CLASS, "SOP Class UID (0008,0016)"),
        ):
            if not identifies(self._uid(tag)):
                raise IdentityMissing(f"no {name}, or one that is not a UID")
        raise IdentityMissing("no UIDs")


def _utf8() -> Attribute:
    return {"vr": "CS", "Value": [UTF8_TERM]}


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def _compact(attributes: dict[str, Attribute]) -> str:
    return _ENCODER.encode(attributes)
