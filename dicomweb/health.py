"""`/livez` and `/readyz`: the two resources that need no credential, and say nothing about patients."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dicomweb.exchange import Door

_HEADERS = {"cache-control": "no-store"}
log = logging.getLogger("dicomweb")


def livez(door: Door, request: Request) -> Response:
    """200 as long as this process answers."""
    return JSONResponse({"status": "live"}, headers=_HEADERS)


def readyz(door: Door, request: Request) -> Response:
    """200 when DICOM, HTTP and ledger accept, else 503 with the reasons; blocking.

    What is wrong meanwhile with the content engine, or a full disk, is told too: viewing goes on, and ingest as far
    as there is room.
    """
    reasons = list(door.node.ready())
    if reasons:
        return JSONResponse({"status": "not ready", "reasons": reasons}, 503, {**_HEADERS, "retry-after": "1"})
    degraded = list(door.node.degraded())
    if degraded:
        return JSONResponse({"status": "degraded", "reasons": degraded}, headers=_HEADERS)
    return JSONResponse({"status": "ready"}, headers=_HEADERS)
