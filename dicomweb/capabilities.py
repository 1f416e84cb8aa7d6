"""What this server can do, made from the table of routes: `OPTIONS /dicom-web` (PS3.18 8.9, 10.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from starlette.responses import Response

from dicomweb import media_types
from dicomweb.exchange import DICOMWEB_ROOT, Exchange
from dicomweb.media_types import JSON, Offer
from dicomweb.responses import whole

GIVES = {
    "search": ["application/dicom+json"],
    "metadata": ["application/dicom+json"],
    "instances": ['multipart/related; type="application/dicom"', "application/dicom"],
    "frames": ['multipart/related; type="application/octet-stream"', "application/octet-stream", "as stored"],
    "bulkdata": ["application/octet-stream", 'multipart/related; type="application/octet-stream"'],
    "store": ["application/dicom+json"],
    "provenance": ["application/json"],
}
TAKES = {"store": ['multipart/related; type="application/dicom"', "application/dicom"]}


def document(version: str, resources: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, object]:
    """The capabilities of `resources`: (path template, method -> transaction)."""
    described = []
    for path, methods in resources:
        described.append(
            {
                "path": path,
                "methods": [
                    {
                        "name": method,
                        "transaction": transaction,
                        "produces": GIVES[transaction],
                        **({"consumes": TAKES[transaction]} if transaction in TAKES else {}),
                    }
                    for method, transaction in methods.items()
                ],
            }
        )
    return {
        "name": "Cairn",
        "version": version,
        "standard": "DICOM PS3.18",
        "base": DICOMWEB_ROOT,
        "transferSyntaxes": "as stored",
        "resources": described,
    }


def retrieve_capabilities(exchange: Exchange, resources: Iterable[tuple[str, Mapping[str, str]]]) -> Response:
    """The answer to OPTIONS on the DICOMweb root."""
    offer = media_types.choose(exchange.accept or "*/*", exchange.accept_parameters, [Offer(JSON, wildcard=True)])
    body = json.dumps(document(exchange.node.version, resources), indent=1).encode()
    return whole(exchange, body, {"allow": "OPTIONS", "cache-control": "no-store"}, offer.media_type)
