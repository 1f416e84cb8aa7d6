"""JSON Schemas of what the ledger's resources and refusals answer; the tests hold real answers against them."""

from __future__ import annotations

from typing import Any, Final

from ledger.event import OUTCOMES
from ledger.types import ENTRY_TYPES

ANSWERS: Final = {
    "entries": "Entries",
    "entry": "Entry",
    "provenance": "Events",
    "consistency": "Consistency",
}
"""The schema of a transaction's JSON answer, by the transaction's name."""


def _object(*optional: str, **properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties and no others, all required but the optional ones."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "null"}]}


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TIME: Final = {"type": "string", "format": "date-time"}
_URI: Final = {"type": "string", "format": "uri"}
_BASE64: Final = {"type": "string", "contentEncoding": "base64"}
_HASH: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

_EVENT: Final[dict[str, dict[str, Any]]] = {
    "index": _COUNT,
    "id": _HASH,
    "node": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "hospital": _or_null(_TEXT),
    "place": _COUNT,
    "finality": {"enum": ["signed", "final"]},
    "blockTime": _or_null(_TIME),
    "sequence": _COUNT,
    "type": {"enum": sorted(ENTRY_TYPES)},
    "action": {"enum": ["C", "R", "U", "D", "E"]},
    "time": _TIME,
    "outcome": {"enum": list(OUTCOMES)},
    "outcomeText": _TEXT,
    "purpose": _TEXT,
    "reason": _TEXT,
    "actor": _object(
        kind={"enum": ["system", "user", "device", "peer"]}, name=_TEXT, role=_TEXT, address=_TEXT, how=_TEXT
    ),
    "study": _or_null(_TEXT),
    "erased": {"type": "boolean"},
    "patient": _or_null(_object(id=_TEXT, issuer=_TEXT, name=_TEXT)),
    "records": _COUNT,
    "links": _object(self=_URI, proof=_URI),
}
_DETAIL: Final = _object(
    id=_HASH,
    position=_COUNT,
    time=_or_null(_TIME),
    body=_or_null({"type": "object", "description": "In DAG-JSON."}),
    encoded=_or_null(_BASE64),
    links=_object(proof=_URI),
)
SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "Problem": _object(
        type={"type": "string", "pattern": "^urn:cairn:problem:"},
        title=_TEXT,
        status={"type": "integer"},
        detail=_TEXT,
        advice=_TEXT,
    ),
    "Event": _object(**_EVENT),
    "Events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
    "Entries": _object(entries={"$ref": "#/components/schemas/Events"}, next=_or_null(_URI)),
    "Entry": _object(**_EVENT, details={"type": "array", "items": _DETAIL}, envelope=_BASE64),
    "Consistency": _object(to=_COUNT, proof={"type": "array", "items": _BASE64}, **{"from": _COUNT}),
}
