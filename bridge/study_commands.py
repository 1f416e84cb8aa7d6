"""What the commands of `bridge.study_cli` do, at a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.crypto.hpke import Recipient
from bridge.ledger_reading import origin_of, public_key
from bridge.node import Node
from ledger import checkpoint

Report = Callable[[str], None]


def key_show(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The node's public keys: the log's verifier key (C2SP signed-note, Ed25519) and the HPKE recipient (X25519)."""
    keystore = node.keystore
    return {
        "node": keystore.node_id.hex(),
        "verifier": checkpoint.vkey(origin_of(node.settings, keystore), public_key(keystore)),
        "recipient": Recipient.of(keystore.node_id, keystore.agreement_seed).text(),
    }
