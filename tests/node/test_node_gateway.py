"""`/ipfs/{cid}` of a running node: what a token of one study gets, and what real Kubo makes of it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from bridge.content.car import CarReader
from bridge.content.cid import to_text
from tests.kubo_daemon import KuboDaemon
from tests.node.instances import DICOM_ANY, HIGHDICOM, Sent, sendable, stow
from tests.node.running_node import RunningNode

SEEN_S = 30.0
JSON = {"accept": "application/dicom+json"}


class Shared(NamedTuple):
    """A study of the node: one of its instances, its root, its CAR as `cairn study export` writes it, a client."""

    sent: Sent
    root: str
    car: bytes
    client: httpx.Client


@pytest.fixture(scope="module")
def shared(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    node.cairn("import", str(HIGHDICOM), code=None)
    sent = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
    file = tmp_path_factory.mktemp("exported") / "study.car"
    root = node.answer("study", "export", sent.study, "--out", str(file))["root"]
    token = node.answer("token", "create", "--role", "viewer", "--name", "partner", "--study", sent.study)["token"]
    with httpx.Client(base_url=node.url, headers={"authorization": f"Bearer {token}"}, timeout=60.0) as client:
        yield Shared(sent, root, file.read_bytes(), client)


def blocks(car: bytes) -> dict[str, bytes]:
    rest = memoryview(car)

    def read(size: int) -> bytes:
        nonlocal rest
        piece, rest = bytes(rest[:size]), rest[size:]
        return piece

    return {to_text(block.cid): bytes(block.data) for block in CarReader(read)}


def other_root(node: RunningNode, study: str, folder: Path) -> str:
    """The root of any other study of the node."""
    other = next(sent for sent in sendable([HIGHDICOM]) if sent.study != study)
    return str(node.answer("study", "export", other.study, "--out", str(folder / "other.car"))["root"])


def test_the_car_is_the_exported_file_and_kubo_imports_it_whole(
    shared: Shared, kubo: KuboDaemon, tmp_path: Path
) -> None:
    got = shared.client.get(f"/ipfs/{shared.root}?format=car")
    assert got.content == shared.car
    file = tmp_path / "fetched.car"
    file.write_bytes(got.content)
    imported = kubo.ipfs("dag", "import", "--timeout=20s", file)
    assert shared.root in imported.stdout.decode()
    assert shared.root in kubo.pins()
    exported = kubo.ipfs("--offline", "dag", "export", "--progress=false", shared.root)
    assert exported.stdout == got.content


def test_every_block_is_given_by_itself_and_kubo_finds_the_same_bytes_under_its_cid(
    shared: Shared, kubo: KuboDaemon
) -> None:
    held = blocks(shared.car)
    kubo.dag_import(shared.car)
    for cid, data in held.items():
        got = shared.client.get(f"/ipfs/{cid}", headers={"accept": "application/vnd.ipld.raw"})
        assert got.content == data == kubo.post("block/get", cid, offline=True).content


def test_other_studies_and_other_services_are_closed_to_the_token(
    node: RunningNode, shared: Shared, tmp_path: Path
) -> None:
    foreign = other_root(node, shared.sent.study, tmp_path)
    unheld = "bafkr4igexdlpgcpgc32tkaklpsd2ex4izfos5i7apwyontr2fxdimqhaia"
    refusals = [shared.client.get(f"/ipfs/{cid}?format=raw") for cid in (foreign, unheld)]
    assert {(refusal.status_code, refusal.text) for refusal in refusals} == {(404, refusals[0].text)}
    study = f"/dicom-web/studies/{shared.sent.study}"
    assert shared.client.get("/dicom-web/studies", headers=JSON).status_code == 403
    assert shared.client.get(study, headers={"accept": DICOM_ANY}).status_code == 403
    assert shared.client.get(f"{study}/metadata", headers=JSON).status_code == 403
    assert stow(shared.client, [shared.sent.file.read_bytes()]).status_code == 403
    for path in ("/ledger/entries", "/fhir/AuditEvent", "/console/"):
        assert shared.client.get(path).status_code in (401, 403, 406), path


def test_a_revoked_token_fetches_nothing_more(node: RunningNode, shared: Shared) -> None:
    made = node.answer("token", "create", "--role", "viewer", "--name", "leaving", "--study", shared.sent.study)
    headers = {"authorization": f"Bearer {made['token']}"}
    url = f"{node.url}/ipfs/{shared.root}?format=raw"
    assert httpx.get(url, headers=headers).status_code == 200
    node.cairn("token", "revoke", made["id"])
    assert httpx.get(url, headers=headers).status_code == 401


def test_a_token_for_a_study_that_is_not_held_or_with_another_role_is_not_made(
    node: RunningNode, shared: Shared
) -> None:
    node.cairn("token", "create", "--role", "viewer", "--study", "1.2.3.4", code=1)
    node.cairn("token", "create", "--role", "admin", "--study", shared.sent.study, code=1)
    listed = {token["name"]: token["study"] for token in node.answer("token", "list")["tokens"]}
    assert listed["partner"] == shared.sent.study


@pytest.fixture
def broken_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node that will log a fault with its trace, and may."""
    node = RunningNode(tmp_path / "home")
    try:
        yield node
    finally:
        node.kill()


