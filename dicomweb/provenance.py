"""Provenance of DICOM resources: what the ledger says about a study, a series or an instance, for who may audit.

A retrieved resource names its own by a Link header: `rel="provenance"` as people look for it, and, since that word is
not in the IANA registry of link relations, the URI of W3C PROV-AQ section 3.1, which RFC 8288 section 2.1.2 asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import wraps

from starlette.responses import Response

from bridge.errors import NotFound
from dicomweb import media_types
from dicomweb.exchange import Exchange, Handler
from dicomweb.ledger_api.entries import BEFORE, PAGE, following, json_answer, page_of
from dicomweb.ledger_api.event_json import described
from dicomweb.media_types import JSON, Offer
from dicomweb.resource import arguments
from ledger.event import Event, EventQuery

HAS_PROVENANCE = "http://www.w3.org/ns/prov#has_provenance"
PARAMETERS = (BEFORE, PAGE)
MOST_READ = 500  # events whose records one request opens in search of a series or instance


def linked(handler: Handler) -> Handler:
    """A handler of retrieves whose answers name the provenance of what they give."""

    @wraps(handler)
    def answer(exchange: Exchange) -> Response:
        response = handler(exchange)
        url = _url(exchange)
        response.headers.append("link", f'<{url}>; rel="provenance", <{url}>; rel="{HAS_PROVENANCE}"')
        return response

    return answer


def retrieve_provenance(exchange: Exchange) -> Response:
    """`GET .../provenance` at the three levels: the events about the resource, newest first, as a JSON array.

    Of a series or an instance those whose records name it, or an instance of it; what an erasure has taken the key of
    names nothing any more. The next page is in the header Link: it may be there although this one is short or empty.
    """
    media_types.choose(exchange.accept or "*/*", exchange.accept_parameters, [Offer(JSON, wildcard=True)])
    given = [pair for pair in exchange.parameters if pair[0] != "accept"]
    before, limit = page_of(arguments(given, PARAMETERS))
    study = exchange.path["study"]
    exchange.node.access.audited(exchange.actor, f"provenance {study}")
    if "series" in exchange.path:
        found, last = _naming(exchange, study, before, limit)
    else:
        page = exchange.node.audit.search(EventQuery(studies=(study,), before=before, limit=limit + 1))
        found, last = list(page[:limit]), page[limit - 1].index if len(page) > limit else None
    if not found and last is None and before is None:
        exchange.node.refuse_erased(study)
        raise NotFound("The ledger holds nothing about this resource")
    url = following(exchange, _url(exchange), last) if last is not None else None
    return json_answer(exchange, [described(event, exchange.origin.url) for event in found], url)


def _naming(exchange: Exchange, study: str, before: int | None, limit: int) -> tuple[list[Event], int | None]:
    """Events of the study whose records name the resource; the index below which others may be, None at the end."""
    audit = exchange.node.audit
    wanted = _names(exchange, study)
    found: list[Event] = []
    page = audit.search(EventQuery(studies=(study,), before=before, limit=MOST_READ + 1))
    for number, event in enumerate(page):
        if len(found) == limit or number == MOST_READ:
            return found, page[number - 1].index
        details = audit.details(event.id)
        if any(detail.body is not None and _named(detail.body, wanted) for detail in details):
            found.append(event)
    return found, None


def _names(exchange: Exchange, study: str) -> Collection[str]:
    """The UIDs by which records name the resource: an instance by its own, a series by its own and its instances'."""
    series = exchange.path["series"]
    if "instance" in exchange.path:
        return {exchange.path["instance"]}
    try:
        return {series, *(held.key.sop for held in exchange.node.retrieve.locate(study, series))}
    except NotFound:  # deleted since; its records still name it
        return {series}


def _named(value: object, wanted: Collection[str]) -> bool:
    """Whether a record's body holds one of the UIDs, however deep."""
    if isinstance(value, str):
        return value in wanted
    if isinstance(value, Mapping):
        return any(_named(item, wanted) for item in value.values())
    return isinstance(value, list | tuple) and any(_named(item, wanted) for item in value)


def _url(exchange: Exchange) -> str:
    """The provenance of the study, series or instance that the path names, or that what it names belongs to."""
    path = exchange.path
    url = f"{exchange.root}/studies/{path['study']}"
    for level in ("series", "instance"):
        if level in path:
            url += f"/{level if level == 'series' else 'instances'}/{path[level]}"
    return url + "/provenance"
