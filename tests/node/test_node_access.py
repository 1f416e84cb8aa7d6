"""Who may do what over real HTTP (DESIGN section 8): credentials, roles, login links, the open routes."""

from collections.abc import Iterator

import httpx
import pytest

from tests.node.instances import DICOM_ANY, HIGHDICOM, Sent, sendable, stow
from tests.node.running_node import RunningNode

JSON = {"accept": "application/dicom+json"}
INSTANCE = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")


@pytest.fixture(scope="module")
def stored(node: RunningNode) -> Iterator[Sent]:
    assert node.answer("import", str(INSTANCE.file))["outcomes"] == {"new": 1}
    yield INSTANCE


def search(client: httpx.Client) -> int:
    return client.get("/dicom-web/studies", headers=JSON).status_code


def read(client: httpx.Client) -> int:
    return client.get(f"/dicom-web{INSTANCE.path}", headers={"accept": DICOM_ANY}).status_code


def write(client: httpx.Client) -> int:
    return stow(client, [INSTANCE.file.read_bytes()]).status_code


@pytest.mark.parametrize(
    ("role", "searches", "reads", "writes"),
    [
        ("viewer", 200, 200, 403),
        ("clinician", 200, 200, 200),
        ("device", 403, 403, 200),
        ("auditor", 403, 403, 403),
        ("admin", 200, 200, 200),
        (None, 401, 401, 401),
    ],
)
def test_each_role_may_do_what_the_table_says(
    node: RunningNode, stored: Sent, role: str | None, searches: int, reads: int, writes: int
) -> None:
    with node.http(role) as client:
        assert (search(client), read(client), write(client)) == (searches, reads, writes)


def test_a_refusal_is_a_problem_document_that_asks_for_a_credential(node: RunningNode) -> None:
    with node.http(None) as client:
        response = client.get("/dicom-web/studies", headers=JSON)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith("unauthenticated")


def test_a_wrong_token_is_refused(node: RunningNode) -> None:
    with node.http(None) as client:
        assert client.get("/dicom-web/studies", headers={"authorization": "Bearer no-such-token"}).status_code == 401


def test_only_the_open_routes_answer_without_a_credential(node: RunningNode) -> None:
    with node.http(None) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        for path in (
            "/dicom-web/studies",
            "/dicom-web/series",
            "/dicom-web/instances",
            "/dicom-web/studies/1.2/metadata",
        ):
            assert client.get(path).status_code == 401, path
        for path in ("/ohif/", "/ohif/app-config.js", "/wado", "/ledger/checkpoint", "/console/", "/api/", "/metrics"):
            assert client.get(path).status_code in (303, 307, 401, 404), path


def test_a_revoked_token_stops_working_at_once(node: RunningNode) -> None:
    token = node.answer("token", "create", "--role", "viewer", "--name", "leaver")["token"]
    headers = JSON | {"authorization": f"Bearer {token}"}
    with node.http(None) as client:
        assert client.get("/dicom-web/studies", headers=headers).status_code in (200, 204)
        node.cairn("token", "revoke", "leaver")
        assert client.get("/dicom-web/studies", headers=headers).status_code == 401


def test_token_list_never_shows_a_secret(node: RunningNode) -> None:
    secret = node.answer("token", "create", "--role", "viewer", "--name", "listed")["token"]
    listed = node.cairn("token", "list", "--json").stdout
    assert "listed" in listed
    assert secret not in listed


def test_a_login_link_signs_in_once(node: RunningNode, stored: Sent) -> None:
    url = node.answer("login-link", "--name", "reader", "--role", "viewer")["url"]
    with httpx.Client(base_url=node.url) as browser, httpx.Client(base_url=node.url) as other:
        assert browser.get(url).status_code in (302, 303)
        assert browser.get("/dicom-web/studies", headers=JSON).status_code == 200
        assert other.get(url).status_code == 401
        assert other.get("/dicom-web/studies", headers=JSON).status_code == 401


def test_a_session_cookie_is_kept_from_scripts_and_other_sites(node: RunningNode) -> None:
    url = node.answer("login-link", "--name", "reader", "--role", "viewer")["url"]
    cookie = httpx.get(url).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=" in cookie


def test_no_answer_and_no_log_line_holds_a_name_of_a_patient(node: RunningNode, stored: Sent) -> None:
    with node.http("viewer") as client:
        search(client)
        read(client)
        client.get("/dicom-web/studies", params={"PatientName": "CompressedSamples^CT1", "nonsense": "Doe^Jane"})
    assert "Doe" not in node.printed()
    assert "CompressedSamples" not in node.printed()
    assert node.token("viewer") not in node.printed()
