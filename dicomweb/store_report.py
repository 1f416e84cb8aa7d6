"""The Store Instances Response: PS3.18 10.5.3 and Annex I.2. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.responses import Response

from bridge.errors import CairnError, CapacityError, StorageFault
from bridge.model import InstanceKey
from dicomweb.media_types import DICOM_JSON
from dicomweb.problems import RETRY_AFTER_SECONDS

RETRIEVE_URL = "00081190"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_SEQUENCE = "00081199"
OTHER_FAILURES_SEQUENCE = "0008119A"
REFERENCED_SOP_CLASS_UID = "00081150"
REFERENCED_SOP_INSTANCE_UID = "00081155"
FAILURE_REASON = "00081197"


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance that is durable."""

    key: InstanceKey
    sop_class: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A part that was not stored; its SOP Instance UID is None when it could not be identified."""

    error: CairnError
    sop: str | None
    sop_class: str | None


@dataclass(slots=True)
class Report:
    """What became of each part; `root` is the DICOMweb root's absolute URL, `study` that of the request, if any."""

    root: str
    study: str | None = None
    stored: list[Stored] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def status(self) -> int:
        """200 all stored, 202 some, 409 none (PS3.18 10.5.3.1); 503 when none for want of capacity."""
        if self.stored:
            return HTTPStatus.ACCEPTED if self.failed else HTTPStatus.OK
        if self.failed and all(isinstance(failure.error, CapacityError | StorageFault) for failure in self.failed):
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.CONFLICT

    def document(self) -> dict[str, object]:
        """The data set of the answer (Table I.2-1) in DICOM JSON; sequences are absent when they would be empty."""
        url = self._study_url()
        document: dict[str, object] = {RETRIEVE_URL: _value("UR", url) if url else {"vr": "UR"}}
        identified = [failure for failure in self.failed if failure.sop is not None]
        others = [failure for failure in self.failed if failure.sop is None]
        if identified:
            document[FAILED_SOP_SEQUENCE] = _sequence([_failed_item(failure) for failure in identified])
        if self.stored:
            document[REFERENCED_SOP_SEQUENCE] = _sequence([self._stored_item(stored) for stored in self.stored])
        if others:
            reasons: list[dict[str, object]] = [
                {FAILURE_REASON: _value("US", failure.error.answer.stow)} for failure in others
            ]
            document[OTHER_FAILURES_SEQUENCE] = _sequence(reasons)
        return document

    def response(self, status: int | None = None) -> Response:
        """The HTTP answer; Content-Type exactly application/dicom+json, since clients compare it so."""
        code = self.status() if status is None else status
        headers = {"cache-control": "no-store"}
        if code == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["retry-after"] = str(RETRY_AFTER_SECONDS)
        if self.stored:
            # 10.5.3.2: both shall be present if a resource was created.
            headers["location"] = headers["content-location"] = self._study_url() or f"{self.root}/studies"
        body = json.dumps(self.document(), separators=(",", ":")).encode()
        return Response(body, code, headers, DICOM_JSON)

    def _study_url(self) -> str | None:
        studies = {stored.key.study for stored in self.stored} or ({self.study} if self.study else set())
        return f"{self.root}/studies/{studies.pop()}" if len(studies) == 1 else None

    def _stored_item(self, stored: Stored) -> dict[str, object]:
        key = stored.key
        url = f"{self.root}/studies/{key.study}/series/{key.series}/instances/{key.sop}"
        return {
            REFERENCED_SOP_CLASS_UID: _value("UI", stored.sop_class),
            REFERENCED_SOP_INSTANCE_UID: _value("UI", key.sop),
            RETRIEVE_URL: _value("UR", url),
        }


def _failed_item(failure: Failed) -> dict[str, object]:
    sop_class = _value("UI", failure.sop_class) if failure.sop_class else {"vr": "UI"}
    return {
        REFERENCED_SOP_CLASS_UID: sop_class,
        REFERENCED_SOP_INSTANCE_UID: _value("UI", failure.sop),
        FAILURE_REASON: _value("US", failure.error.answer.stow),
    }


def _value(vr: str, value: object) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


def _sequence(items: Sequence[dict[str, object]]) -> dict[str, object]:
    return {"vr": "SQ", "Value": list(items)}
