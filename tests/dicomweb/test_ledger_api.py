"""`/ledger/...`: the log as C2SP tlog-tiles serves it, entries searched and read, proofs, who may, what is recorded."""

from __future__ import annotations

import base64

import pytest
from ledger_in_memory import ORIGIN, SIGNER, Ledger, some
from node_in_memory import STUDY, Client, FakeNode

from bridge import errors
from ledger import checkpoint, entry, merkle, proof, record, tiles
from ledger.types import ENTRY_TYPES

ENTRIES = "/ledger/entries"
PUBLIC = SIGNER.public_key()


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    return some().attach(node)


def ids(client: Client, query: str) -> list[int]:
    response = client.get(f"{ENTRIES}?{query}")
    assert response.status_code == 200, response.text
    return [found["index"] for found in response.json()["entries"]]


def test_the_checkpoint_is_a_signed_note_that_nobody_keeps(client: Client, ledger: Ledger) -> None:
    response = client.get("/ledger/checkpoint")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    head = checkpoint.verify(response.text, ORIGIN, PUBLIC)
    assert (head.size, head.root) == (7, merkle.root(ledger.log.leaves))
    key = client.get("/ledger/key")
    assert key.text == checkpoint.vkey(ORIGIN, PUBLIC) + "\n"


def test_a_log_without_entries_has_no_checkpoint(client: Client, node: FakeNode) -> None:
    Ledger().attach(node)
    response = client.get("/ledger/checkpoint")
    assert (response.status_code, response.json()["type"]) == (404, "urn:cairn:problem:not-found")


def test_tiles_and_bundles_have_the_paths_and_headers_of_tlog_tiles(client: Client, node: FakeNode) -> None:
    ledger = Ledger().attach(node)
    for _ in range(300):
        ledger.add("study.query")
    full, partial = client.get("/ledger/tile/0/000"), client.get("/ledger/tile/0/001.p/44")
    assert full.content + partial.content == b"".join(ledger.log.leaves)
    assert {one.headers["content-type"] for one in (full, partial)} == {"application/octet-stream"}
    assert full.headers["cache-control"] == "private, max-age=31536000, immutable"
    above = client.get("/ledger/tile/1/000.p/1")
    assert above.content == merkle.root(ledger.log.leaves[:256])
    bundle = client.get("/ledger/tile/entries/001.p/44")
    assert tiles.split_bundle(bundle.content) == ledger.log.envelopes[256:]
    assert node.recorded == [("audited", "admin", "tile/entries/001.p/44")]  # a hash tells nothing about anybody


@pytest.mark.parametrize(
    "path", ["0/001", "0/000", "0/000.p/8", "0/x001/000", "entries/000.p/0", "0/0", "0/000.p/256", "99/000", ""]
)
def test_other_tiles_are_not_there(client: Client, ledger: Ledger, path: str) -> None:
    assert client.get(f"/ledger/tile/{path}").status_code == 404


def test_groups_of_digits_name_tiles_beyond_a_thousand(client: Client, ledger: Ledger) -> None:
    asked: list[str] = []
    ledger.log.file = lambda path: asked.append(path) or b"hashes"  # type: ignore[func-returns-value,method-assign]
    assert client.get("/ledger/tile/0/x001/x234/067.p/8").content == b"hashes"
    assert asked == ["tile/0/x001/x234/067.p/8"]