def test_a_car_that_cannot_be_finished_ends_its_connection_too_early(broken_node: RunningNode, tmp_path: Path) -> None:
    broken_node.start()
    sender = [sys.executable, "-m", "bridge.sample.send", "127.0.0.1", str(broken_node.dimse_port), "CAIRN"]
    subprocess.run(sender, check=True, capture_output=True, timeout=120)
    with broken_node.http() as client:
        (found,) = client.get("/dicom-web/studies", headers=JSON).json()
    study, file = found["0020000D"]["Value"][0], tmp_path / "study.car"
    root = broken_node.answer("study", "export", study, "--out", str(file))["root"]
    *_, late = (data for data in blocks(file.read_bytes()).values() if len(data) > 1000)
    for pack in (broken_node.home / "packs").iterdir():
        content = pack.read_bytes()
        with pack.open("r+b") as opened:
            if late in content:
                opened.seek(content.index(late))
                opened.write(b"damaged")
    token = broken_node.answer("token", "create", "--role", "viewer", "--study", study)["token"]
    headers = {"authorization": f"Bearer {token}"}
    got = bytearray()
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("GET", f"{broken_node.url}/ipfs/{root}?format=car", headers=headers) as answer,
    ):
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            got += piece
    assert file.read_bytes().startswith(got)
    assert len(got) > 2 << 20


def test_who_fetched_sealed_blocks_stands_in_the_ledger(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.start()
    sent = next(sent for sent in sendable([HIGHDICOM]) if sent.file.name == "ct_image.dcm")
    fresh_node.cairn("import", str(sent.file))
    root = fresh_node.answer("study", "export", sent.study, "--out", str(tmp_path / "study.car"))["root"]
    made = fresh_node.answer("token", "create", "--role", "viewer", "--name", "partner", "--study", sent.study)
    headers = {"authorization": f"Bearer {made['token']}", "cairn-purpose": "HRESCH"}
    assert httpx.get(f"{fresh_node.url}/ipfs/{root}?format=car", headers=headers).status_code == 200
    assert fresh_node.stop() == 0
    fresh_node.start()
    with fresh_node.http("auditor") as client:
        until = time.monotonic() + SEEN_S
        while not (found := client.get("/ledger/entries", params={"type": "study.access"}).json()["entries"]):
            assert time.monotonic() < until, fresh_node.printed()
            time.sleep(0.1)
        (entry,) = found
        assert (entry["study"], entry["purpose"]) == (sent.study, "HRESCH")
        assert (entry["actor"]["name"], entry["actor"]["how"]) == ("partner", "gateway")
        told = client.get(f"/ledger/entries/{entry['id']}").json()["details"]
    assert [item for detail in told for item in detail["body"].get("items", [])] == [
        ["sealed block", "", "", len(blocks((tmp_path / "study.car").read_bytes()))]
    ]
