"""What the commands of `bridge.study_cli` do, at a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bridge.content import cid as cids
from bridge.crypto.hpke import Recipient
from bridge.errors import RequestError
from bridge.ledger_reading import origin_of, public_key
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.export_study import Sender, export_study
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


def export(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Write a study to a CAR, and its key to a file for one recipient. Errors as `export_study`."""
    out, key_out, root = Path(arguments["out"]), arguments.get("key_out"), arguments.get("root")
    try:
        to = Recipient.parse(arguments["to"]) if arguments.get("to") else None
        chosen = cids.from_text(root) if root else None
    except ValueError as error:
        raise RequestError(str(error)) from None
    sender = Sender(
        keystore=node.keystore,
        log=origin_of(node.settings, node.keystore),
        studies=node.index.trees,
        content=node.content,
        keys=node.keys,
        access=node.access,
    )
    key_file = Path(key_out) if key_out else None
    study = str(arguments["study"])
    written = export_study(sender, OPERATOR, study, out, report, to=to, key_out=key_file, root=chosen)
    return {
        "study": study,
        "root": cids.to_text(written.root),
        "instances": written.instances,
        "bytes": written.size,
        "file": str(out),
        "key_file": str(key_file) if key_file else None,
    }
