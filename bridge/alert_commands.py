"""`cairn ledger alerts` and `cairn ledger review`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.access import expiry
from bridge.errors import RequestError
from bridge.model import OPERATOR
from bridge.node import COMMAND, Node
from bridge.services.provenance import iso, now_us
from ledger.alerts import Alert
from ledger.event import Event
from ledger.sentence import sentence

Report = Callable[[str], None]
SINCE = "7d"


def alerts(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """What the rules find in the ledger since a time, recorded or not, and what waits for a review.

    Raises ConfigError for a time that cannot be read, StorageFault.
    """
    since = expiry.parse_past(str(arguments.get("since") or SINCE), now_us())
    if node.owner == COMMAND:
        node.audit.follow()  # where a node runs, it does
    found, unreviewed = node.watch.find(since)
    return {
        "alerts": [_described(alert) for alert in found],
        "unreviewed": [_waiting(event) for event in unreviewed],
        "since": iso(since),
    }


def review(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Record a review. Raises RequestError, NotFound, StorageFull, StorageFault, Busy."""
    try:
        entry = bytes.fromhex(str(arguments["entry"]))
    except ValueError:
        raise RequestError("an entry is named by its id, 64 hexadecimal digits; see cairn ledger entries") from None
    if node.owner == COMMAND:
        node.audit.follow()
    event = node.review(OPERATOR, entry, str(arguments["note"]))
    return {"reviewed": event.id.hex(), "what": sentence(event)}


def _described(alert: Alert) -> dict[str, object]:
    return {
        "id": alert.id.hex(),
        "rule": alert.rule,
        "severity": alert.severity,
        "time": iso(alert.time_us),
        "what": alert.what,
        "entries": [entry.hex() for entry in alert.entries],
    }


def _waiting(event: Event) -> dict[str, object]:
    return {"id": event.id.hex(), "time": iso(event.time_us), "what": sentence(event)}
