"""The real recording behind the real application: without it nothing is served, with it each frame is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from node_in_memory import Client

from bridge.config import Content, Settings
from bridge.crypto.keystore import open_keystore
from bridge.errors import StorageFull
from bridge.model import Role
from bridge.node import Node
from dicomweb.app import create_app
from tests.bridge.services.conftest import CHEAP, instance, part10, recorded
from tests.bridge.services.test_store import store

FRAMES = 10


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Node]:
    settings = Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))
    node = Node(settings, open_keystore(settings.home, cost=CHEAP), "web-0")
    yield node
    if not node.closed:
        node.close()


@pytest.fixture
def viewer(real: Node, portal: BlockingPortal) -> Iterator[Client]:
    client = Client(portal, create_app(real))
    client.headers = {"authorization": f"Bearer {real.tokens.create(Role.VIEWER, 'Dr Who').secret}", "accept": "*/*"}
    yield client
    portal.call(client.http.aclose)


def paths(node: Node) -> dict[str, str]:
    key = store(node, part10(instance(frames=FRAMES))).key
    one = f"/dicom-web/studies/{key.study}/series/{key.series}/instances/{key.sop}"
    return {
        "study": f"/dicom-web/studies/{key.study}",
        "instance": one,
        "frame": f"{one}/frames/1",
        "metadata": f"{one}/metadata",
        "search": "/dicom-web/studies",
    }


def broken(batch: Any, records: Any) -> Future[int]:
    raise StorageFull("the disk is full")


@pytest.mark.parametrize("what", ["study", "instance", "frame", "metadata"])
def test_what_cannot_be_recorded_is_503_and_not_a_byte_of_it_is_served(
    real: Node, viewer: Client, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = paths(real)[what]
    with monkeypatch.context() as patched:
        patched.setattr(real.index, "append", broken)
        response = viewer.get(path)
        assert response.status_code == 503 and response.headers["content-type"] == "application/problem+json"
        assert response.json()["type"].endswith("access-not-recordable") and "retry-after" in response.headers
    assert viewer.get(path).status_code == 200
    real.access.flush()
    assert [body["opens"] for body in recorded(real, "study.access") if "opens" in body] == [True]


def test_a_running_session_and_searches_stop_when_details_cannot_be_recorded(
    real: Node, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paths(real)
    assert viewer.get(path["frame"]).status_code == 200
    real.access.flush()
    with monkeypatch.context() as patched:
        patched.setattr(real.index, "append", broken)
        assert viewer.get(path["instance"]).status_code == 200  # within a second of the fault
        real.access.flush()
        for what in ("study", "instance", "frame", "metadata", "search"):
            assert viewer.get(path[what]).status_code == 503, what
    real.access.flush()
    assert viewer.get(path["instance"]).status_code == 200
    real.access.close_all()
    items = [item for body in recorded(real, "study.access") for item in body.get("items", [])]
    assert sum(item[-1] for item in items if item[0] == "instance") == 2


def test_requests_of_many_frames_are_one_entry_that_names_each(real: Node, viewer: Client) -> None:
    path = paths(real)["frame"].rsplit("/", 1)[0]
    for number in range(30):
        wanted = ",".join(str(frame % FRAMES + 1) for frame in range(number, number + 5))
        assert viewer.get(f"{path}/{wanted}").status_code == 200
    before = real.index.counts()["closed_batches"]
    real.access.close_all()
    assert real.index.counts()["closed_batches"] == before + 1
    items = [item for body in recorded(real, "study.access") for item in body.get("items", [])]
    seen = {str(frame): 0 for frame in range(1, FRAMES + 1)}
    for what, _, frame, count in items:
        assert what == "frame"
        seen[frame] += count
    assert set(seen.values()) == {15}
