"""WADO-RS by clause: PS3.18 8.6, 8.7.3, 10.4, and RFC 9110 conditional requests."""

from __future__ import annotations

from email import message_from_bytes
from typing import Any

import httpx
import pytest
from node_in_memory import NATIVE, SERIES, STUDY, Client, FakeNode

from bridge import errors

SERIES_URL = f"/dicom-web/studies/{STUDY}/series/{SERIES}"
ONE = f"{SERIES_URL}/instances/1.1"
MULTIPART_DICOM = 'multipart/related; type="application/dicom"'
JPEG_LS, IMPLICIT, BIG_ENDIAN, DEFLATED = (
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)


def parts_of(response: httpx.Response) -> list[tuple[dict[str, str], Any]]:
    """The parts as Python's own parser reads them."""
    head = f"Content-Type: {response.headers['content-type']}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = message_from_bytes(head + response.content)
    return [({n.lower(): v for n, v in p.items()}, p.get_payload(decode=True)) for p in message.get_payload()]


@pytest.mark.parametrize("path", [f"/dicom-web/studies/{STUDY}", SERIES_URL, ONE])
def test_10_4_1_instances_come_as_they_were_stored_each_in_its_part(node: FakeNode, client: Client, path: str) -> None:
    held = [node.add("1.1"), node.add("1.2")] if path != ONE else [node.add("1.1")]
    response = client.get(path, headers={"accept": MULTIPART_DICOM})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(MULTIPART_DICOM + "; boundary=")
    assert int(response.headers["content-length"]) == len(response.content)
    parts = parts_of(response)
    assert [data for _, data in parts] == [one.file for one in held]
    for (headers, data), one in zip(parts, held, strict=True):
        assert headers["content-type"] == f"application/dicom; transfer-syntax={NATIVE}"
        assert headers["content-length"] == str(len(data))
        assert headers["content-location"] == f"http://127.0.0.1:8042{SERIES_URL}/instances/{one.instance.key.sop}"
    assert node.recorded[0] == ("view", "admin", STUDY, "TREAT", None)


