"""`POST /consortium/shares` for members: the package of a grant to this node, a study key file of version 2."""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from bridge.errors import BodyTooLarge
from dicomweb.exchange import Exchange

PATH: Final = "/consortium/shares"
LARGEST: Final = 64 << 10
"""Bytes of a package: docs/study-transfer.md."""


def take(exchange: Exchange, body: bytes) -> Response:
    """202 with the state that the grant is in now, 403 for what does not hold, 503 while it is not final here."""
    if len(body) > LARGEST:
        raise BodyTooLarge(f"a package has at most {LARGEST} bytes")
    return JSONResponse({"state": exchange.node.accept_share(exchange.actor, body)}, 202)
