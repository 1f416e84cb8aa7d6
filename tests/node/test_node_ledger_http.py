"""The ledger of a real node over HTTP: what was done through its doors is found, followed, fetched and proved."""

import base64
import json
from collections.abc import Iterator

import httpx
import pytest

from ledger import checkpoint, entry, merkle, proof, tiles
from tests.node.instances import DICOM_ANY, HIGHDICOM, sendable
from tests.node.running_node import RunningNode

INSTANCE = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
PROVENANCE = f"/dicom-web{INSTANCE.path}/provenance"


def followed(lines: Iterator[str], kind: str) -> dict[str, object]:
    """The first entry of a kind that a stream brings."""
    for line in lines:
        if line.startswith("data:"):
            event: dict[str, object] = json.loads(line[5:])
            if event["type"] == kind:
                return event
    raise AssertionError("the stream ended")


@pytest.fixture(scope="module")
def stored(node: RunningNode) -> dict[str, object]:
    """What the stream said about the storing of one instance, as soon as it was sealed."""
    with node.http("auditor") as client, client.stream("GET", "/ledger/stream", timeout=60) as response:
        assert node.storescu(INSTANCE.file).returncode == 0
        return followed(response.iter_lines(), "study.store")


@pytest.fixture(scope="module")
def auditor(node: RunningNode) -> Iterator[httpx.Client]:
    with node.http("auditor") as client:
        yield client


def test_what_is_stored_is_followed_found_and_proved(
    node: RunningNode, stored: dict[str, object], auditor: httpx.Client
) -> None:
    assert (stored["study"], stored["outcome"], stored["records"]) == (INSTANCE.study, 0, 1)
    assert stored["actor"]["name"] == "TESTER"  # type: ignore[index]
    (listed,) = auditor.get("/ledger/entries", params={"type": "study.store", "study": INSTANCE.study}).json()[
        "entries"
    ]
    assert listed == stored
    url = f"/ledger/entries/{stored['id']}"
    whole = auditor.get(url).json()
    key = checkpoint.parse_vkey(auditor.get("/ledger/key").text)
    assert entry.open(base64.b64decode(whole["envelope"]), key.key).type == "study.store"
    (detail,) = whole["details"]
    assert INSTANCE.sop in json.dumps(detail["body"])
    assert proof.verify(auditor.get(f"{url}/proof").text, key.name, key.key).leaf.hex() == stored["id"]
    of_record = proof.verify(auditor.get(detail["links"]["proof"]).text, key.name, key.key)
    assert of_record.record is not None and of_record.record_leaf is not None
    assert (of_record.record_leaf.hex(), of_record.record.type) == (detail["id"], "study.store")
    assert key.vkey() == node.cairn("ledger", "key").stdout.strip()


def test_tiles_and_bundles_rebuild_the_tree_of_the_checkpoint(stored: dict[str, object], auditor: httpx.Client) -> None:
    key = checkpoint.parse_vkey(auditor.get("/ledger/key").text)
    head = checkpoint.verify(auditor.get("/ledger/checkpoint").text, key.name, key.key)
    assert 0 < head.size < tiles.WIDTH
    bundle = auditor.get(f"/ledger/tile/entries/000.p/{head.size}")
    leaves = [entry.leaf_hash(one) for one in tiles.split_bundle(bundle.content)]
    assert b"".join(leaves) == auditor.get(f"/ledger/tile/0/000.p/{head.size}").content
    assert merkle.root(leaves) == head.root
    hashes = auditor.get("/ledger/consistency", params={"from": 1, "to": head.size}).json()["proof"]
    merkle.verify_consistency(1, head.size, leaves[0], head.root, [base64.b64decode(item) for item in hashes])


def test_a_retrieve_names_its_provenance_which_tells_of_it(
    node: RunningNode, stored: dict[str, object], auditor: httpx.Client
) -> None:
    with node.http("viewer") as viewer:
        response = viewer.get(f"/dicom-web{INSTANCE.path}", headers={"accept": DICOM_ANY})
        url = response.links["provenance"]["url"]
        assert url == node.url + PROVENANCE
        assert viewer.get(url).status_code == 403
    assert stored in auditor.get(url).json()
    for level in (INSTANCE.study, f"{INSTANCE.study}/series/{INSTANCE.series}"):
        assert stored in auditor.get(f"/dicom-web/studies/{level}/provenance").json()
    assert auditor.get(PROVENANCE + "x").status_code == 404


def test_openapi_needs_a_credential(node: RunningNode) -> None:
    with node.http(None) as nobody, node.http("viewer") as viewer:
        assert nobody.get("/openapi.json").status_code == 401
        assert viewer.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_reading_is_recorded_and_a_stream_ends_with_the_node(fresh_node: RunningNode) -> None:
    node = fresh_node.start()
    with node.http("auditor") as client, client.stream("GET", "/ledger/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == "retry: 2000"
        assert client.get("/ledger/entries?limit=1").status_code == 200
        assert node.stop() == 0
        assert not any(line.startswith("event: gap") for line in lines)
    assert "graceful" not in node.printed()  # nobody had to be cut off
    node.start()
    with (
        node.http("auditor") as client,
        client.stream("GET", "/ledger/stream", headers={"last-event-id": "0"}) as again,
    ):
        viewed = followed(again.iter_lines(), "audit.view")
        items = [
            item[0]
            for detail in client.get(f"/ledger/entries/{viewed['id']}").json()["details"]
            for item in detail["body"].get("items", ())
        ]
    assert {"stream", "entries"} <= set(items)
