"""`/openapi.json`: OpenAPI 3.1 of every route, made from the application's own table of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from inspect import cleandoc
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dicomweb import problems
from dicomweb.capabilities import GIVES, TAKES
from dicomweb.exchange import Exchange
from dicomweb.media_types import JSON
from dicomweb.openapi_schemas import ANSWERS, SCHEMAS
from dicomweb.resource import Parameter, Transaction
from dicomweb.responses import digest_of, is_fresh, not_modified, validators, whole

VERSION = "3.1.1"
LEADING = {"/": "307", "/ohif": "307", "/console": "307", "/login": "303"}
"""The routes that only lead elsewhere, and how."""
OPEN = ("/livez", "/readyz", *LEADING)
"""The routes that need no credential: health, the redemption of a login link, and those that lead elsewhere."""
# What pages beside the tables of transactions answer with, by the beginning of their path; the first that fits.
_PAGES = (
    ("/fhir", "application/fhir+json"),
    ("/livez", JSON),
    ("/readyz", JSON),
    ("/console/static", "*/*"),
    ("/ohif/", "*/*"),
    ("/", "text/html"),
)
# Docstrings begin with the path, which stands beside the summary anyway.
_BEGINNING = re.compile(r"(`[^`]*`[^`:]*)+: ")
_TAGS = {"dicom-web": "DICOMweb", "ledger": "Ledger", "ipfs": "IPFS", "fhir": "FHIR", "console": "Console"}
_DESCRIPTION = (
    "DICOMweb (PS3.18), the ledger and its proofs, and the pages of one node. Every GET has a HEAD. Refusals are "
    "problem documents (RFC 9457). The purpose of use goes in the header Cairn-Purpose, a reason in Cairn-Reason."
)


def document(routes: Iterable[BaseRoute], version: str) -> dict[str, Any]:
    """The OpenAPI document of these routes; `version` is that of the software."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if isinstance(route, Route):
            paths[route.path_format] = _path(route)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Cairn",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"basic": []}, {"session": []}],
        "tags": [{"name": name} for name in (*_TAGS.values(), "Node")],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The password is a token."},
                "session": {"type": "apiKey", "in": "cookie", "name": "cairn_session"},
            },
            "responses": {
                "Problem": {
                    "description": "What went wrong and what to do.",
                    "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
            "schemas": SCHEMAS,
        },
    }


def retrieve_openapi(exchange: Exchange, routes: Sequence[BaseRoute]) -> Response:
    """What this node's HTTP interface offers, as OpenAPI 3.1."""
    body = json.dumps(document(routes, exchange.node.version), indent=1).encode()
    tag = digest_of(body)
    if is_fresh(exchange, tag):
        return not_modified(tag)
    return whole(exchange, body, validators(tag), JSON)


def _path(route: Route) -> dict[str, Any]:
    """A path item: what is common to its methods, and an operation for each."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^(?:{kind.regex})$"}}
        for name, kind in route.param_convertors.items()
    ]
    item: dict[str, Any] = {"parameters": parameters} if parameters else {}
    for method, transaction in _methods(route).items():
        item[method.lower()] = _operation(route, method, transaction)
    return item


def _methods(route: Route) -> Mapping[str, Transaction | None]:
    """The transaction of each method but HEAD; None for a page beside the tables."""
    methods = getattr(route.endpoint, "methods", None) or {"GET": None}
    table = methods if isinstance(methods, Mapping) else dict.fromkeys(methods)
    return {name: transaction for name, transaction in sorted(table.items()) if name != "HEAD"}


def _operation(route: Route, method: str, transaction: Transaction | None) -> dict[str, Any]:
    path = route.path_format
    summary, _, description = _said(route, transaction).partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": "_".join([method.lower(), *re.findall(r"[A-Za-z0-9]+", path)])
        + ("_" if path[-1] == "/" else ""),
        "tags": [_TAGS.get(path.split("/")[1], "Node")],
        "summary": " ".join(summary.split()),
        **({"description": " ".join(description.split())} if description else {}),
        "responses": {
            **_answers(path, transaction),
            **({} if path in OPEN else {"401": {"$ref": "#/components/responses/Problem"}}),
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if path in OPEN:
        operation["security"] = []
    if transaction is not None and transaction.action is not None:
        operation["x-cairn-action"] = transaction.action.value
    if transaction is not None and transaction.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in transaction.parameters]
    if transaction is not None and transaction.name in TAKES:
        content: dict[str, Any] = {kind: {} for kind in TAKES[transaction.name]}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _said(route: Route, transaction: Transaction | None) -> str:
    """What the handler's docstring says; the table's word for it when there is none."""
    if transaction is not None and transaction.handler is None:
        return "Store instances, each of which is taken or refused alone (PS3.18 10.5)."
    about = route.endpoint if transaction is None else transaction.handler
    for inner in ("plain", "handler"):
        about = getattr(about, inner, about)
    said = cleandoc(getattr(about, "__doc__", None) or (transaction.name if transaction else "page"))
    said = _BEGINNING.sub("", said, count=1) if said.startswith("`") else said
    return said[0].upper() + said[1:].replace("; blocking.", ".")


def _answers(path: str, transaction: Transaction | None) -> dict[str, Any]:
    """The answers that are no problems."""
    if path in LEADING:
        return {LEADING[path]: {"description": "Elsewhere.", "headers": {"Location": {"schema": {"type": "string"}}}}}
    if transaction is None:
        kind = "text/csv" if path.endswith(".csv") else next(kind for start, kind in _PAGES if path.startswith(start))
        return {"200": {"description": "The page.", "content": {kind: {}}}}
    known = ANSWERS.get(transaction.name)
    schema = {"schema": {"$ref": f"#/components/schemas/{known}"}} if known else {}
    given = transaction.gives or tuple(GIVES.get(transaction.name, (JSON,)))
    kinds = [kind if "/" in kind else "*/*" for kind in given]
    done = {"description": f"The {transaction.name}.", "content": dict.fromkeys(kinds, schema)}
    answers: dict[str, Any] = {"200": done}
    if transaction.name == "search":
        answers["204"] = {"description": "Nothing matches."}
    if transaction.name == "store":
        answers |= {"202": {**done, "description": "Some were stored."}, "409": {**done, "description": "None was."}}
    return answers


def _parameter(parameter: Parameter) -> dict[str, Any]:
    one = dict(parameter.schema)
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.meaning,
        "required": parameter.required,
        "schema": {"type": "array", "items": one} if parameter.repeated else one,
    }
