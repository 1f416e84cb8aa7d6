"""The gateway as IPFS sees it: boxo, the library of Kubo and of the public gateways, reads from it and verifies.

A proxy made of boxo (`tests/tools/kubo/gateway-client`) fetches CARs (dups=y, dag-scope, entity-bytes) or raw
blocks, checks each, and serves the sealed file made whole again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest

from bridge.content import cid as cids
from bridge.content import unixfs
from bridge.content.car import CarReader
from tests.daemon_process import DaemonProcess
from tests.kubo_daemon import IPFS
from tests.node.running_node import RunningNode

CLIENT = IPFS.with_name("gateway-client")
ABSENT = "bafkr4igexdlpgcpgc32tkaklpsd2ex4izfos5i7apwyontr2fxdimqhaia"
JSON = {"accept": "application/dicom+json"}


class Study(NamedTuple):
    """A study of the node: its UID and root, its blocks in the order of its CAR, the CAR, a token of it."""

    uid: str
    root: str
    blocks: dict[bytes, bytes]
    car: bytes
    token: str

    def file(self) -> tuple[str, bytes]:
        """A sealed file of several blocks: its CID and bytes."""
        top = next(cid for cid in self.blocks if cids.parse(cid).codec == cids.DAG_PB)
        size = unixfs.size_of(top, self.blocks.__getitem__)
        leaves = unixfs.leaves(top, self.blocks.__getitem__, size)
        return cids.to_text(top), b"".join(self.blocks[leaf.cid] for leaf in leaves)


@pytest.fixture(scope="module")
def study(node: RunningNode, tmp_path_factory: pytest.TempPathFactory) -> Study:
    sender = [sys.executable, "-m", "bridge.sample.send", "127.0.0.1", str(node.dimse_port), "CAIRN"]
    subprocess.run(sender, check=True, capture_output=True, timeout=120)
    with node.http() as client:
        (found,) = client.get("/dicom-web/studies", headers=JSON).json()
    uid = found["0020000D"]["Value"][0]
    file = tmp_path_factory.mktemp("exported") / "study.car"
    root = node.answer("study", "export", uid, "--out", str(file))["root"]
    token = node.answer("token", "create", "--role", "viewer", "--study", uid)["token"]
    with file.open("rb") as opened:
        blocks = {block.cid: bytes(block.data) for block in CarReader(opened.read)}
    return Study(uid, root, blocks, file.read_bytes(), token)


@pytest.fixture(scope="module", params=["car", "raw"])
def boxo(
    request: pytest.FixtureRequest, node: RunningNode, study: Study, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of the proxy, which asks the node for CARs or for raw blocks."""
    proxy = DaemonProcess(tmp_path_factory.mktemp("proxy") / "log")
    proxy.spawn([CLIENT, "-from", node.url, "-token", study.token, "-by", request.param], dict(os.environ))
    try:
        proxy.wait_until(lambda: "serving on" in proxy.printed(), "serving")
        serving = re.search(r"serving on (\S+)", proxy.printed())
        assert serving is not None
        with httpx.Client(base_url=f"http://{serving[1]}", timeout=60.0, trust_env=False) as client:
            yield client
    finally:
        proxy.kill()


def test_a_sealed_file_is_made_whole_again(boxo: httpx.Client, study: Study) -> None:
    name, whole = study.file()
    assert len(whole) > 2 * unixfs.LEAF_SIZE
    assert boxo.get(f"/ipfs/{name}").content == whole


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1048575, 1048576), (2000000, 2000099), (3000000, 99999999)])
def test_a_range_of_it_is_fetched_by_entity_bytes(boxo: httpx.Client, study: Study, first: int, last: int) -> None:
    name, whole = study.file()
    got = boxo.get(f"/ipfs/{name}", headers={"range": f"bytes={first}-{last}"})
    assert (got.status_code, got.content) == (206, whole[first : last + 1])


def test_the_whole_study_comes_through_as_the_same_car(boxo: httpx.Client, study: Study) -> None:
    assert boxo.get(f"/ipfs/{study.root}?format=car").content == study.car


def test_a_path_from_the_root_leads_to_a_sealed_object(boxo: httpx.Client, study: Study) -> None:
    got = boxo.get(f"/ipfs/{study.root}/p/0/i/0/d")
    assert got.status_code == 200
    assert any(got.content.startswith(data) for data in study.blocks.values() if len(data) > 1000)


def test_what_is_not_granted_is_404_at_the_gateway_and_an_error_behind_it(boxo: httpx.Client) -> None:
    got = boxo.get(f"/ipfs/{ABSENT}?format=raw")
    assert got.status_code >= 500
    assert "404" in got.text


def test_single_blocks_come_through(boxo: httpx.Client, study: Study) -> None:
    for cid in list(study.blocks)[:5]:
        assert boxo.get(f"/ipfs/{cids.to_text(cid)}?format=raw").content == study.blocks[cid]
