"""What a backup holds is enough for another machine; what the packs and keys hold is enough for another index."""

from pathlib import Path

from tests.node.instances import HIGHDICOM, all_there, sendable, stow
from tests.node.running_node import RunningNode

INSTANCES = sendable([HIGHDICOM])


def entries(node: RunningNode) -> list[str]:
    return [entry["id"] for entry in node.answer("ledger", "entries")["entries"]]


def test_a_backup_of_a_running_node_becomes_the_same_archive_elsewhere(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.start()
    fresh_node.answer("import", str(HIGHDICOM))
    token = fresh_node.token("viewer")
    fresh_node.answer("backup", str(tmp_path / "backup"))
    known = entries(fresh_node)
    assert fresh_node.stop() == 0
    other = RunningNode(tmp_path / "other")
    try:
        other.answer("restore", str(tmp_path / "backup"))
        assert other.answer("fsck")["findings"] == []
        assert other.answer("ledger", "verify")["findings"] == []
        kept = entries(other)
        both = min(len(kept), len(known))  # the backup's own entry may have been made by neither yet, or by one
        assert kept[:both] == known[:both]
        other.start()
        with other.http(None) as client:
            client.headers["authorization"] = f"Bearer {token}"
            all_there(client, INSTANCES)
        assert other.answer("fsck")["findings"] == []
        assert other.answer("ledger", "verify")["findings"] == []
        assert entries(other)[: len(known)] == known
        with other.http("admin") as client:
            assert stow(client, [INSTANCES[0].file.read_bytes()]).status_code == 200
        assert other.stop() == 0, other.printed()
    finally:
        other.kill()


def test_a_second_backup_into_the_same_folder_brings_it_up_to_date(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.start()
    fresh_node.answer("import", str(INSTANCES[0].file))
    fresh_node.answer("backup", str(tmp_path / "backup"))
    fresh_node.answer("import", str(HIGHDICOM))
    fresh_node.answer("backup", str(tmp_path / "backup"))
    other = RunningNode(tmp_path / "other")
    try:
        other.answer("restore", str(tmp_path / "backup"))
        other.start()
        with other.http("viewer") as client:
            all_there(client, INSTANCES)
        assert other.stop() == 0, other.printed()
    finally:
        other.kill()


def test_restore_refuses_a_home_that_holds_something(fresh_node: RunningNode, tmp_path: Path) -> None:
    fresh_node.answer("import", str(INSTANCES[0].file))
    fresh_node.answer("backup", str(tmp_path / "backup"))
    refused = fresh_node.cairn("restore", str(tmp_path / "backup"), code=2)
    assert "not empty" in refused.stderr
    assert fresh_node.answer("fsck")["findings"] == []


def test_an_index_rebuilt_from_packs_and_keys_finds_and_serves_everything(fresh_node: RunningNode) -> None:
    fresh_node.start()
    outcomes = fresh_node.answer("import", str(HIGHDICOM))["outcomes"]
    with fresh_node.http("viewer") as client:
        before = client.get("/dicom-web/instances", headers={"accept": "application/dicom+json"}).json()
    assert fresh_node.stop() == 0
    assert fresh_node.answer("rebuild-index")["instances"] == outcomes["new"] + outcomes["version"]
    rebuilt = RunningNode(fresh_node.home)
    try:
        rebuilt.start()
        with rebuilt.http("viewer") as client:
            all_there(client, INSTANCES)
            after = client.get("/dicom-web/instances", headers={"accept": "application/dicom+json"}).json()
        assert {item["00080018"]["Value"][0] for item in after} == {item["00080018"]["Value"][0] for item in before}
        assert rebuilt.answer("fsck")["findings"] == []
        assert rebuilt.stop() == 0, rebuilt.printed()
    finally:
        rebuilt.kill()


def test_rebuilding_is_refused_while_the_node_runs(fresh_node: RunningNode) -> None:
    fresh_node.start()
    assert fresh_node.cairn("rebuild-index", code=None).returncode == 1
    assert fresh_node.is_ready()
