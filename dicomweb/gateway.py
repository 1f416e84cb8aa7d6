"""`/ipfs/{cid}`: sealed blocks and CARs of them, as the IPFS "Trustless Gateway Specification" says.

Where that specification would have any cache keep an answer ("public"), only the client's own may ("private"): each
answer is for the one who was granted it. All else is answered 404 in equal words, so that nothing can be listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from bridge.errors import RequestError
from bridge.model import Action
from dicomweb import problems
from dicomweb.exchange import Exchange
from dicomweb.node import SealedGrant, Viewing
from dicomweb.resource import Resource, Transaction
from dicomweb.responses import digest_of, is_fresh, respond, whole
from dicomweb.trustless import CAR, PARAMETERS, RAW, Wanted, wanted

ROOT: Final = "/ipfs"
_FOR_EVER: Final = "private, max-age=29030400, immutable"
_LONGEST_PATH: Final = 64


def fetch(exchange: Exchange) -> Response:
    """A sealed block by its CID, or a CAR of it and what lies below it."""
    asked = wanted(exchange.parameters, exchange.accept)
    segments = [part for part in exchange.path.get("path", "").split("/") if part]
    if segments and asked.format == "raw":
        raise RequestError("a raw block is asked for by its CID alone")
    if len(segments) > _LONGEST_PATH:
        raise RequestError("the path has too many segments")
    gateway = exchange.node.gateway
    granted = gateway.grant(exchange.actor, exchange.path["cid"])
    if "only-if-cached" in exchange.headers.get("cache-control", "").lower() and not gateway.held(granted):
        return problems.problem(412, "not-at-hand", "The block is not at hand here.", "Ask without only-if-cached.")
    viewing = _viewing(exchange, granted)
    headers = _headers(exchange, granted, segments, asked)
    tag = headers["etag"].removeprefix("W/").strip('"')
    if asked.format == "raw":
        block = gateway.block(viewing, granted)
        return _not_modified(headers) if is_fresh(exchange, tag) else whole(exchange, block, headers, asked.media_type)
    car = gateway.car(viewing, granted, segments, asked.scope, asked.span, asked.duplicates)
    headers["x-ipfs-roots"] = ",".join(car.passed)
    if is_fresh(exchange, tag):
        return _not_modified(headers)
    return respond(exchange, car.chunks, headers, asked.media_type, car.length)


def _viewing(exchange: Exchange, granted: SealedGrant) -> Viewing | None:
    if granted.study is not None:
        return exchange.view(granted.study)
    return exchange.view_kept(granted.tag) if granted.tag is not None else None


def _headers(exchange: Exchange, granted: SealedGrant, segments: list[str], asked: Wanted) -> dict[str, str]:
    """Every header but Content-Type and Content-Length."""
    path = "/".join((ROOT, granted.name, *(quote(segment, safe="") for segment in segments)))
    extension = "bin" if asked.format == "raw" else "car"
    name = asked.filename or f"{granted.name}.{extension}"
    plain = name if name.isascii() else f"{granted.name}.{extension}"
    starred = "" if name.isascii() else f"; filename*=UTF-8''{quote(name, safe='')}"
    # A CAR's tag is weak, as its bytes are an answer's, not a file's; the hash holds the scope, range and parameters.
    tag = f'"{granted.name}.raw"' if asked.format == "raw" else f'W/"{granted.name}.car.{digest_of(path, asked.query)}"'
    headers = {
        "etag": tag,
        "cache-control": _FOR_EVER,
        "vary": "Accept, Authorization",
        "x-content-type-options": "nosniff",
        "content-disposition": f'attachment; filename="{plain}"{starred}',
        "x-ipfs-path": path,
        "x-ipfs-roots": granted.name,
    }
    if asked.format == "car":
        headers["accept-ranges"] = "none"
    if not asked.told:
        headers["content-location"] = f"{path}?{asked.query}"
    return headers


def _not_modified(headers: Mapping[str, str]) -> Response:
    """304 with the headers that say which representation it is (RFC 9110 15.4.5)."""
    kept = ("etag", "cache-control", "vary", "content-location")
    return Response(status_code=304, headers={name: headers[name] for name in kept if name in headers})


def _resource(template: str) -> Resource:
    return Resource(template, {"GET": Transaction("sealed", fetch, Action.FETCH, PARAMETERS, (RAW, CAR))})


RESOURCES: Final = (_resource("/{cid}"), _resource("/{cid}/{path:path}"))