def test_entries_come_newest_first_with_names_and_links(client: Client, ledger: Ledger, node: FakeNode) -> None:
    response = client.get(ENTRIES)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    assert [found["index"] for found in document["entries"]] == [6, 5, 4, 3, 2, 1, 0]
    assert document["next"] is None and "link" not in response.headers
    stored = document["entries"][5]
    id = ledger.log.leaves[1].hex()
    assert stored == {
        "index": 1,
        "id": id,
        "node": stored["node"],
        "sequence": 1,
        "type": "study.store",
        "action": "C",
        "time": "2023-11-14T22:13:21.000000Z",
        "outcome": 0,
        "outcomeText": "success",
        "purpose": "TREAT",
        "reason": "",
        "actor": {"kind": "user", "name": "CT1", "role": "device", "address": "127.0.0.1", "how": "http"},
        "study": STUDY,
        "hospital": None,
        "place": 1,
        "finality": "signed",
        "blockTime": None,
        "erased": False,
        "patient": {"id": "P-1", "issuer": "HOSPITAL", "name": "Doe^Jane"},
        "records": 2,
        "links": {
            "self": f"http://127.0.0.1:8042/ledger/entries/{id}",
            "proof": f"http://127.0.0.1:8042/ledger/entries/{id}/proof",
        },
    }
    assert node.recorded == [("audited", "admin", "entries")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("type=study.access", [6, 3, 2]),
        ("type=study.access&type=app.start", [6, 3, 2, 0]),
        ("actor=CT1", [1]),
        ("role=viewer&type=study.query", [4]),
        (f"study={STUDY}", [3, 2, 1]),
        (f"study={STUDY}&study=9.9", [6, 3, 2, 1]),
        ("patient=P-1", [3, 2, 1]),
        ("purpose=ETREAT", [6]),
        ("outcome=4", [5]),
        ("outcome=0&outcome=4&limit=2", [6, 5]),
        ("since=2023-11-14T22:13:24Z", [6, 5, 4]),
        ("until=2023-11-14T23:13:21%2B01:00", [0]),
        ("since=2023-11-14T22:13:21.000000Z&until=2023-11-14T22:13:23Z", [2, 1]),
        ("since=2023-11-15", []),
        ("until=2023-11-15&limit=1", [6]),
        ("before=2", [1, 0]),
        ("before=0", []),
    ],
)
def test_each_parameter_restricts_the_search(client: Client, ledger: Ledger, query: str, found: list[int]) -> None:
    assert ids(client, query) == found


def test_the_node_restricts_the_search(client: Client, ledger: Ledger) -> None:
    own = client.get(ENTRIES + "?limit=1").json()["entries"][0]["node"]
    assert len(ids(client, f"node={own}")) == 7
    assert ids(client, f"node={'0' * 32}") == []


def test_next_leads_through_every_page_with_the_same_parameters(client: Client, ledger: Ledger) -> None:
    url, seen, pages = f"{ENTRIES}?limit=2&type=study.access&type=study.store", [], 0
    while url:
        response = client.get(url)
        document = response.json()
        seen += [found["index"] for found in document["entries"]]
        url, pages = document["next"], pages + 1
        assert response.headers.get("link") == (f'<{url}>; rel="next"' if url else None)
    assert (seen, pages) == ([6, 3, 2, 1], 2)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("colour=red", "colour"),
        ("type=study.view", "type"),
        ("role=king", "role"),
        ("outcome=1", "outcome"),
        ("study=abc", "study"),
        ("node=00", "node"),
        ("since=yesterday", "since"),
        ("since=2023-11-14T22:13:24", "since"),
        ("until=", "until"),
        ("before=-1", "before"),
        ("before=99999999999999999999", "before"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1&limit=2", "limit"),
        ("patient=a&patient=b", "patient"),
        ("actor=", "actor"),
    ],
)
def test_what_cannot_be_honoured_is_400_and_named(client: Client, ledger: Ledger, query: str, named: str) -> None:
    response = client.get(f"{ENTRIES}?{query}")
    assert (response.status_code, response.headers["content-type"]) == (400, "application/problem+json")
    assert named in response.json()["detail"]


def test_an_unknown_parameter_is_not_repeated_when_it_is_no_word(client: Client, ledger: Ledger) -> None:
    response = client.get(f"{ENTRIES}?Doe%5EJane=1")
    assert response.status_code == 400 and "Doe" not in response.text


@pytest.mark.parametrize("path", ["checkpoint", "key", "tile/0/000.p/7", "stream", "consistency"])
def test_no_resource_takes_parameters_that_it_does_not_have(client: Client, ledger: Ledger, path: str) -> None:
    assert client.get(f"/ledger/{path}?colour=red").status_code == 400


def test_an_entry_has_its_records_and_its_signed_envelope(client: Client, ledger: Ledger, node: FakeNode) -> None:
    id = ledger.log.leaves[1]
    document = client.get(f"{ENTRIES}/{id.hex()}").json()
    envelope = base64.b64decode(document["envelope"])
    assert entry.leaf_hash(envelope) == id
    assert entry.open(envelope, PUBLIC).sequence == document["sequence"] == 1
    first, second = document["details"]
    assert (first["position"], first["body"]["instance"], second["body"]["instance"]) == (0, "1.1", "1.2")
    assert first["body"]["digest"] == {"/": {"bytes": "AAE"}}  # DAG-JSON
    assert record.leaf_hash(base64.b64decode(second["encoded"])).hex() == second["id"]
    assert client.get(f"{ENTRIES}/{second['id']}").json() == document  # a record's id names its entry
    assert node.recorded[0] == ("audited", "admin", f"entry {id.hex()}")


