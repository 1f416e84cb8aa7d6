"""STOW-RS by clause: PS3.18 10.5 and Annex I.2, the truth table of statuses, and bodies that break off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from node_in_memory import STUDY, Client, FakeNode

from dicomweb import stow
from dicomweb.app import create_app
from dicomweb.stow import MOST_SUBMITTED, PIECE

MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'
GOOD, OTHER = f"STORE {STUDY} 1.1", f"STORE {STUDY} 1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"


def body(*files: str, closing: str = "\r\n--b--", content_type: str = "application/dicom") -> bytes:
    return ("".join(f"\r\n--b\r\nContent-Type: {content_type}\r\n\r\n{file}" for file in files) + closing).encode()


def post(client: Client, content: Any, path: str = "/studies", content_type: str = MULTIPART) -> Any:
    return client.post("/dicom-web" + path, content=content, headers={"content-type": content_type})


@pytest.mark.parametrize(
    ("files", "status", "stored", "failed", "others"),
    [
        ([GOOD], 200, ["1.1"], [], []),
        ([GOOD, OTHER], 200, ["1.1", "1.2"], [], []),
        ([GOOD, "Unreadable"], 202, ["1.1"], [], [0xC000]),
        ([GOOD, "IdentityMissing"], 202, ["1.1"], [], [0xC000]),
        (["SopClassUnsupported 1.9", GOOD], 202, ["1.1"], [("1.9", 0x0122)], []),
        (["TransferSyntaxUnsupported 1.9"], 409, [], [("1.9", 0xC122)], []),
        (["Unreadable"], 409, [], [], [0xC000]),
        (["Unreadable", "SopClassMismatch 1.8"], 409, [], [("1.8", 0xA900)], [0xC000]),
        (["StorageFull 1.1"], 507, [], [("1.1", 0xA700)], []),
        (["StorageFull 1.1", "StorageFull"], 507, [], [("1.1", 0xA700)], [0xA700]),
        (["StorageFull 1.1", "Busy 1.2"], 503, [], [("1.1", 0xA700), ("1.2", 0xA700)], []),
        (["StorageFull 1.1", "Unreadable"], 409, [], [("1.1", 0xA700)], [0xC000]),
        ([GOOD, "StorageFull 1.2"], 202, ["1.1"], [("1.2", 0xA700)], []),
    ],
)
def test_10_5_3_truth_table(
    node: FakeNode,
    client: Client,
    files: list[str],
    status: int,
    stored: list[str],
    failed: list[tuple[str, int]],
    others: list[int],
) -> None:
    response = post(client, body(*files))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/dicom+json"
    document = response.json()
    referenced = [item["00081155"]["Value"][0] for item in document.get("00081199", {"Value": []})["Value"]]
    assert referenced == stored == [entry[1] for entry in node.recorded if entry[0] == "stored"]
    refused = document.get("00081198", {"Value": []})["Value"]
    assert [(item["00081155"]["Value"][0], item["00081197"]["Value"][0]) for item in refused] == failed
    assert all(item["00081150"] == {"vr": "UI", "Value": [CT]} for item in refused)
    unnamed = document.get("0008119A", {"Value": []})["Value"]
    assert [item["00081197"] for item in unnamed] == [{"vr": "US", "Value": [reason]} for reason in others]
    for sequence, items in (("00081199", stored), ("00081198", failed), ("0008119A", others)):
        assert (sequence in document) == bool(items)
    assert ("location" in response.headers) == bool(stored)


def test_10_5_3_2_what_was_created_is_located(node: FakeNode, client: Client) -> None:
    response = post(client, body(GOOD))
    url = f"http://127.0.0.1:8042/dicom-web/studies/{STUDY}"
    assert response.headers["location"] == response.headers["content-location"] == url
    document = response.json()
    assert document["00081190"] == {"vr": "UR", "Value": [url]}
    item = document["00081199"]["Value"][0]
    assert item["00081190"]["Value"] == [f"{url}/series/1.2.3.1/instances/1.1"]
    assert item["00081150"]["Value"] == [CT]


def test_several_studies_have_no_one_retrieve_url(node: FakeNode, client: Client) -> None:
    response = post(client, body(GOOD, "STORE 9.9 1.2"))
    assert response.json()["00081190"] == {"vr": "UR"}
    assert response.headers["location"] == "http://127.0.0.1:8042/dicom-web/studies"


def test_the_study_of_the_url_binds(node: FakeNode, client: Client) -> None:
    response = post(client, body(GOOD, "STORE 9.9 1.2"), f"/studies/{STUDY}")
    assert response.status_code == 202
    (refused,) = response.json()["00081198"]["Value"]
    assert refused["00081197"]["Value"] == [0xA900]


@pytest.mark.parametrize(
    "content_type",
    [
        MULTIPART,
        "multipart/related; type=application/dicom; boundary=b",
        'Multipart/Related; BOUNDARY="b"; Type="APPLICATION/DICOM"',
        "multipart/related; boundary=b",
    ],
)
def test_8_7_1_ways_to_write_the_content_type(node: FakeNode, client: Client, content_type: str) -> None:
    assert post(client, body(GOOD), content_type=content_type).status_code == 200


def test_a_single_part_is_taken_too(node: FakeNode, client: Client) -> None:
    assert post(client, GOOD.encode(), content_type="application/dicom").status_code == 200
    response = post(client, b"Unreadable", content_type="application/dicom; transfer-syntax=1.2.840.10008.1.2.1")
    assert response.status_code == 409


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        'multipart/related; type="application/dicom+json"; boundary=b',
        "multipart/form-data; boundary=b",
        "",
        "rubbish",
    ],
)
def test_other_types_are_415(node: FakeNode, client: Client, content_type: str) -> None:
    response = post(client, body(GOOD), content_type=content_type)
    assert (response.status_code, response.headers["content-type"]) == (415, "application/problem+json")
    assert not node.recorded


def test_an_encoded_body_is_415(node: FakeNode, client: Client) -> None:
    headers = {"content-type": MULTIPART, "content-encoding": "gzip"}
    assert client.post("/dicom-web/studies", content=b"x", headers=headers).status_code == 415


def test_what_ohif_sends_is_stored(node: FakeNode, client: Client) -> None:
    """A leading CRLF, and NUL bytes after the closing delimiter (dicomweb-client JS counts its footer too often)."""
    assert post(client, body(GOOD, OTHER) + b"\0" * 14).status_code == 200


def test_parts_of_another_type_fail_alone(node: FakeNode, client: Client) -> None:
    mixed = body(GOOD, closing="") + body("x", content_type="image/jpeg")
    response = post(client, mixed)
    assert response.status_code == 202
    assert len(response.json()["0008119A"]["Value"]) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no boundary at all",
        b"--b--",
        body(GOOD, closing=""),
        body(GOOD, closing="\r\n--"),
        body(GOOD).replace(b"\r\n", b"\n"),
        b"--b\r\nbroken header\r\n\r\nx\r\n--b--",
    ],
)
def test_bad_syntax_stores_nothing_and_is_400(node: FakeNode, client: Client, content: bytes) -> None:
    response = post(client, content)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert not any(entry[0] == "stored" for entry in node.recorded)


@pytest.mark.parametrize("content_type", ["multipart/related; type=application/dicom", f"{MULTIPART[:-1]}{'x' * 71}"])
def test_a_bad_boundary_is_400(node: FakeNode, client: Client, content_type: str) -> None:
    assert post(client, body(GOOD), content_type=content_type).status_code == 400


def test_parts_complete_before_a_truncation_are_stored_and_said_to_be(node: FakeNode, client: Client) -> None:
    response = post(client, body(GOOD, OTHER, closing=""))
    assert response.status_code == 202
    assert sorted(entry for entry in node.recorded if entry[0] in ("stored", "abort")) == [
        ("abort", len(OTHER)),
        ("stored", "1.1"),
    ]
    assert len(response.json()["0008119A"]["Value"]) == 1


def test_bodies_beyond_the_limit_are_413(node: FakeNode, client: Client) -> None:
    too_large = body("x" * (2 << 20))
    assert post(client, too_large).status_code == 413
    assert not node.recorded  # Content-Length said so before anything was read

    async def chunked() -> AsyncIterator[bytes]:
        for start in range(0, len(too_large), 10_000):
            yield too_large[start : start + 10_000]

    assert post(client, chunked()).status_code == 413
    assert [entry[0] for entry in node.recorded] == ["reception", "abort", "closed"]


def test_the_next_parts_are_read_while_the_disk_writes_and_all_are_durable_before_the_answer(
    node: FakeNode, client: Client
) -> None:
    many = MOST_SUBMITTED + 3
    response = post(client, body(*(f"STORE {STUDY} 1.{number}" for number in range(many))))
    steps = [entry[0] for entry in node.recorded if entry[0] in ("submitted", "stored", "closed")]
    assert steps == ["submitted"] * (MOST_SUBMITTED + 1) + ["stored", "submitted"] * 2 + ["stored"] * (many - 2) + [
        "closed"
    ]
    said = [item["00081155"]["Value"][0] for item in response.json()["00081199"]["Value"]]
    assert said == [f"1.{number}" for number in range(many)]


def test_what_fails_late_is_reported_in_its_place(node: FakeNode, client: Client) -> None:
    parts = [GOOD, "StorageFull 1.2", "SopClassUnsupported 1.3", "StorageFault 1.4", OTHER.replace("1.2", "1.5")]
    response = post(client, body(*parts))
    document = response.json()
    assert response.status_code == 202
    assert [item["00081155"]["Value"][0] for item in document["00081198"]["Value"]] == ["1.2", "1.3", "1.4"]
    assert [item["00081155"]["Value"][0] for item in document["00081199"]["Value"]] == ["1.1", "1.5"]


def test_a_request_of_nothing_but_refused_parts_ends_at_a_limit(
    node: FakeNode, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MOST_REFUSED", 3)
    assert post(client, body(*["Unreadable"] * 3)).status_code == 409
    assert post(client, body(*["Unreadable"] * 4)).status_code == 413
    response = post(client, body(GOOD, *["Unreadable"] * 4))
    assert response.status_code == 202  # what was stored before is said
    assert len(response.json()["00081199"]["Value"]) == 1


@pytest.mark.parametrize("more", [{}, {"expect": "100-continue"}])
def test_who_may_not_store_is_refused_whatever_the_body(node: FakeNode, client: Client, more: dict[str, str]) -> None:
    headers = {"content-type": MULTIPART, "authorization": "Bearer viewer", **more}
    for content in (body(GOOD), body("x" * (2 << 20))):
        assert client.post("/dicom-web/studies", content=content, headers=headers).status_code == 403
        nobody = client.post("/dicom-web/studies", content=content, headers={**headers, "authorization": "Bearer no"})
        assert nobody.status_code == 401
    assert not [entry for entry in node.recorded if entry[0] in ("reception", "submitted")]


def test_what_a_small_body_and_a_streamed_one_are_answered_is_the_same(
    node: FakeNode, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = body(GOOD, "Unreadable"), body(GOOD, OTHER, closing=""), b"--b--", b"rubbish", body("StorageFull 1.1")
    small = [post(client, content) for content in files]
    monkeypatch.setattr(stow, "PIECE", 8)
    streamed = [post(client, content) for content in files]
    assert [one.status_code for one in small] == [202, 202, 400, 400, 507]
    assert [one.content for one in small] == [one.content for one in streamed]


def test_a_client_that_goes_away_leaves_nothing_of_its_part(node: FakeNode, portal: BlockingPortal) -> None:
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": body(GOOD, OTHER, closing=""), "more_body": True},
            {"type": "http.request", "body": b"x" * PIECE, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/dicom-web/studies",
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer device"), (b"content-type", MULTIPART.encode())],
        "client": ("127.0.0.1", 1),
        "scheme": "http",
    }

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    portal.call(create_app(node), scope, receive, send)  # type: ignore[arg-type]
    kinds = [entry[0] for entry in node.recorded]
    assert kinds == ["reception", "submitted", "abort", "stored", "closed"]


def test_the_purpose_reaches_the_reception(node: FakeNode, client: Client) -> None:
    headers = {"content-type": MULTIPART, "cairn-purpose": "HRESCH"}
    client.post("/dicom-web/studies", content=body(GOOD), headers=headers)
    assert node.recorded[0] == ("reception", "admin", "HRESCH")
