"""Why somebody looks: headers, the browser's choice, and that break-glass needs a reason."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from node_in_memory import SERIES, STUDY, Client, FakeNode

from bridge.errors import RequestError
from dicomweb.purpose import purpose_of
from ledger.types import PURPOSES

INSTANCE = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/1.1"
SESSION = "cairn_session=session-viewer"
OURS = {"sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"}


def viewed(node: FakeNode) -> list[tuple[str, str | None]]:
    return [(purpose, reason) for kind, _, _, purpose, reason in (e for e in node.recorded if e[0] == "view")]


def choose(client: Client, path: str = "/purpose", **form: str) -> str:
    """Post the form as our own page does; the cookie that a browser then sends."""
    response = client.post(path, headers={"cookie": SESSION, **OURS}, content=urlencode(form).encode())
    assert response.status_code == 303, response.text
    cookie: str = response.headers["set-cookie"]
    assert "httponly" in cookie.lower() and "samesite=lax" in cookie.lower()
    return cookie.split(";")[0]


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, ("TREAT", None)),
        ({"cairn-purpose": "HRESCH"}, ("HRESCH", None)),
        ({"cairn-purpose": " ETREAT ", "cairn-reason": " unconscious "}, ("ETREAT", "unconscious")),
        ({"cairn-reason": "second opinion"}, ("TREAT", "second opinion")),
    ],
)
def test_the_headers_say_purpose_and_reason(headers: dict[str, str], wanted: tuple[str, str | None]) -> None:
    assert purpose_of(headers) == wanted


@pytest.mark.parametrize(
    "headers",
    [
        {"cairn-purpose": "ETREAT"},
        {"cairn-purpose": "ETREAT", "cairn-reason": "   "},
        {"cairn-purpose": "treat"},
        {"cairn-purpose": "A" * 17},
        {"cairn-purpose": ""},
        {"cairn-purpose": "TREAT", "cairn-reason": "x" * 501},
    ],
)
def test_what_cannot_be_recorded_so_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        purpose_of(headers)


def test_break_glass_without_a_reason_is_400_and_serves_and_records_nothing(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    response = client.get(INSTANCE, headers={"cairn-purpose": "ETREAT"})
    assert response.status_code == 400 and response.headers["content-type"] == "application/problem+json"
    assert viewed(node) == []
    assert client.get(INSTANCE, headers={"cairn-purpose": "ETREAT", "cairn-reason": "shock"}).status_code == 200
    assert viewed(node) == [("ETREAT", "shock")]


def test_what_the_browser_chose_goes_with_every_access_of_its_session(node: FakeNode, anonymous: Client) -> None:
    node.add("1.1")
    chosen = choose(anonymous, purpose="ETREAT", reason="unconscious; no relatives & \u00e4lter")
    anonymous.get(INSTANCE, headers={"cookie": f"{SESSION}; {chosen}", "accept": "*/*"})
    anonymous.get(INSTANCE, headers={"cookie": SESSION, "accept": "*/*"})
    both = {"cookie": f"{SESSION}; {chosen}", "cairn-purpose": "HRESCH", "accept": "*/*"}
    anonymous.get(INSTANCE, headers=both)
    assert viewed(node) == [
        ("ETREAT", "unconscious; no relatives & \u00e4lter"),
        ("TREAT", None),
        ("HRESCH", None),
    ]


def test_a_token_is_nobodys_browser(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    client.get(INSTANCE, headers={"cookie": "cairn_purpose=purpose%3DETREAT&reason=x"})
    assert viewed(node) == [("TREAT", None)]


def test_choosing_treatment_forgets_the_choice(anonymous: Client) -> None:
    response = anonymous.post("/purpose", headers={"cookie": SESSION, **OURS}, content=b"purpose=TREAT&reason=")
    assert (response.status_code, response.headers["location"]) == (303, "/ohif/")
    assert "max-age=0" in response.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("form", "headers", "status"),
    [
        (b"purpose=ETREAT&reason=", OURS, 400),
        (b"purpose=nonsense", OURS, 400),
        (b"&".join(b"a=%d" % number for number in range(50)), OURS, 400),
        (b"purpose=ETREAT&reason=" + b"x" * 9000, OURS, 413),
        (b"purpose=ETREAT&reason=y", {**OURS, "sec-fetch-site": "cross-site"}, 403),
        (b"purpose=ETREAT&reason=y", {}, 403),
    ],
)
def test_a_choice_that_cannot_be_taken(anonymous: Client, form: bytes, headers: dict[str, str], status: int) -> None:
    response = anonymous.post("/purpose", headers={"cookie": SESSION, **headers}, content=form)
    assert response.status_code == status and "set-cookie" not in response.headers


def test_the_page_shows_the_choices_and_what_was_chosen(anonymous: Client) -> None:
    chosen = choose(anonymous, "/purpose?next=/console/", purpose="ETREAT", reason='<b>"why"</b>')
    page = anonymous.get("/purpose", headers={"cookie": f"{SESSION}; {chosen}", "accept": "text/html"})
    assert page.status_code == 200 and all(f'value="{code}"' in page.text for code in {*PURPOSES} - {"BTG"})
    assert 'value="ETREAT" checked' in page.text and "&lt;b&gt;" in page.text and "<b>" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    broken = anonymous.get("/purpose", headers={"cookie": f"{SESSION}; cairn_purpose=purpose=x", "accept": "text/html"})
    assert 'value="TREAT" checked' in broken.text


def test_the_page_is_for_those_who_may_look(anonymous: Client) -> None:
    assert anonymous.get("/purpose").status_code == 401
    assert anonymous.get("/purpose", headers={"accept": "text/html"}).status_code == 401
    assert anonymous.get("/purpose", headers={"authorization": "Bearer device"}).status_code == 403
    assert anonymous.request("PUT", "/purpose").status_code == 405
