"""`cairn ledger entries`: the entries of a node's logs in order, those that wait for consensus last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

from bridge.consortium_log import followed, hospitals, own_node
from bridge.errors import LedgerInvalid
from bridge.index.record_leaves import RecordLeaves
from bridge.node import Node
from bridge.services.provenance import iso
from ledger import entry
from ledger.block_store import BlockStore, Waiting
from ledger.errors import LedgerError
from ledger.store import LedgerStore, StoredEntry, row


class _Listed(NamedTuple):
    """An entry: its row (of one that waits: as it will be), and how far others vouch for it."""

    stored: StoredEntry
    finality: str


def listed(node: Node, after: int, limit: int) -> list[dict[str, object]]:
    """At most `limit` entries behind the first `after` of all logs; studies and hospitals by their names.

    Raises LedgerInvalid when a database cannot be read, StorageFault.
    """
    leaves, named = RecordLeaves(node.index.database), hospitals(node.consortium)
    own = None if node.consortium is None else own_node(node.consortium, node.keystore).id
    try:
        return [_described(node, one, named(one.stored.node), own, leaves) for one in _entries(node, after, limit)]
    except LedgerError as error:
        raise LedgerInvalid(str(error)) from error


def _entries(node: Node, after: int, limit: int) -> Iterator[_Listed]:
    witnessed = node.witnessing.newest() or 0 if node.witnessing is not None else 0
    with ExitStack() as opened:
        for log in followed(node.settings):
            if not log.database.exists():
                continue
            store: LedgerStore = opened.enter_context(
                closing((BlockStore if log.shared else LedgerStore)(log.database, readonly=True))
            )
            for stored in store.entries(after - 1, limit) if limit else ():
                own = "witnessed" if stored.idx < witnessed else "signed"
                yield _Listed(stored, "final" if log.shared else own)
                limit -= 1
            after = max(0, after - store.size())
            if isinstance(store, BlockStore):
                size = store.size()
                waiting = store.outbox()[after : after + limit]
                yield from (_Listed(_awaited(one, size + at), "pending") for at, one in enumerate(waiting, after))


def _awaited(one: Waiting, index: int) -> StoredEntry:
    """The row of an entry that waits, at the earliest place that it can come to."""
    return row(index, one.envelope, entry.read(one.envelope), one.of, one.records)


def _described(node: Node, one: _Listed, hospital: str, own: bytes | None, leaves: RecordLeaves) -> dict[str, object]:
    stored, mine = one.stored, own in (None, one.stored.node)
    return {
        "id": stored.leaf.hex(),
        "index": stored.idx if one.finality != "pending" else None,
        "type": stored.type,
        "time": iso(stored.time_us),
        "study": node.keys.study_of(stored.study) if stored.study else None,
        "records": [leaf.hex() for leaf in leaves.of_entry(stored.batch, stored.root)] if mine else [],
        "finality": one.finality,
        "hospital": hospital or None,
    }
