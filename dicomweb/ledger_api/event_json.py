"""Events and records of the ledger as JSON: names as people know them, bytes in hexadecimal, times in RFC 3339."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ledger.event import OUTCOMES, Detail, Event
from ledger.types import ENTRY_TYPES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def described(event: Event, origin: str) -> dict[str, object]:
    """An event with links to itself and to its proof; `origin` is this server's, as the client addressed it."""
    actor, patient = event.actor, event.patient
    url = f"{origin}/ledger/entries/{event.id.hex()}"
    kind = ENTRY_TYPES.get(event.type)
    return {
        "index": event.index,
        "id": event.id.hex(),
        "node": event.node.hex(),
        "hospital": event.hospital or None,
        "place": event.place,
        "finality": "final" if event.shared else "signed",
        "blockTime": None if event.block_time_us is None else iso(event.block_time_us),
        "sequence": event.sequence,
        "type": event.type,
        "action": kind.action if kind else None,
        "time": iso(event.time_us),
        "outcome": event.outcome,
        "outcomeText": OUTCOMES.get(event.outcome, ""),
        "purpose": event.purpose,
        "reason": event.reason,
        "actor": {
            "kind": actor.kind,
            "name": actor.name,
            "role": actor.role,
            "address": actor.address,
            "how": actor.how,
        },
        "study": event.study,
        "erased": event.erased,
        "patient": {"id": patient.id, "issuer": patient.issuer, "name": patient.name} if patient else None,
        "records": event.records,
        "links": {"self": url, "proof": f"{url}/proof"},
    }


def detailed(detail: Detail, origin: str) -> dict[str, object]:
    """A record: what it says (null when its key is gone), its canonical bytes in base64, and a link to its proof."""
    return {
        "id": detail.leaf.hex(),
        "position": detail.position,
        "time": None if detail.time_us is None else iso(detail.time_us),
        "body": None if detail.body is None else dag_json(detail.body),
        "encoded": None if detail.encoded is None else base64.b64encode(detail.encoded).decode(),
        "links": {"proof": f"{origin}/ledger/entries/{detail.leaf.hex()}/proof"},
    }


def dag_json(value: object) -> object:
    """A value of the ledger's data model as DAG-JSON has it: bytes are {"/": {"bytes": base64 without padding}}."""
    if isinstance(value, bytes):
        return {"/": {"bytes": base64.b64encode(value).decode().rstrip("=")}}
    if isinstance(value, Mapping):
        return {str(key): dag_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dag_json(item) for item in value]
    return value


def iso(time_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC, to the microsecond."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def microseconds(text: str) -> int | None:
    """A date (its first moment, UTC) or a date and time with its offset (RFC 3339) since the epoch; None for others."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        if len(text) != len("YYYY-MM-DD"):
            return None
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)
