"""`.../provenance` of studies, series and instances, and the Link header by which retrieves name it."""

from __future__ import annotations

import pytest
from ledger_in_memory import Ledger, some
from node_in_memory import SERIES, STUDY, Client, FakeNode

from dicomweb import provenance

STUDY_URL = f"/dicom-web/studies/{STUDY}"
SERIES_URL = f"{STUDY_URL}/series/{SERIES}"
ONE = f"{SERIES_URL}/instances/1.1"


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    for sop in ("1.1", "1.2"):
        node.add(sop)
    return some().attach(node)


@pytest.mark.parametrize(
    ("path", "indices"),
    [
        (STUDY_URL, [3, 2, 1]),
        (SERIES_URL, [3, 2, 1]),
        (ONE, [2, 1]),
        (f"{SERIES_URL}/instances/1.2", [3, 1]),
        ("/dicom-web/studies/9.9", [6]),
    ],
)
def test_the_events_about_a_resource_come_as_a_list(
    client: Client, node: FakeNode, ledger: Ledger, path: str, indices: list[int]
) -> None:
    response = client.get(f"{path}/provenance")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    events = response.json()
    assert [event["index"] for event in events] == indices
    assert events[0]["links"]["proof"] == events[0]["links"]["self"] + "/proof"
    assert client.get(events[0]["links"]["self"]).json()["index"] == indices[0]
    assert client.get(events[0]["links"]["proof"]).text.startswith("c2sp.org/tlog-proof@v1\n")
    assert node.recorded[0] == ("audited", "admin", f"provenance {path.split('/')[3]}")


def test_a_deleted_series_is_found_by_the_records_that_name_it(client: Client, node: FakeNode, ledger: Ledger) -> None:
    node.held.clear()
    assert [event["index"] for event in client.get(f"{SERIES_URL}/provenance").json()] == [1]


@pytest.mark.parametrize("path", [STUDY_URL, ONE])
def test_pages_are_linked(client: Client, ledger: Ledger, path: str) -> None:
    seen: list[int] = []
    url = f"{path}/provenance?limit=1"
    while url:
        response = client.get(url)
        seen += [event["index"] for event in response.json()]
        link = response.headers.get("link", "")
        url = link.split(">")[0].lstrip("<")
        assert not link or link.endswith('; rel="next"')
    assert seen == ([3, 2, 1] if path == STUDY_URL else [2, 1])


def test_a_request_opens_the_records_of_so_many_events_and_no_more(
    client: Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "MOST_READ", 1)
    first = client.get(f"{ONE}/provenance")
    assert first.json() == []
    second = client.get(first.headers["link"].split(">")[0].lstrip("<"))
    assert [event["index"] for event in second.json()] == [2]


@pytest.mark.parametrize("path", ["/dicom-web/studies/8.8", f"{SERIES_URL}/instances/7.7", f"{STUDY_URL}/series/6.6"])
def test_what_the_ledger_does_not_know_is_404(client: Client, ledger: Ledger, path: str) -> None:
    response = client.get(f"{path}/provenance")
    assert (response.status_code, response.json()["type"]) == (404, "urn:cairn:problem:not-found")


def test_it_is_for_who_may_audit(anonymous: Client, ledger: Ledger) -> None:
    roles = ("auditor", "admin", "viewer", "clinician", "device")
    headers = [{"authorization": f"Bearer {role}"} for role in roles]
    assert [anonymous.get(f"{ONE}/provenance", headers=one).status_code for one in headers] == [200, 200, 403, 403, 403]
    assert anonymous.get(f"{ONE}/provenance").status_code == 401


def test_parameters_and_methods_that_are_not_there(client: Client, ledger: Ledger) -> None:
    assert client.get(f"{ONE}/provenance?colour=red").status_code == 400
    assert client.get(f"{ONE}/provenance", headers={"accept": "image/png"}).status_code == 406
    assert client.request("DELETE", f"{ONE}/provenance").headers["allow"] == "GET, HEAD"
    head, get = client.head(f"{ONE}/provenance"), client.get(f"{ONE}/provenance")
    assert (head.content, dict(head.headers)) == (b"", dict(get.headers))


@pytest.mark.parametrize(
    ("path", "of"),
    [
        (STUDY_URL, STUDY_URL),
        (SERIES_URL, SERIES_URL),
        (ONE, ONE),
        (f"{STUDY_URL}/metadata", STUDY_URL),
        (f"{SERIES_URL}/metadata", SERIES_URL),
        (f"{ONE}/metadata", ONE),
        (f"{ONE}/frames/1", ONE),
        (f"{ONE}/frames/1,2", ONE),
        (f"{ONE}/bulkdata/7FE00010", ONE),
    ],
)
def test_prov_aq_3_1_a_retrieve_links_to_its_provenance(client: Client, ledger: Ledger, path: str, of: str) -> None:
    url = f"http://127.0.0.1:8042{of}/provenance"
    expected = f'<{url}>; rel="provenance", <{url}>; rel="http://www.w3.org/ns/prov#has_provenance"'
    response = client.get(path)
    assert (response.status_code, response.headers["link"]) == (200, expected)
    assert response.links["provenance"]["url"] == url
    assert client.head(path).headers["link"] == expected
    fresh = client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (fresh.status_code, fresh.headers["link"]) == (304, expected)


def test_searches_and_refusals_have_no_such_link(client: Client, ledger: Ledger) -> None:
    assert "link" not in client.get("/dicom-web/studies").headers
    assert "link" not in client.get("/dicom-web/studies/8.8").headers
