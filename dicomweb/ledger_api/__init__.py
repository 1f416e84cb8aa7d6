"""The ledger over HTTP, below `/ledger`: its table of routes."""

from __future__ import annotations

from bridge.model import Action
from dicomweb.exchange import Handler
from dicomweb.ledger_api import entries, events_csv, log, stream
from dicomweb.media_types import JSON, OCTET_STREAM
from dicomweb.resource import Parameter, Resource, Transaction

LEDGER_ROOT = "/ledger"


def _get(
    name: str,
    handler: Handler,
    gives: str,
    parameters: tuple[Parameter, ...] = (),
    action: Action | None = Action.AUDIT,
) -> dict[str, Transaction]:
    return {"GET": Transaction(name, handler, action, parameters, (gives,))}


RESOURCES = (
    Resource("/checkpoint", _get("checkpoint", log.checkpoint, log.TEXT, action=None)),
    Resource("/key", _get("key", log.key, log.TEXT, action=None)),
    Resource("/policy", _get("policy", log.policy, log.TEXT, action=None)),
    Resource("/tile/{path:path}", _get("tile", log.tile, OCTET_STREAM)),
    Resource("/entries", _get("entries", entries.search, JSON, entries.PARAMETERS)),
    Resource("/events.csv", _get("events", events_csv.events_csv, events_csv.MEDIA_TYPE, entries.PARAMETERS)),
    Resource("/entries/{id}", _get("entry", entries.retrieve, JSON)),
    Resource("/entries/{id}/proof", _get("proof", log.proof, log.TEXT)),
    Resource("/consistency", _get("consistency", log.consistency, JSON, log.SIZES)),
    Resource("/stream", _get("stream", stream.stream, stream.MEDIA_TYPE)),
)
