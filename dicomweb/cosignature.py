"""`GET /consortium/cosignature/{size}` for members: the shared log's checkpoint as this one signed and cosigned it."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from bridge.errors import NotFound
from dicomweb.exchange import Exchange
from dicomweb.ledger_api.entries import LARGEST, json_answer
from dicomweb.media_types import JSON
from dicomweb.resource import Resource, Transaction, arguments, number

ROOT: Final = "/consortium"


def retrieve(exchange: Exchange) -> Response:
    """`{"checkpoint": note}`: of that very size, with this node's two signatures; 404 when it has none, or not yet."""
    arguments(exchange.parameters, ())
    size = number("size", exchange.path["size"], 1, LARGEST)
    membership = exchange.node.membership
    note = None if membership is None else exchange.node.log.signed(size)
    if note is None:
        raise NotFound("no checkpoint of this size is held here")
    return json_answer(exchange, {"checkpoint": note})


RESOURCES: Final = (Resource("/cosignature/{size}", {"GET": Transaction("cosignature", retrieve, None, (), (JSON,))}),)
