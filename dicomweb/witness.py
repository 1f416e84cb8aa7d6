"""`POST /witness/add-checkpoint` for members: this node cosigns their checkpoints (C2SP tlog-witness v1.0)."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dicomweb.exchange import Exchange
from ledger.witness import MAX_REQUEST, TEXT, Answer

PATH: Final = "/witness/add-checkpoint"
LARGEST: Final = MAX_REQUEST


def add_checkpoint(exchange: Exchange, body: bytes) -> Response:
    """As the specification says; one that is too long is answered by it, too."""
    witnessing = exchange.node.witnessing
    if witnessing is None:
        return _plain(Answer(404, TEXT, "no log is witnessed here\n"))
    return _plain(witnessing.add_checkpoint(exchange.actor.name, body))


def _plain(answer: Answer) -> Response:
    # Starlette would append a charset to the media type, which the specification does not have.
    return Response(answer.body, answer.status, {"content-type": answer.type})