def test_8_6_1_2_parts_have_the_form_that_viewers_look_for(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    response = client.get(ONE + "/frames/1,2", headers={"accept": "multipart/related; type=application/octet-stream"})
    boundary = response.headers["content-type"].rsplit("boundary=", 1)[1].encode()
    assert len(boundary) >= 16 and b";" not in boundary and b'"' not in boundary
    assert response.content.startswith(b"--" + boundary + b"\r\nContent-Type: ")
    assert response.content.endswith(b"\r\n--" + boundary + b"--")
    assert response.content.index(b"\r\n\r\n") < 1000


def test_single_part_is_given_for_one_instance_when_asked(node: FakeNode, client: Client) -> None:
    held = node.add("1.1", DEFLATED)
    response = client.get(ONE, headers={"accept": "application/dicom"})
    assert response.content == held.file
    assert response.headers["content-type"] == f"application/dicom; transfer-syntax={DEFLATED}"
    assert response.headers["content-length"] == str(len(held.file))
    assert client.get(SERIES_URL, headers={"accept": "application/dicom"}).status_code == 406


@pytest.mark.parametrize(
    ("stored", "label", "part"),
    [
        (NATIVE, NATIVE, "application/octet-stream"),
        (IMPLICIT, NATIVE, "application/octet-stream"),
        (BIG_ENDIAN, NATIVE, "application/octet-stream"),
        (DEFLATED, NATIVE, "application/octet-stream"),
        (JPEG_LS, JPEG_LS, "image/jls"),
        ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.50", "image/jpeg"),
        ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.5", "image/dicom-rle"),
        ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.201", "image/jphc"),
    ],
)
def test_8_7_3_frames_are_labelled_with_what_they_are(
    node: FakeNode, client: Client, stored: str, label: str, part: str
) -> None:
    node.add("1.1", stored)
    for accept in ("*/*", 'multipart/related; type="*/*"', f'multipart/related; type="{part}"; transfer-syntax="*"'):
        ((headers, data),) = parts_of(client.get(ONE + "/frames/2", headers={"accept": accept}))
        assert headers["content-type"] == f"{part}; transfer-syntax={label}"
        assert headers["content-location"].endswith(ONE + "/frames/2")
        assert data == b"\3\4"


@pytest.mark.parametrize(
    "accept",
    [
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        'multipart/related; type="application/octet-stream"; transfer-syntax="*"',
        'Multipart/Related;TRANSFER-SYNTAX=*;Type="application/octet-stream"',
        'multipart/related; type="application/octet-stream"',
    ],
)
def test_8_7_quoted_and_unquoted_values_are_equal(node: FakeNode, client: Client, accept: str) -> None:
    node.add("1.1", JPEG_LS)
    ((headers, data),) = parts_of(client.get(ONE + "/frames/1", headers={"accept": accept}))
    assert (headers["content-type"], data) == (f"application/octet-stream; transfer-syntax={JPEG_LS}", b"\1\2")


def test_a_single_frame_comes_alone_when_asked(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    response = client.get(ONE + "/frames/3", headers={"accept": "application/octet-stream"})
    assert response.content == b"\5\6"
    assert response.headers["content-type"] == f"application/octet-stream; transfer-syntax={NATIVE}"
    assert client.get(ONE + "/frames/1,3", headers={"accept": "application/octet-stream"}).status_code == 406


@pytest.mark.parametrize("frames", ["3,1", "3%2C1"])
def test_frames_come_in_the_order_asked(node: FakeNode, client: Client, frames: str) -> None:
    node.add("1.1")
    response = client.get(f"{ONE}/frames/{frames}")
    assert [data for _, data in parts_of(response)] == [b"\5\6", b"\1\2"]


@pytest.mark.parametrize(
    ("frames", "status"), [("0", 400), ("abc", 400), ("1,,2", 400), ("-1", 400), ("1,0", 400), ("4", 404), ("1,4", 404)]
)
def test_frame_lists_that_cannot_be_served(node: FakeNode, client: Client, frames: str, status: int) -> None:
    node.add("1.1")
    response = client.get(f"{ONE}/frames/{frames}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_8_7_8_a_transfer_syntax_that_is_not_stored_is_406_and_says_what_is(node: FakeNode, client: Client) -> None:
    node.add("1.1", JPEG_LS)
    for path, accept in [
        (ONE, f"{MULTIPART_DICOM}; transfer-syntax=1.2.840.10008.1.2.4.90"),
        (ONE + "/frames/1", 'multipart/related; type="image/jp2"'),
        (ONE + "/frames/1", f'multipart/related; type="application/octet-stream"; transfer-syntax={NATIVE}'),
    ]:
        response = client.get(path, headers={"accept": accept})
        assert response.status_code == 406
        assert JPEG_LS in response.json()["detail"]
    ok = client.get(ONE, headers={"accept": f"{MULTIPART_DICOM}; transfer-syntax={JPEG_LS}"})
    assert ok.status_code == 200


def test_a_study_in_several_syntaxes_is_given_as_stored_or_not_at_all(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    node.add("1.2", JPEG_LS)
    stored = parts_of(client.get(SERIES_URL, headers={"accept": f"{MULTIPART_DICOM}; transfer-syntax=*"}))
    assert [headers["content-type"].rsplit("=", 1)[1] for headers, _ in stored] == [NATIVE, JPEG_LS]
    one = client.get(SERIES_URL, headers={"accept": f"{MULTIPART_DICOM}; transfer-syntax={JPEG_LS}"})
    assert one.status_code == 406


@pytest.mark.parametrize("path", [f"/dicom-web/studies/{STUDY}", SERIES_URL, ONE])
def test_10_4_1_1_2_metadata_is_one_array_with_absolute_bulk_data_uris(
    node: FakeNode, client: Client, path: str
) -> None:
    node.add("1.1")
    response = client.get(path + "/metadata")
    assert response.headers["content-type"] == "application/dicom+json"
    uri = response.json()[0]["7FE00010"]["BulkDataURI"]
    assert uri == f"http://127.0.0.1:8042{ONE}/bulkdata/7FE00010"
    bulk = client.get(uri)
    assert (bulk.headers["content-type"], bulk.content) == ("application/octet-stream", b"\1\2\3\4\5\6")
    ((headers, data),) = parts_of(client.get(uri, headers={"accept": 'multipart/related; type="*/*"'}))
    assert (headers["content-location"], data) == (uri, bulk.content)


def test_metadata_of_many_instances_is_strict_json(node: FakeNode, client: Client) -> None:
    sops = [f"1.{n}" for n in range(300)]
    for sop in sops:
        node.add(sop)
    response = client.get(SERIES_URL + "/metadata")
    assert [found["00080018"]["Value"][0] for found in response.json()] == sops


def test_unknown_resources_are_404(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    for path in ("/dicom-web/studies/9.9", ONE + "9", ONE + "/bulkdata/nothing", "/dicom-web/studies/9.9/metadata"):
        response = client.get(path)
        assert (response.status_code, response.json()["type"]) == (404, "urn:cairn:problem:not-found")
    assert not any(entry[0] == "view" and entry[2] == "9.9" for entry in node.recorded)


@pytest.mark.parametrize("path", [ONE, SERIES_URL, ONE + "/frames/1", ONE + "/frames/1,2", ONE + "/metadata"])
def test_rfc_9110_8_8_strong_etags_and_304_after_the_access_record(node: FakeNode, client: Client, path: str) -> None:
    node.add("1.1")
    first = client.get(path)
    tag = first.headers["etag"]
    assert tag.startswith('"') and first.headers["cache-control"] == "private, no-cache"
    assert client.get(path).content == first.content
    node.recorded.clear()
    again = client.get(path, headers={"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert node.recorded == [("view", "admin", STUDY, "TREAT", None)]
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_rfc_9110_13_1_1_another_representation_than_if_match_names_is_412(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    tag = client.get(ONE).headers["etag"]
    for named in (tag, "*", f'"other", {tag}'):
        assert client.get(ONE, headers={"if-match": named}).status_code == 200
    for named in ('"other"', f"W/{tag}"):
        assert client.get(ONE, headers={"if-match": named, "if-none-match": tag}).status_code == 412


def test_etags_differ_by_representation_and_by_content(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    node.add("1.2")
    requests = [
        (ONE, "*/*"),
        (ONE, "application/dicom"),
        (ONE + "/frames/1", "*/*"),
        (ONE + "/frames/2", "*/*"),
        (ONE + "/frames/1", "application/octet-stream"),
        (ONE + "/metadata", "application/json"),
        (ONE + "/metadata", "*/*"),
        (SERIES_URL, "*/*"),
        (f"{SERIES_URL}/instances/1.2", "*/*"),
    ]
    tags = [client.get(path, headers={"accept": accept}).headers["etag"] for path, accept in requests]
    assert len(set(tags)) == len(requests)


@pytest.mark.parametrize("path", [ONE, SERIES_URL, ONE + "/frames/1", ONE + "/frames/1,2", ONE + "/metadata"])
def test_rfc_9110_9_3_2_head_gives_the_headers_of_get(node: FakeNode, client: Client, path: str) -> None:
    node.add("1.1")
    get, head = client.get(path), client.head(path)
    assert head.content == b""
    given, asked = dict(get.headers), dict(head.headers)
    assert asked.items() <= given.items()
    assert given.keys() - asked.keys() <= {"content-length"}  # "determined only while generating the content"


def test_damage_found_at_the_first_byte_is_a_problem_and_not_a_picture(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    node.fault = errors.ContentCorrupt("the block is not what its CID says")
    response = client.get(ONE)
    assert (response.status_code, response.json()["type"]) == (500, "urn:cairn:problem:content-corrupt")


def test_nothing_is_served_when_access_cannot_be_recorded(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    node.fault = errors.AccessNotRecordable("the index is full")
    for path in (ONE, ONE + "/frames/1", ONE + "/metadata", ONE + "/bulkdata/7FE00010"):
        response = client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_purpose_of_use_goes_into_the_record(node: FakeNode, client: Client) -> None:
    node.add("1.1")
    client.get(ONE, headers={"cairn-purpose": "ETREAT", "cairn-reason": "cardiac arrest"})
    assert node.recorded == [("view", "admin", STUDY, "ETREAT", "cardiac arrest")]
    for headers in ({"cairn-purpose": "ETREAT"}, {"cairn-purpose": "a b"}, {"cairn-purpose": ""}):
        assert client.get(ONE, headers=headers).status_code == 400


def test_rfc_9110_12_5_3_metadata_is_compressed_for_those_who_take_it(node: FakeNode, client: Client) -> None:
    for n in range(200):
        node.add(f"1.{n}")
    plain = client.get(SERIES_URL + "/metadata")
    packed = client.get(SERIES_URL + "/metadata", headers={"accept-encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.num_bytes_downloaded * 5 < plain.num_bytes_downloaded
    assert packed.json() == plain.json()
    assert packed.headers["etag"] != plain.headers["etag"]
    assert "Accept-Encoding" in plain.headers["vary"]
    refused = client.get(SERIES_URL + "/metadata", headers={"accept-encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in refused.headers
