"""A whole node whose index is in PostgreSQL: killed, its database killed; what was acknowledged is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ended_well
from tests.node.instances import FOLDER, Sent, all_there, retrieve, sendable
from tests.node.running_node import RunningNode, acknowledged
from tests.postgresql_server import PostgresqlServer

SERIES = FOLDER / "77654033"
MANY = [SERIES, FOLDER / "TINY_ALPHA", FOLDER / "98892003"]


@pytest.fixture
def kept(fresh_postgresql: PostgresqlServer, tmp_path: Path) -> Iterator[RunningNode]:
    """A node that is not started yet, with its index in a PostgreSQL that is to be broken."""
    node = RunningNode(tmp_path / "home", CAIRN_INDEX__URL=fresh_postgresql.fresh())
    try:
        yield node
        ended_well(node)
    finally:
        node.kill()


def nothing_wrong(node: RunningNode) -> None:
    assert node.answer("fsck")["findings"] == []
    assert node.answer("ledger", "verify")["findings"] == []


def send(node: RunningNode, instances: list[Sent]) -> set[str]:
    """The files that a modality was told are stored."""
    said = node.storescu("--no-halt", *(sent.file for sent in instances)).stdout
    return {str(path) for path in acknowledged(said)}


def test_a_node_is_killed_and_then_its_database_while_a_modality_sends(
    kept: RunningNode, fresh_postgresql: PostgresqlServer
) -> None:
    instances = sendable(MANY)
    kept.start()
    done: set[str] = set()

    def sending() -> None:
        done.update(send(kept, instances))

    for broken in (kept, fresh_postgresql):
        before = fresh_postgresql.ask(kept.settings["CAIRN_INDEX__URL"], "SELECT count(*) FROM cairn.instance")
        thread = threading.Thread(target=sending)
        thread.start()
        while fresh_postgresql.ask(kept.settings["CAIRN_INDEX__URL"], "SELECT count(*) FROM cairn.record") == before:
            time.sleep(0.005)
        broken.kill()
        thread.join()
        assert len(done) < len(instances)
        broken.start()
    kept.wait_ready()
    with kept.http("admin") as client:
        all_there(client, [sent for sent in instances if str(sent.file) in done])
        assert send(kept, instances) == {str(sent.file) for sent in instances}
        all_there(client, instances)
        found = client.get("/dicom-web/studies").json()
        assert {study["0020000D"]["Value"][0] for study in found} == {sent.study for sent in instances}
    nothing_wrong(kept)
    assert kept.stop() == 0
    nothing_wrong(kept)


def test_while_its_database_is_gone_a_node_says_so_and_takes_nothing(
    kept: RunningNode, fresh_postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    instances = sendable([SERIES])
    kept.start()
    with kept.http("admin") as client:
        assert send(kept, instances[:1])
        assert retrieve(client, instances[0]) == instances[0].data_set
        fresh_postgresql.kill()
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["the index database cannot be reached"])
        assert client.get("/livez").status_code == 200
        assert client.get("/dicom-web/studies").status_code == 503
        refused = kept.storescu(instances[1].file)
        assert "Refused: OutOfResources" in refused.stdout  # A7xx (PS3.4 Table B.2-1)
        fresh_postgresql.start()
        kept.wait_ready()
        assert send(kept, instances) == {str(sent.file) for sent in instances}
        all_there(client, instances)
    assert "postgresql://" not in kept.printed()
    kept.cairn("backup", str(tmp_path / "backup"))
    assert kept.stop() == 0
    nothing_wrong(kept)
    moved = RunningNode(tmp_path / "moved", CAIRN_INDEX__URL=fresh_postgresql.fresh())
    moved.cairn("restore", str(tmp_path / "backup"))
    assert moved.answer("study", "show", instances[0].study)["study"] == instances[0].study
    assert moved.answer("rebuild-index")["instances"] == len(instances)
    assert moved.answer("fsck")["findings"] == []


def test_a_node_whose_database_cannot_be_reached_ends_and_tells_no_password(tmp_path: Path) -> None:
    node = RunningNode(tmp_path / "home", CAIRN_INDEX__URL="postgresql://cairn:sesame@127.0.0.1:1/cairn")
    ended = node.cairn("serve", code=1)
    assert "the index database cannot be reached" in ended.stderr
    shown = node.cairn("config", "show")
    assert "index.url = (set)" in shown.stdout
    assert "sesame" not in ended.stdout + ended.stderr + shown.stdout + shown.stderr
