"""`GET /consortium/rpc/{method}` for members: what a light client of CometBFT reads, to start from a snapshot."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from bridge.errors import EngineFault
from dicomweb import problems
from dicomweb.exchange import Exchange
from dicomweb.ledger_api.entries import json_answer
from dicomweb.media_types import JSON
from dicomweb.resource import Parameter, Resource, Transaction, arguments

ROOT: Final = "/consortium"
_NUMBER: Final = {"type": "integer", "minimum": 1}
PARAMETERS: Final = (
    Parameter("height", "the block's height; default the newest", _NUMBER),
    Parameter("page", "which page of the validators", _NUMBER),
    Parameter("per_page", "how many validators on a page", _NUMBER),
)


def retrieve(exchange: Exchange) -> Response:
    """The result as CometBFT's RPC gives it; 404 for other methods and to nodes without a consortium.

    A CometBFT that does not answer is told to who asks, and not logged: members ask while all are being started, and
    the ledger's process says what hinders its own.
    """
    told = arguments(exchange.parameters, PARAMETERS)
    given = {name: values[0] for name, values in told.items()}
    try:
        said = exchange.node.consensus(exchange.path["method"], given)
    except EngineFault as error:
        return problems.from_error(error)
    return json_answer(exchange, said)


RESOURCES: Final = (Resource("/rpc/{method}", {"GET": Transaction("consensus", retrieve, None, PARAMETERS, (JSON,))}),)
