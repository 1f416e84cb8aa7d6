"""`cairn ledger entries|key|prove|verify`: the ledger's files are read, whether its process runs or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from bridge.errors import LedgerInvalid, NotFound
from bridge.index.record_leaves import RecordLeaves
from bridge.ledger_reading import ledger_home, origin_of, public_key, record_source
from bridge.node import COMMAND, Node
from bridge.services.provenance import iso
from ledger import audit as ledger_audit
from ledger import checkpoint, kept, merkle, policy, proof
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.policy import Policy
from ledger.store import LedgerStore, StoredEntry

Report = Callable[[str], None]
MOST_ENTRIES = 10_000
TOLD_EVERY = 10_000
POLL_S = 0.1


def key(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The log's verifier key (C2SP signed-note), and the policy that says whose cosignatures it needs."""
    return {"key": _vkey(node), "policy": _policy(node)}


def _vkey(node: Node) -> str:
    return checkpoint.vkey(origin_of(node.settings, node.keystore), public_key(node.keystore))


def _policy(node: Node) -> str:
    """What trusting the log asks for (C2SP tlog-policy)."""
    vkey = _vkey(node)
    return f"log {vkey}\nquorum none\n" if node.witnessing is None else node.witnessing.policy(vkey)


def entries(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Entries in order, studies resolved here. Raises LedgerInvalid when the database cannot be read."""
    path = ledger_home(node.settings) / DATABASE
    if not path.exists():
        return {"entries": []}
    try:
        with closing(LedgerStore(path, readonly=True)) as store:
            found = store.entries(int(arguments["after"]) - 1, min(int(arguments["limit"]), MOST_ENTRIES))
        leaves = RecordLeaves(node.index.database)
        witnessed = node.witnessing.newest() or 0 if node.witnessing is not None else 0
        return {"entries": [_described(node, leaves, stored, witnessed) for stored in found]}
    except LedgerError as error:
        raise LedgerInvalid(str(error)) from error


def prove(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The proof of an entry or record by its id in hexadecimal, waiting up to `wait` seconds until it is sealed.

    Also, for so long, until its checkpoint has the cosignatures that are needed; without them it is given then.
    Raises NotFound when it is not there in time. Where no node runs nothing is sealed, and nothing is waited for.
    """
    id = bytes.fromhex(arguments["id"])
    until = time.monotonic() + (0 if node.owner == COMMAND else float(arguments.get("wait") or 0))
    while True:
        try:
            text = node.log.prove(id)
            if time.monotonic() >= until or node.closed or _is_enough(node, text):
                return {"id": id.hex(), "proof": text}
        except NotFound:
            if time.monotonic() >= until or node.closed:
                raise
        time.sleep(POLL_S)


def _is_enough(node: Node, text: str) -> bool:
    """Whether a proof has the cosignatures that this log's policy asks for."""
    if node.witnessing is None or not node.witnessing.witnesses:
        return True
    try:
        proof.verify_under(text, policy.parse(_policy(node).encode()))
    except LedgerError:
        return False
    return True


def verify(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Every finding about this node's ledger and the records behind it, also against an older checkpoint (`since`).

    With `hashes`, of the tree and files alone.
    """

    def progress(what: str, done: int, of: int) -> None:
        if done % TOLD_EVERY == 0 and done:
            report(f"{done:,} of {of:,} {what} verified")

    home = ledger_home(node.settings)
    origin = origin_of(node.settings, node.keystore)
    with closing(record_source(node.settings, node.keys, node.keystore)) as source:
        findings = ledger_audit.audit(
            home,
            public_key(node.keystore),
            origin,
            source,
            partial(progress, "entries"),
            progress_of_records=partial(progress, "entries' records"),
            signatures=not arguments.get("hashes"),
        )
    if arguments.get("since") is not None:
        findings += _since(node, arguments["since"])
    return {
        "findings": [{"place": finding.place, "what": finding.what} for finding in findings],
        "entries": _size(node),
    }


def _since(node: Node, text: str) -> list[Finding]:
    """What of this node's ledger contradicts an older checkpoint, or the checkpoint of an older proof."""
    trust = Policy.of_log(origin_of(node.settings, node.keystore), public_key(node.keystore))
    try:
        older = kept.read(text, trust).head
    except LedgerError as error:
        return [kept.unreadable(error)]
    try:
        with closing(LedgerStore(ledger_home(node.settings) / DATABASE, readonly=True)) as store:
            return kept.contradictions(older, store.size(), lambda size: merkle.root(store.leaves(0, size)))
    except (LedgerError, OSError) as error:
        return [Finding(DATABASE, f"it cannot be read: {error}")]


def _size(node: Node) -> int | None:
    """How many entries the ledger holds; None when it cannot be read, which a finding has said."""
    try:
        with closing(LedgerStore(ledger_home(node.settings) / DATABASE, readonly=True)) as store:
            return store.size()
    except (LedgerError, OSError):
        return None


def _described(node: Node, leaves: RecordLeaves, stored: StoredEntry, witnessed: int) -> dict[str, object]:
    return {
        "id": stored.leaf.hex(),
        "index": stored.idx,
        "type": stored.type,
        "time": iso(stored.time_us),
        "study": node.keys.study_of(stored.study) if stored.study else None,
        "records": [leaf.hex() for leaf in leaves.of_entry(stored.batch, stored.root)],
        "finality": "witnessed" if stored.idx < witnessed else "signed",
    }
