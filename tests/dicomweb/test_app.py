"""What every resource has in common: methods, health, capabilities, problems."""

from __future__ import annotations

import json
import logging

import pytest
from node_in_memory import STUDY, Client, FakeNode

from dicomweb.app import RESOURCES


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", f"/dicom-web/studies/{STUDY}", "GET, HEAD, POST"),
        ("POST", f"/dicom-web/studies/{STUDY}/series", "GET, HEAD"),
        ("PUT", "/dicom-web/studies", "GET, HEAD, POST"),
        ("GET", "/dicom-web", "OPTIONS"),
        ("POST", "/livez", "GET, HEAD"),
    ],
)
def test_rfc_9110_15_5_6_a_missing_method_is_405_with_allow(client: Client, method: str, path: str, allow: str) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/dicom-web/nothing", "/dicom-web/studies/abc", f"/dicom-web/studies/{'1' * 65}"],
)
def test_unknown_paths_are_404_problems(client: Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["type"]) == (404, "urn:cairn:problem:no-such-route")


def test_8_9_capabilities_name_every_resource(client: Client, node: FakeNode) -> None:
    for path in ("/dicom-web", "/dicom-web/"):
        response = client.request("OPTIONS", path)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    document = response.json()
    assert document["version"] == node.version
    described = {
        (resource["path"], method["name"]) for resource in document["resources"] for method in resource["methods"]
    }
    assert described == {(resource.path, method) for resource in RESOURCES for method in resource.methods}
    wadl = client.request("OPTIONS", "/dicom-web", headers={"accept": "application/vnd.sun.wadl+xml"})
    assert wadl.status_code == 406


def test_ready_only_without_reasons(anonymous: Client, node: FakeNode) -> None:
    assert anonymous.get("/readyz").json() == {"status": "ready"}
    node.not_ready = ["the DICOM listener does not accept"]
    response = anonymous.get("/readyz")
    assert response.status_code == 503
    assert response.json()["reasons"] == node.not_ready
    assert anonymous.get("/livez").status_code == 200


def test_ready_and_degraded_while_only_the_content_engine_is_at_fault(anonymous: Client, node: FakeNode) -> None:
    node.wrong = ["Kubo does not answer"]
    response = anonymous.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"status": "degraded", "reasons": ["Kubo does not answer"]}
    node.not_ready = ["the DICOM listener does not accept"]
    assert anonymous.get("/readyz").status_code == 503


def test_the_log_holds_neither_uids_nor_queries(
    client: Client, node: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node.add("1.1")
    with caplog.at_level(logging.DEBUG, "dicomweb"):
        client.get(f"/dicom-web/studies/{STUDY}/metadata")
        client.get("/dicom-web/studies?PatientName=Doe")
        client.get("/dicom-web/studies?Doe=1")
        client.get("/login?token=secret")
    records = [record for record in caplog.records if record.name.startswith("dicomweb")]
    first, _, refused = (vars(record) for record in records)
    assert (first["route"], first["method"], first["status"]) == ("/dicom-web/studies/{study:uid}/metadata", "GET", 200)
    assert (first["levelname"], refused["levelname"], refused["status"]) == ("DEBUG", "INFO", 400)
    said = [str(vars(record)) for record in records]
    assert not any(word in line for line in said for word in (STUDY, "Doe", "secret"))


def test_problems_say_what_to_do(client: Client) -> None:
    response = client.get("/dicom-web/studies/9.9")
    problem = json.loads(response.content)
    assert set(problem) == {"type", "title", "status", "detail", "advice"}
    assert response.headers["cache-control"] == "no-store"
