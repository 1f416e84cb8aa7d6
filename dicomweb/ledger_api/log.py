"""The log itself over HTTP: checkpoint, tiles, bundles (C2SP tlog-tiles), proofs (C2SP tlog-proof), the log's key.

Checkpoint and key are for whoever has a credential: they tell a size and a hash, and the more people keep older
checkpoints, the harder is a second history. What holds envelopes is for who may audit, and reading it is recorded.
"""

from __future__ import annotations

import base64

from starlette.responses import Response

from bridge.errors import NotFound, RequestError
from dicomweb.exchange import Exchange
from dicomweb.ledger_api.entries import LARGEST, NOT_KEPT, entry_id, json_answer
from dicomweb.media_types import OCTET_STREAM
from dicomweb.resource import Parameter, arguments, number
from dicomweb.responses import whole
from ledger.tiles import ENTRIES, WIDTH, parse_path

TEXT = "text/plain; charset=utf-8"
PROOF_SUFFIX = ".tlog-proof"
_FULL = "private, max-age=31536000, immutable"
# As immutable as a full one (tlog-tiles), but of use only until the tree has grown.
_PARTIAL = "private, max-age=3600, immutable"
_SIZE = {"type": "integer", "minimum": 0}
SIZES = (
    Parameter("from", "The smaller size of the tree.", _SIZE, required=True),
    Parameter("to", "The larger size of the tree.", _SIZE, required=True),
)


def checkpoint(exchange: Exchange) -> Response:
    """The newest signed checkpoint (C2SP tlog-checkpoint)."""
    arguments(exchange.parameters, ())
    note = exchange.node.log.checkpoint()
    if note is None:
        raise NotFound("The log holds no entry yet, so it has no checkpoint")
    return _text(exchange, note)


def key(exchange: Exchange) -> Response:
    """The log's verifier key (C2SP signed-note vkey).

    Who verifies must have it from somewhere else than from the server whose entries are in question.
    """
    arguments(exchange.parameters, ())
    return _text(exchange, exchange.node.log.key() + "\n")


def policy(exchange: Exchange) -> Response:
    """What trusting the log asks for (C2SP tlog-policy): its keys, and whose cosignatures it needs.

    As of the key: who verifies must have it from somewhere else.
    """
    arguments(exchange.parameters, ())
    return _text(exchange, exchange.node.log.policy())


def tile(exchange: Exchange) -> Response:
    """A tile of hashes or a bundle of entries, by its path `<L>/<N>[.p/<W>]` (C2SP tlog-tiles)."""
    path = f"tile/{exchange.path['path']}"
    found = parse_path(path)
    if found is None:
        raise NotFound("No tile has this path (C2SP tlog-tiles)")
    arguments(exchange.parameters, ())
    if found.level == ENTRIES:
        exchange.node.access.audited(exchange.actor, path)
    content = exchange.node.log.file(path)
    headers = {
        "cache-control": _FULL if found.width == WIDTH else _PARTIAL,
        "vary": "Authorization, Cookie",
        "x-content-type-options": "nosniff",
    }
    return whole(exchange, content, headers, OCTET_STREAM)


def proof(exchange: Exchange) -> Response:
    """The proof of an entry, or of one record, as a file that verifies offline (C2SP tlog-proof)."""
    id = entry_id(exchange)
    arguments(exchange.parameters, ())
    exchange.node.access.audited(exchange.actor, f"proof {id.hex()}")
    name = f"{id.hex()[:16]}{PROOF_SUFFIX}"
    return _text(exchange, exchange.node.log.prove(id), f'attachment; filename="{name}"')


def consistency(exchange: Exchange) -> Response:
    """The proof that the tree of size `from` is a prefix of the tree of size `to` (RFC 9162 section 2.1.4)."""
    found = arguments(exchange.parameters, SIZES)
    first, second = (number(name, found[name][0], 0, LARGEST) for name in ("from", "to"))
    if first > second:
        raise RequestError("from is larger than to")
    hashes = exchange.node.log.consistency(first, second)
    document = {"from": first, "to": second, "proof": [base64.b64encode(item).decode() for item in hashes]}
    return json_answer(exchange, document)


def _text(exchange: Exchange, text: str, disposition: str | None = None) -> Response:
    headers = {"cache-control": NOT_KEPT, "x-content-type-options": "nosniff"}
    if disposition is not None:
        headers["content-disposition"] = disposition
    return whole(exchange, text.encode(), headers, TEXT)
