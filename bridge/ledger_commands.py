"""`cairn ledger entries|key|prove|verify`: the ledger's files are read, whether its process runs or not."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

from bridge.consortium import SharedConsortium
from bridge.consortium_log import ConsortiumLog, former_key, own_node
from bridge.errors import ConfigError, NotFound
from bridge.ledger_entries import listed
from bridge.ledger_reading import current_database, ledger_home, origin_of, public_key, record_source
from bridge.ledger_reading import shared_ledger_home as shared_home
from bridge.node import COMMAND, Node
from ledger import audit as ledger_audit
from ledger import audit_shared, checkpoint, kept, keys, merkle, policy, proof
from ledger.errors import LedgerError
from ledger.finding import Finding
from ledger.policy import Policy
from ledger.shared_policy import log_policy
from ledger.store import LedgerStore
from ledger.verify import Trust

Report = Callable[[str], None]
MOST_ENTRIES = 10_000
TOLD_EVERY = 10_000
POLL_S = 0.1


def key(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The log's verifier key (C2SP signed-note), and the policy that says whose cosignatures it needs."""
    return {"key": node.log.key(), "policy": node.log.policy()}


def entries(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Entries in order, studies resolved here. Raises LedgerInvalid when a database cannot be read, StorageFault."""
    return {"entries": listed(node, max(0, int(arguments["after"])), min(int(arguments["limit"]), MOST_ENTRIES))}


def prove(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The proof of an entry or record by its id in hexadecimal, waiting up to `wait` seconds until it is sealed.

    Also, for so long, until its checkpoint has the cosignatures that are needed; without them it is given then.
    With `commit`, a proof of the consortium's commit besides (`bridge.consensus.commit_proofs`), in base64.
    Raises NotFound when it is not there in time. Where no node runs nothing is sealed, and nothing is waited for.
    """
    id = bytes.fromhex(arguments["id"])
    until = time.monotonic() + (0 if node.owner == COMMAND else float(arguments.get("wait") or 0))
    if arguments.get("commit"):
        return _prove_commit(node, id, until)
    while True:
        try:
            text = node.log.prove(id)
            if time.monotonic() >= until or node.closed or _is_enough(node, text):
                return {"id": id.hex(), "proof": text}
        except NotFound:
            if time.monotonic() >= until or node.closed:
                raise
        time.sleep(POLL_S)


def _prove_commit(node: Node, id: bytes, until: float) -> object:
    """Raises ConfigError in no consortium; else as `commit_proofs.prove`."""
    if node.consortium is None or not isinstance(node.log, ConsortiumLog):
        raise ConfigError("--commit: this node is in no consortium, whose commit could be proved")
    from bridge.consensus import commit_proofs
    from bridge.consensus.light_blocks import FOLDER, LightBlocks
    from bridge.consensus.rpc import Rpc

    rpc, database = Rpc(node.settings.ledger.cometbft.rpc), current_database(node.settings)
    kept = LightBlocks(node.settings.home / FOLDER)
    found = commit_proofs.prove(database, node.consortium.genesis, rpc, kept, node.log, id, until)
    return {"id": id.hex(), "proof": found.proof, "commit": base64.b64encode(found.commit).decode("ascii")}


def _is_enough(node: Node, text: str) -> bool:
    """Whether a proof has the cosignatures that its log's policy asks for; a log that was closed asks for none."""
    try:
        trust = policy.parse(node.log.policy().encode())
        if checkpoint.parse(checkpoint.split_note(proof.parse(text).note)[0]).origin not in {
            log.name for log in trust.logs
        }:
            return True
        proof.verify_under(text, trust)
    except LedgerError:
        return False
    return True


def verify(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Every finding about this node's ledger and the records behind it, also against an older checkpoint (`since`).

    In a consortium: about its own log, the shared one, the outbox, and the records behind all of them. With `hashes`,
    of the tree and files alone.
    """

    def progress(what: str, done: int, of: int) -> None:
        if done % TOLD_EVERY == 0 and done:
            report(f"{done:,} of {of:,} {what} verified")

    told = {
        "progress": partial(progress, "entries"),
        "progress_of_records": partial(progress, "entries' records"),
        "signatures": not arguments.get("hashes"),
    }
    home, waiting = ledger_home(node.settings), 0
    with closing(record_source(node.settings, node.keys, node.keystore)) as source:
        if node.consortium is None:
            origin = origin_of(node.settings, node.keystore)
            findings = ledger_audit.audit(home, public_key(node.keystore), origin, source, **told)  # type: ignore[arg-type]
            held = _size(node)
        else:
            own = own_node(node.consortium, node.keystore)
            found = audit_shared.audit_shared(
                shared_home(node.settings),
                node.consortium.genesis,
                own.id,
                keys.raw(public_key(node.keystore)),
                (home, _own_trust(node, former_key(node.settings, node.keystore, node.consortium))),
                source,
                **told,  # type: ignore[arg-type]
            )
            findings, held, waiting = found.findings, found.entries, found.waiting
    if arguments.get("since") is not None:
        findings += _since(node, arguments["since"])
    return {
        "findings": [{"place": finding.place, "what": finding.what} for finding in findings],
        "entries": held,
        "waiting": waiting,
    }


def _own_trust(node: Node, key: bytes) -> Trust:
    """What is known of the log that this node keeps, or kept, alone."""
    return Trust.solo(key, origin_of(node.settings, node.keystore))


def _since(node: Node, text: str) -> list[Finding]:
    """What of this node's ledger contradicts an older checkpoint, or the checkpoint of an older proof."""
    own = Policy.of_log(origin_of(node.settings, node.keystore), public_key(node.keystore))
    asked, database = own, current_database(node.settings)
    if node.consortium is not None:
        asked = _shared_trust(node, node.consortium)
        if _origin(text) == own.logs[0].name:  # of the log that was closed
            first = former_key(node.settings, node.keystore, node.consortium)
            asked, database = Policy.of_log(own.logs[0].name, first), ledger_home(node.settings) / database.name
    try:
        older = kept.read(text, asked).head
    except LedgerError as error:
        return [kept.unreadable(error)]
    try:
        with closing(LedgerStore(database, readonly=True)) as store:
            return kept.contradictions(older, store.size(), lambda size: merkle.root(store.leaves(0, size)))
    except (LedgerError, OSError) as error:
        return [Finding(database.name, f"it cannot be read: {error}")]


def _shared_trust(node: Node, consortium: SharedConsortium) -> Policy:
    """The checkpoints of any member, and this node's own before the log has its key."""
    return log_policy(consortium.state(), consortium.genesis.origin, key=keys.raw(public_key(node.keystore)))


def _origin(text: str) -> str | None:
    """Of which log a checkpoint, or a proof, is; None when it is neither."""
    try:
        note = proof.parse(text).note if text.startswith(proof.FIRST_LINE) else text
        return checkpoint.parse(checkpoint.split_note(note)[0]).origin
    except LedgerError:
        return None


def _size(node: Node) -> int | None:
    """How many entries the ledger holds; None when it cannot be read, which a finding has said."""
    try:
        with closing(LedgerStore(current_database(node.settings), readonly=True)) as store:
            return store.size()
    except (LedgerError, OSError):
        return None
