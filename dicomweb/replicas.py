"""`GET /consortium/replicas` for members: what the asking member is to keep of this node's studies, sealed.

It also tells whether this node keeps blocks for others, and what it does not keep of the asking member's.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from dicomweb.exchange import Exchange
from dicomweb.ledger_api.entries import json_answer
from dicomweb.media_types import JSON
from dicomweb.resource import Parameter, Resource, Transaction, arguments, number

ROOT: Final = "/consortium"
_LARGEST: Final = (1 << 62) - 1
PARAMETERS: Final = (
    Parameter("after", "the position that the last answer told; 0: from the start", {"type": "integer", "minimum": 0}),
)


def retrieve(exchange: Exchange) -> Response:
    """What changed after the position `after` (0: all there is); see `bridge.replica_offers`. 404 to no member."""
    told = arguments(exchange.parameters, PARAMETERS)
    after = number("after", told.get("after", ["0"])[0], 0, _LARGEST)
    return json_answer(exchange, exchange.node.replicas_wanted(exchange.actor.name, after))


RESOURCES: Final = (Resource("/replicas", {"GET": Transaction("replicas", retrieve, None, PARAMETERS, (JSON,))}),)
