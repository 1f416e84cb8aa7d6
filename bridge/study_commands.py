"""What the commands of `bridge.study_cli` do, at a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bridge.content import cid as cids
from bridge.crypto import study_key_file
from bridge.crypto.hpke import Recipient
from bridge.erasing import erasing_of
from bridge.errors import CarInvalid, ConfigError, KeyFileInvalid, RequestError
from bridge.ledger_reading import origin_of, public_key
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services import import_study
from bridge.services.erase import erase as erase_study
from bridge.services.export_study import Sender, export_study
from bridge.services.import_study import Imported
from bridge.services.provenance import iso
from bridge.sharing import importer_of
from bridge.witnesses import cosigner
from ledger import checkpoint
from ledger.errors import CodecError

Report = Callable[[str], None]
LONGEST_REASON = 500


def key_show(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """The node's public keys: those of its log and its cosignatures (C2SP signed-note), the HPKE recipient (X25519)."""
    keystore = node.keystore
    return {
        "node": keystore.node_id.hex(),
        "verifier": checkpoint.vkey(origin_of(node.settings, keystore), public_key(keystore)),
        "cosigner": cosigner(node.settings, keystore).vkey(),
        "recipient": Recipient.of(keystore.node_id, keystore.agreement_seed).text(),
    }


def export(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Write a study to a CAR, and its key to a file for one recipient. Errors as `export_study`."""
    out, key_out, root = Path(arguments["out"]), arguments.get("key_out"), arguments.get("root")
    try:
        to = Recipient.parse(arguments["to"].strip()) if arguments.get("to") else None
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


def import_(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Take in a study from a CAR, with its key when a key file is given; a refusal is recorded. Errors as
    `import_study`."""
    recipient = importer_of(node)
    try:
        sender = checkpoint.parse_vkey(arguments["from"]).key if arguments.get("from") else None
    except CodecError as error:
        raise RequestError(f"--from is not a verifier key: {error.detail}") from None
    path, key = Path(arguments["path"]), arguments.get("key")
    for given in (path, *([Path(key)] if key else [])):
        if given.exists() and not given.is_file():  # a pipe can be read once at most, and may never begin
            raise ConfigError(f"{given} is not a file")
    try:
        key_file = _small(Path(key)) if key else None
        with path.open("rb") as file:
            found = import_study.import_study(recipient, OPERATOR, file, report, key_file=key_file, sender_key=sender)
    except (CarInvalid, KeyFileInvalid) as error:
        node.access.administered(import_study.KIND, OPERATOR, {"refused": error.slug, "why": error.detail}, outcome=8)
        raise
    except OSError as error:
        raise ConfigError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    return _described(found)


def erase(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """Destroy a study's keys, and forget it. Errors as `services.erase.erase`, RequestError for a long reason."""
    reason = str(arguments.get("reason") or "")
    if len(reason) > LONGEST_REASON or not (reason.isprintable() or not reason):
        raise RequestError(f"a reason has at most {LONGEST_REASON} printable characters")
    study = str(arguments["study"])
    done = erase_study(erasing_of(node), OPERATOR, study, reason, report)
    return {
        "study": study,
        "instances": done.instances,
        "keys": done.keys,
        "wrapped_anew": done.wrapped_anew,
        "tags": [tag.hex() for tag in done.tags],
        "entries": [None if entry is None else entry.hex() for entry in done.entries],
        "given_to": list(done.told),
        "released": done.released,
        "set_aside": sorted(path.name for path in node.settings.home.glob("index.db.*T*") if path.suffix[-1].isdigit()),
    }


def erasures(node: Node, arguments: Mapping[str, Any], report: Report) -> object:
    """What was erased here, by its tags, as `cairn restore --erasures` takes it."""
    entry_id = node.statements.entry_id
    rows = [
        {
            "tag": tag.hex(),
            "time": iso(at),
            "entry": None if root is None or (found := entry_id(root, 0.0, final=False)) is None else found.hex(),
        }
        for tag, at, root in node.erasures.ended()
    ]
    return {"erasures": rows, "going_on": len(node.erasures.going_on())}


def _small(path: Path) -> bytes:
    """A key file's contents; of anything larger only so much that it is seen to be none."""
    with path.open("rb") as file:
        return file.read(study_key_file.MAX_SIZE + 1)


def _described(found: Imported) -> dict[str, object]:
    return {
        "root": cids.to_text(found.root),
        "study": found.study,
        "instances": found.instances,
        "outcomes": dict(found.outcomes),
        "blocks": found.kept.blocks,
        "new_blocks": found.kept.new,
        "bytes": found.kept.size,
        "pinned": found.pinned,
        "sender": found.sender.verifier if found.sender else None,
    }