def test_a_proof_is_a_file_that_verifies_offline(client: Client, ledger: Ledger, node: FakeNode) -> None:
    id = ledger.log.leaves[1]
    response = client.get(f"{ENTRIES}/{id.hex()}/proof")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["content-disposition"] == f'attachment; filename="{id.hex()[:16]}.tlog-proof"'
    proved = proof.verify(response.text, ORIGIN, PUBLIC)
    assert (proved.index, proved.leaf, proved.record) == (1, id, None)
    leaf = next(iter(ledger.log.records))
    of_record = client.get(f"{ENTRIES}/{leaf.hex()}/proof")
    assert proof.verify(of_record.text, ORIGIN, PUBLIC).record_leaf == leaf
    assert node.recorded[0] == ("audited", "admin", f"proof {id.hex()}")


@pytest.mark.parametrize("id", ["0" * 64, "abc", "0" * 63 + "G", "A" * 64])
@pytest.mark.parametrize("tail", ["", "/proof"])
def test_unknown_ids_are_404(client: Client, ledger: Ledger, id: str, tail: str) -> None:
    response = client.get(f"{ENTRIES}/{id}{tail}")
    assert (response.status_code, response.json()["type"]) == (404, "urn:cairn:problem:not-found")


def test_consistency_is_that_of_rfc_9162(client: Client, ledger: Ledger) -> None:
    document = client.get("/ledger/consistency?from=3&to=7").json()
    assert (document["from"], document["to"]) == (3, 7)
    hashes = [base64.b64decode(item) for item in document["proof"]]
    leaves = ledger.log.leaves
    merkle.verify_consistency(3, 7, merkle.root(leaves[:3]), merkle.root(leaves), hashes)
    statuses = [
        client.get(f"/ledger/consistency?{query}").status_code
        for query in ("from=7&to=3", "from=3", "to=3", "from=x&to=7", "from=3&to=8")
    ]
    assert statuses == [400, 400, 400, 400, 404]


ROUTES = [
    ("checkpoint", True),
    ("key", True),
    ("tile/0/000.p/7", False),
    ("tile/entries/000.p/7", False),
    ("entries", False),
    ("entries/{id}", False),
    ("entries/{id}/proof", False),
    ("consistency?from=1&to=2", False),
    ("stream", False),
]


@pytest.mark.parametrize(("path", "everybody"), ROUTES)
@pytest.mark.parametrize("role", ["viewer", "clinician", "device", None])
def test_who_may_not_audit_sees_the_checkpoint_and_the_key_alone(
    anonymous: Client, node: FakeNode, ledger: Ledger, path: str, everybody: bool, role: str | None
) -> None:
    headers = {"authorization": f"Bearer {role}"} if role else {}
    url = "/ledger/" + path.format(id=ledger.log.leaves[0].hex())
    status = anonymous.get(url, headers=headers).status_code
    assert status == (401 if role is None else 200 if everybody else 403)
    assert not any(fact[0] == "audited" for fact in node.recorded)


@pytest.mark.parametrize(("path", "_"), ROUTES)
def test_an_auditor_gets_every_resource_and_head_gives_its_headers(
    anonymous: Client, node: FakeNode, ledger: Ledger, path: str, _: bool
) -> None:
    url = "/ledger/" + path.format(id=ledger.log.leaves[0].hex())
    headers = {"authorization": "Bearer auditor"}
    head = anonymous.head(url, headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    if path != "stream":
        get = anonymous.get(url, headers=headers)
        assert dict(head.headers) == dict(get.headers)
    refused = anonymous.request("POST", url, headers=headers)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_nothing_is_read_when_reading_cannot_be_recorded(client: Client, node: FakeNode, ledger: Ledger) -> None:
    node.fault = errors.AccessNotRecordable("the index is full")
    for path, _ in ROUTES:
        status = client.get("/ledger/" + path.format(id=ledger.log.leaves[0].hex())).status_code
        assert status == (200 if path.split("?")[0] in ("checkpoint", "key", "tile/0/000.p/7", "consistency") else 503)


def test_every_type_can_be_asked_for(client: Client, ledger: Ledger) -> None:
    for kind in ENTRY_TYPES:
        assert client.get(f"{ENTRIES}?type={kind}").status_code == 200
