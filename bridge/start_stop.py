"""What a node records of itself when it starts and stops: its keys at the first start, its settings, its processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from bridge import config
from bridge.config import Settings
from bridge.errors import CairnError, ContentCorrupt
from bridge.index.database import open_database
from bridge.index.last_record import last_record
from bridge.ledger_reading import index_place, opener, public_key
from bridge.model import Actor
from bridge.node import Node
from bridge.services.access import SYSTEM
from ledger import keys, record

log = logging.getLogger(__name__)
DEFAULT = "the default"
KEYS = ("signing", "agreement", "key encryption", "actor tags", "audit")


def is_first(settings: Settings) -> bool:
    """Whether no node has ever run on this index; a command may have made keys, index and ledger before.

    Raises as `open_database`.
    """
    with closing(open_database(index_place(settings))) as database:
        return last_record(database, "app.start") is None


def started(node: Node, processes: Sequence[str], *, keys_are_new: bool) -> None:
    """Record, durably, a start of the node. A full disk does not keep it from serving: what fails is logged.

    (1) `admin.key`: the keys, when they are new, or the ledger key when another is in use than was recorded last
    (2) `config.change`: what differs from the settings of the last start, by name, secrets hidden
    (3) `app.start`: version, processes, and every setting that is not the default
    """
    if keys_are_new:
        _or_log(lambda: record_keys(node, SYSTEM))
    _or_log(lambda: _record_rotation(node))
    _or_log(lambda: _record_start(node, processes))


def stopped(node: Node) -> None:
    """Record, durably, that the node ends, after what this process has served and stored until then."""
    node.access.close_all()
    node.batches.close_all()
    _or_log(lambda: node.access.administered("app.stop", SYSTEM, _about(node)))


def record_keys(node: Node, actor: Actor) -> None:
    """(1) Record, once, that the node's keys were made. Raises StorageFull, StorageFault, Busy."""
    if last_record(node.index.database, "admin.key") is None:
        signing = keys.raw(public_key(node.keystore))
        body = {"did": "created", "keys": list(KEYS), "signing": signing, "protection": node.keystore.protection.value}
        node.access.administered("admin.key", actor, body)


def _record_rotation(node: Node) -> None:
    """(1) The members have accepted another ledger key, which is in use from this start on."""
    signing, recorded = keys.raw(public_key(node.keystore)), _last_body(node, "admin.key")
    former = None if recorded is None else recorded.get("signing")
    if former is not None and former != signing:
        body = {"did": "rotated", "keys": ["signing"], "signing": signing, "former": former}
        node.access.administered("admin.key", SYSTEM, body)


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> list[dict[str, str]]:
    """What differs between two sets of settings that are not the default, by name. Pure."""
    return [
        {"setting": name, "from": before.get(name, DEFAULT), "to": now.get(name, DEFAULT)}
        for name in sorted({*before, *now})
        if before.get(name, DEFAULT) != now.get(name, DEFAULT)
    ]


def _record_start(node: Node, processes: Sequence[str]) -> None:
    now = config.recordable(node.settings, node.keystore.audit_key)
    before = _last_settings(node)
    changes = difference(before, now) if before is not None else []
    if changes:
        node.access.administered("config.change", SYSTEM, {"changes": changes})
    node.access.administered("app.start", SYSTEM, {**_about(node), "processes": list(processes), "settings": now})


def _last_settings(node: Node) -> Mapping[str, str] | None:
    """The settings that the last start recorded; None when there was none, or its record does not open."""
    body = _last_body(node, "app.start")
    settings = body.get("settings") if body is not None else None
    return {str(name): str(value) for name, value in settings.items()} if isinstance(settings, Mapping) else None


def _last_body(node: Node, kind: str) -> Mapping[str, object] | None:
    """What the last record of a type says; None when there is none, or it does not open."""
    sealed = last_record(node.index.database, kind)
    try:
        encoded = opener(node.keys, node.keystore)(None, sealed) if sealed is not None else None
    except ContentCorrupt:
        log.error(f"the last record of {kind} does not open: see cairn ledger verify")
        return None
    return record.decode(encoded).body if encoded is not None else None


def _about(node: Node) -> dict[str, object]:
    return {"version": node.version, "node": node.keystore.node_id}


def _or_log(write: Callable[[], None]) -> None:
    try:
        write()
    except CairnError as error:
        log.error("a start or stop could not be recorded", extra={"slug": error.slug})
