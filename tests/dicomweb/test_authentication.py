"""Who gets in: the matrix of credentials, roles, addresses and browsers (DESIGN section 8)."""

from __future__ import annotations

from base64 import b64encode

import pytest
from anyio.from_thread import BlockingPortal
from node_in_memory import SERIES, STUDY, Client, FakeNode

from bridge.model import Role
from dicomweb.app import DICOMWEB_ROOT, RESOURCES, create_app

MULTIPART = {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}
STORED = f"--b\r\nContent-Type: application/dicom\r\n\r\nSTORE {STUDY} 1.9\r\n--b--".encode()
PATHS = {"study:uid": STUDY, "series:uid": SERIES, "instance:uid": "1.1", "frames": "1", "path:path": "7FE00010"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def every_request() -> list[tuple[str, str]]:
    listed = []
    for resource in RESOURCES:
        path = resource.path
        for name, value in PATHS.items():
            path = path.replace("{" + name + "}", value)
        listed += [(method, DICOMWEB_ROOT + path) for method in (*resource.methods, "HEAD")]
    return [
        *listed,
        ("OPTIONS", DICOMWEB_ROOT),
        ("GET", "/ohif/"),
        ("GET", "/ohif/app-config.js"),
        ("GET", "/ohif/x/y"),
    ]


@pytest.mark.parametrize(("method", "path"), every_request())
def test_everything_but_health_needs_a_credential(anonymous: Client, node: FakeNode, method: str, path: str) -> None:
    node.add("1.1")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": "cairn_session=wrong"},
        {"authorization": "Digest x"},
    ):
        response = anonymous.request(method, path, headers={"accept": "*/*", **headers})
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith('Bearer realm="cairn"')
        assert response.headers["content-type"] == "application/problem+json"
    assert not any(entry[0] in ("view", "query", "reception") for entry in node.recorded)


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200)])
def test_health_is_open(anonymous: Client, path: str, status: int) -> None:
    assert anonymous.get(path).status_code == status


@pytest.mark.parametrize(
    ("role", "search", "retrieve", "store", "describe"),
    [
        ("viewer", 204, 200, 403, 200),
        ("clinician", 204, 200, 200, 200),
        ("device", 403, 403, 200, 200),
        ("auditor", 403, 403, 403, 200),
        ("admin", 204, 200, 200, 200),
    ],
)
def test_roles(
    anonymous: Client, node: FakeNode, role: str, search: int, retrieve: int, store: int, describe: int
) -> None:
    node.add("1.1")
    one = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/1.1"
    headers = {"authorization": f"Bearer {role}", "accept": "*/*"}
    assert anonymous.get("/dicom-web/studies", headers=headers).status_code == search
    for path in (one, one + "/frames/1", one + "/metadata", one + "/bulkdata/7FE00010"):
        assert anonymous.get(path, headers=headers).status_code == retrieve
    assert anonymous.post("/dicom-web/studies", headers=headers | MULTIPART, content=STORED).status_code == store
    assert anonymous.request("OPTIONS", "/dicom-web", headers=headers).status_code == describe
    refusals = [entry for entry in node.recorded if entry[0] == "refused"]
    assert len(refusals) == [search, *[retrieve] * 4, store].count(403)
    assert all(entry == ("refused", role, "127.0.0.1") for entry in refusals)


def test_basic_carries_a_token_as_password(anonymous: Client) -> None:
    for headers in (basic("anyone", "viewer"), basic("", "viewer")):
        assert anonymous.get("/dicom-web/studies", headers={"accept": "*/*", **headers}).status_code == 204
    for headers in (basic("viewer", ""), {"authorization": "Basic ???"}, {"authorization": "Basic"}):
        assert anonymous.get("/dicom-web/studies", headers={"accept": "*/*", **headers}).status_code == 401


def test_failed_logins_are_recorded_and_missing_ones_are_not(anonymous: Client, node: FakeNode) -> None:
    anonymous.get("/dicom-web/studies")
    assert node.recorded == []
    anonymous.get("/dicom-web/studies", headers={"authorization": "Bearer wrong"})
    assert node.recorded == [("refused", None, "127.0.0.1")]


def test_a_browser_is_not_asked_for_a_password(anonymous: Client) -> None:
    plain = anonymous.get("/dicom-web/studies").headers["www-authenticate"]
    browser = anonymous.get("/dicom-web/studies", headers={"sec-fetch-mode": "cors"}).headers["www-authenticate"]
    assert "Basic" in plain and "Basic" not in browser


