"""`cairn ledger entries|key|verify`: the ledger's files are read, whether its process runs or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from bridge.errors import LedgerInvalid
from bridge.ledger_reading import ledger_home, origin_of, public_key, record_source
from bridge.node import Node
from bridge.services.provenance import iso
from ledger import audit as ledger_audit
from ledger import checkpoint
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError
from ledger.source import RecordSource
from ledger.store import LedgerStore, StoredEntry

Report = Callable[[str], None]
MOST_ENTRIES = 10_000
TOLD_EVERY = 10_000


def key(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The log's verifier key (C2SP signed-note)."""
    return {"key": checkpoint.vkey(origin_of(node.settings, node.keystore), public_key(node.keystore))}


def entries(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Entries in order, studies resolved here. Raises LedgerInvalid when the database cannot be read."""
    path = ledger_home(node.settings) / DATABASE
    if not path.exists():
        return {"entries": []}
    try:
        with (
            closing(record_source(node.settings, node.keys, node.keystore)) as source,
            closing(LedgerStore(path, readonly=True)) as store,
        ):
            found = store.entries(int(arguments["after"]) - 1, min(int(arguments["limit"]), MOST_ENTRIES))
            return {"entries": [_described(node, source, stored) for stored in found]}
    except LedgerError as error:
        raise LedgerInvalid(str(error)) from error


def verify(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Every finding about this node's ledger and the records behind it."""

    def progress(done: int, of: int) -> None:
        if done % TOLD_EVERY == 0 and done:
            report(f"{done} of {of} entries verified")

    home = ledger_home(node.settings)
    origin = origin_of(node.settings, node.keystore)
    with closing(record_source(node.settings, node.keys, node.keystore)) as source:
        findings = ledger_audit.audit(home, public_key(node.keystore), origin, source, progress)
    return {
        "findings": [{"place": finding.place, "what": finding.what} for finding in findings],
        "entries": _size(node),
    }


def _size(node: Node) -> int | None:
    """How many entries the ledger holds; None when it cannot be read, which a finding has said."""
    try:
        with closing(LedgerStore(ledger_home(node.settings) / DATABASE, readonly=True)) as store:
            return store.size()
    except (LedgerError, OSError):
        return None


def _described(node: Node, source: RecordSource, stored: StoredEntry) -> dict[str, object]:
    records = source.records(stored.batch) if stored.epoch == source.epoch() else []
    return {
        "id": stored.leaf.hex(),
        "index": stored.idx,
        "type": stored.type,
        "time": iso(stored.time_us),
        "study": node.keys.study_of(stored.study) if stored.study else None,
        "records": [record.leaf.hex() for record in records],
        "finality": "signed",
    }
