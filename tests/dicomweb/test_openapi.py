"""`/openapi.json`: every route is in it, with the methods and the credential it really takes; it is sound OpenAPI 3.1;
what the ledger answers is what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ledger_in_memory import Ledger, some
from node_in_memory import SERIES, STUDY, Client, FakeNode
from starlette.routing import Route

from dicomweb.app import create_app
from dicomweb.openapi import document

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
SAMPLES = {"study": STUDY, "series": SERIES, "instance": "1.1", "frames": "1", "id": "0" * 64, "name": "console.css"}


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    node.add("1.1")
    return some().attach(node)


@pytest.fixture
def described(client: Client, ledger: Ledger) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = response.json()
    return found


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for method in item.keys() - {"parameters"}:
            yield path, method, item[method]


def url_of(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: SAMPLES.get(found[1], "x"), path)


def test_every_route_of_the_application_is_in_it(described: dict[str, Any], node: FakeNode) -> None:
    routes = create_app(node).routes  # type: ignore[arg-type]
    assert all(isinstance(route, Route) for route in routes)
    assert {route.path_format for route in routes if isinstance(route, Route)} == set(described["paths"])


def test_every_route_has_the_methods_that_it_takes(described: dict[str, Any], client: Client) -> None:
    for path, item in described["paths"].items():
        own = {method.upper() for method in item.keys() - {"parameters"}}
        allowed = own | ({"HEAD"} if "GET" in own else set())
        response = client.request("DELETE", url_of(path))
        assert response.status_code == 405, path
        assert set(response.headers["allow"].split(", ")) == allowed, path


def test_every_route_needs_the_credential_that_it_says(described: dict[str, Any], anonymous: Client) -> None:
    anonymous.headers = {}
    for path, method, operation in operations(described):
        if path == "/login":  # the link's token is a credential of its own
            continue
        status = anonymous.request(method.upper(), url_of(path)).status_code
        assert str(status) in operation["responses"] or status == 503, path
        assert (status == 401) == ("security" not in operation), (path, status)
        assert ("401" in operation["responses"]) == ("security" not in operation)


def test_it_needs_a_credential_and_is_asked_for_again_by_its_tag(anonymous: Client, ledger: Ledger) -> None:
    assert anonymous.get("/openapi.json").status_code == 401
    viewer = {"authorization": "Bearer viewer"}
    first = anonymous.get("/openapi.json", headers=viewer)
    again = anonymous.get("/openapi.json", headers={**viewer, "if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    assert anonymous.head("/openapi.json", headers=viewer).content == b""


def test_it_is_sound_openapi_3_1(described: dict[str, Any], node: FakeNode) -> None:
    assert re.fullmatch(r"3\.1\.\d+", described["openapi"])
    assert described["info"]["title"] == "Cairn" and described["info"]["version"] == node.version
    tags = {tag["name"] for tag in described["tags"]}
    seen: set[str] = set()
    for path, method, operation in operations(described):
        assert path.startswith("/") and method in METHODS
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        assert re.fullmatch(r"[A-Za-z0-9_]+", operation["operationId"])
        assert set(operation["tags"]) <= tags
        assert operation["summary"]
        assert operation["responses"] and all(
            re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"]
        )
        for answer in operation["responses"].values():
            assert "$ref" in answer or answer["description"]
            assert all("/" in kind for kind in answer.get("content", {}))
        parameters = [*described["paths"][path].get("parameters", ()), *operation.get("parameters", ())]
        places = [(one["in"], one["name"]) for one in parameters]
        assert len(set(places)) == len(places)
        assert {name for place, name in places if place == "path"} == set(re.findall(r"\{(\w+)\}", path))
        assert all(one["schema"] and (one["in"] != "path" or one["required"]) for one in parameters)
        for requirement in operation.get("security", described["security"]):
            assert set(requirement) <= set(described["components"]["securitySchemes"])


def test_templates_that_differ_only_in_names_are_not_there(described: dict[str, Any]) -> None:
    shapes = [re.sub(r"\{\w+\}", "{}", path) for path in described["paths"]]
    assert len(set(shapes)) == len(shapes)


def test_every_reference_leads_somewhere_and_every_schema_is_used(described: dict[str, Any]) -> None:
    found = set(references(described))
    for reference in found:
        target: Any = described
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert isinstance(target, dict)
    components = described["components"]
    every = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in components[kind]}
    assert found == every


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/ledger/entries", "Entries"),
        ("/ledger/entries?limit=1", "Entries"),
        ("/ledger/entries/{id}", "Entry"),
        ("/ledger/consistency?from=2&to=7", "Consistency"),
        (f"/dicom-web/studies/{STUDY}/provenance", "Events"),
        ("/ledger/entries?limit=0", "Problem"),
        ("/nowhere", "Problem"),
    ],
)
def test_what_is_answered_fits_its_schema(
    described: dict[str, Any], client: Client, ledger: Ledger, path: str, schema: str
) -> None:
    answer = client.get(path.format(id=ledger.log.leaves[1].hex())).json()
    schemas = described["components"]["schemas"]
    misfits = list(unfit(answer, schemas[schema], schemas))
    assert not misfits


KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def unfit(value: Any, schema: dict[str, Any], schemas: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Where a value does not fit a schema, of the keywords that this document uses."""
    assert schema.keys() <= {
        *("$ref", "oneOf", "type", "enum", "pattern", "minimum", "properties", "required", "additionalProperties"),
        *("items", "format", "contentEncoding", "description"),
    }
    if "$ref" in schema:
        yield from unfit(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, at)
        return
    if "oneOf" in schema:
        if sum(not list(unfit(value, one, schemas, at)) for one in schema["oneOf"]) != 1:
            yield f"{at} fits not exactly one"
        return
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (kind == "integer" and isinstance(value, bool))):
        yield f"{at} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} is not listed"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{at} does not match"
    if value is not None and "minimum" in schema and value < schema["minimum"]:
        yield f"{at} is too small"
    if kind == "object":
        yield from unfit_object(value, schema, schemas, at)
    if kind == "array":
        for number, item in enumerate(value):
            yield from unfit(item, schema["items"], schemas, f"{at}[{number}]")


def unfit_object(value: dict[str, Any], schema: dict[str, Any], schemas: dict[str, Any], at: str) -> Iterator[str]:
    known = schema.get("properties", {})
    yield from (f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        if name in known:
            yield from unfit(item, known[name], schemas, f"{at}.{name}")
        elif schema.get("additionalProperties") is False:
            yield f"{at}.{name} is not known"


def test_parameters_are_those_that_are_taken(described: dict[str, Any], client: Client) -> None:
    for path in ("/ledger/entries", "/dicom-web/studies/{study}/provenance"):
        names = [one["name"] for one in described["paths"][path]["get"]["parameters"]]
        refusal = client.get(url_of(path) + "?colour=red").json()["detail"]
        assert refusal.endswith("there are: " + ", ".join(names))
    studies = {one["name"] for one in described["paths"]["/dicom-web/studies"]["get"]["parameters"]}
    assert {"PatientID", "StudyDate", "limit", "includefield"} <= studies and "Modality" not in studies
    assert "SOPClassUID" in {one["name"] for one in described["paths"]["/dicom-web/instances"]["get"]["parameters"]}


def test_nothing_but_the_routes_and_the_version_is_needed(node: FakeNode) -> None:
    app = create_app(node)  # type: ignore[arg-type]
    assert document(app.routes, "1")["paths"].keys() == document(app.routes, "2")["paths"].keys()