def test_nodes_on_one_machine_do_not_take_each_others_sessions(anonymous: Client) -> None:
    at = {"host": "127.0.0.1:18142"}
    cookie = anonymous.get("/login?token=once", headers=at).headers["set-cookie"]
    assert cookie.startswith("cairn_session_18142=session-viewer;")
    both = "cairn_session_18042=session-admin; cairn_session_18142=session-viewer"
    assert anonymous.get("/console/", headers={**at, "cookie": both}).status_code == 403
    other = {"host": "127.0.0.1:18242", "cookie": both}
    assert anonymous.get("/dicom-web/studies", headers=other).status_code == 401


def test_a_login_link_works_once(anonymous: Client, node: FakeNode) -> None:
    assert anonymous.head("/login?token=once").status_code == 200
    response = anonymous.get("/login?token=once")
    assert (response.status_code, response.headers["location"]) == (303, "/ohif/")
    cookie = response.headers["set-cookie"].lower()
    assert cookie.startswith("cairn_session=session-viewer;")
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "secure" not in cookie
    session = {"cookie": "other=1; cairn_session=session-viewer", "accept": "*/*"}
    assert anonymous.get("/dicom-web/studies", headers=session).status_code == 204
    again = anonymous.get("/login?token=once")
    assert (again.status_code, "set-cookie" in again.headers) == (401, False)
    assert ("refused", None, "127.0.0.1") in node.recorded


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ("/ohif/viewer?StudyInstanceUIDs=1.2", "/ohif/viewer?StudyInstanceUIDs=1.2"),
        ("//evil.example/", "/ohif/"),
        ("/%5Cevil.example/", "/ohif/"),
        ("https://evil.example/", "/ohif/"),
        ("javascript:alert(1)", "/ohif/"),
        ("/%0d%0aX:1", "/ohif/"),
    ],
)
def test_a_login_goes_on_to_local_paths_only(anonymous: Client, wanted: str, where: str) -> None:
    quoted = wanted if "%" in wanted else wanted.replace("?", "%3F")
    assert anonymous.get(f"/login?token=once&next={quoted}").headers["location"] == where


def test_the_cookie_is_secure_behind_https(anonymous: Client, node: FakeNode) -> None:
    node.settings.web.trusted_proxies = ("127.0.0.0/8",)
    response = anonymous.get("/login?token=once", headers={"x-forwarded-proto": "https", "host": "pacs.example"})
    assert "secure" in response.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://127.0.0.1:8042"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8042"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_a_cookie_alone_changes_something_only_from_our_own_pages(
    anonymous: Client, headers: dict[str, str], status: int
) -> None:
    cookie = {"cookie": "cairn_session=session-clinician"}
    response = anonymous.post("/dicom-web/studies", headers=cookie | MULTIPART | headers, content=STORED)
    assert response.status_code == status
    token = {"authorization": "Bearer clinician"}
    assert anonymous.post("/dicom-web/studies", headers=token | MULTIPART | headers, content=STORED).status_code == 200


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 204),
        ("::1", {"host": "[::1]:8042"}, 204),
        ("127.0.0.1", {"host": "localhost"}, 204),
        ("127.0.0.1", {"host": "pacs.example"}, 401),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example:8042"}, 401),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, 401),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 401),
        ("127.0.0.1", {"x-forwarded-host": "localhost"}, 401),
        ("127.0.0.1", {"x-real-ip": "127.0.0.1"}, 401),
        ("192.0.2.7", {}, 401),
        ("192.0.2.7", {"host": "localhost"}, 401),
        ("127.0.0.1", {"authorization": "Bearer wrong"}, 401),
        ("127.0.0.1", {"cookie": "cairn_session=wrong"}, 401),
    ],
)
def test_the_anonymous_role_is_for_this_machine_only(
    node: FakeNode, portal: BlockingPortal, peer: str, headers: dict[str, str], status: int
) -> None:
    node.settings.access.anonymous_role = Role.VIEWER
    client = Client(portal, create_app(node), peer)  # type: ignore[arg-type]
    assert client.get("/dicom-web/studies", headers={"accept": "*/*", **headers}).status_code == status
    portal.call(client.http.aclose)


def test_the_anonymous_role_of_a_trusted_proxy_is_refused_too(node: FakeNode, anonymous: Client) -> None:
    node.settings.access.anonymous_role = Role.VIEWER
    node.settings.web.trusted_proxies = ("127.0.0.1",)
    headers = {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost", "accept": "*/*"}
    assert anonymous.get("/dicom-web/studies", headers=headers).status_code == 401


def test_another_site_cannot_store_through_the_anonymous_role(node: FakeNode, anonymous: Client) -> None:
    node.settings.access.anonymous_role = Role.CLINICIAN
    assert anonymous.post("/dicom-web/studies", headers=MULTIPART, content=STORED).status_code == 200
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        response = anonymous.post("/dicom-web/studies", headers=MULTIPART | headers, content=STORED)
        assert response.status_code == 403
