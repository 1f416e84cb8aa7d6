"""`cairn ledger entries|key|prove`: the ledger's files are read, whether its process runs or not."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

from bridge.consortium_log import ConsortiumLog
from bridge.errors import ConfigError, NotFound
from bridge.ledger_entries import listed
from bridge.ledger_reading import current_database
from bridge.node import COMMAND, Node
from ledger import checkpoint, policy, proof
from ledger.errors import LedgerError

Report = Callable[[str], None]
MOST_ENTRIES = 10_000
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
