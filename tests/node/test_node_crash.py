"""kill -9 at each numbered step of the way in: nothing acknowledged is lost, nothing half stored is seen."""

import shutil
from pathlib import Path

import httpx
import pytest

from tests.node.instances import FOLDER, HIGHDICOM, Sent, all_there, retrieve, sendable, stow
from tests.node.running_node import RunningNode, acknowledged

STEPS = (
    "store.0",
    "store.1",
    "store.2",
    "store.3",
    "store.4",
    "store.5",
    "store.6",
    "store.7",
    "close_batch.8",
    "close_batch.8b",
    "close_batch.9",
)
SERIES = FOLDER / "77654033" / "CT2"


def whole_after_restart(node: RunningNode, acknowledged_instances: list[Sent], all_sent: list[Sent]) -> None:
    """Start again without the crash: fsck and the ledger hold, what was acknowledged is there, the rest can be sent."""
    node.start()
    assert node.answer("fsck")["findings"] == []
    assert node.answer("ledger", "verify")["findings"] == []
    with node.http("admin") as client:
        all_there(client, acknowledged_instances)
        for sent in all_sent:
            response = client.get(f"/dicom-web{sent.path}")
            assert response.status_code in (200, 404), response.text
            if response.status_code == 200:
                assert retrieve(client, sent) == sent.data_set
        assert stow(client, [sent.file.read_bytes() for sent in all_sent]).status_code == 200
        all_there(client, all_sent)
    assert node.answer("fsck")["findings"] == []


@pytest.mark.parametrize("step", STEPS)
def test_a_dicom_process_killed_at_a_step_loses_nothing_acknowledged(
    fresh_node: RunningNode, tmp_path: Path, step: str
) -> None:
    folder = tmp_path / "send"
    shutil.copytree(SERIES, folder)
    instances = sendable([folder])
    fresh_node.start(CAIRN_CRASH_AT=f"{step}:3" if step.startswith("store") else step)
    said = fresh_node.storescu("--scan-directories", folder).stdout
    done = {str(path) for path in acknowledged(said)}
    fresh_node.kill()
    if step in ("store.0", "store.1", "store.2", "store.3", "store.4", "store.5", "store.6", "store.7"):
        assert len(done) < len(instances), "the crash did not happen"
    whole_after_restart(fresh_node, [sent for sent in instances if str(sent.file) in done], instances)


@pytest.mark.parametrize("step", STEPS)
def test_a_web_process_killed_at_a_step_loses_nothing_acknowledged(fresh_node: RunningNode, step: str) -> None:
    instances = sendable([HIGHDICOM])[:6]
    fresh_node.start()
    token = fresh_node.token("clinician")
    assert fresh_node.stop() == 0
    fresh_node.start(CAIRN_CRASH_AT=f"{step}:3")
    done: list[Sent] = []
    with httpx.Client(base_url=fresh_node.url, headers={"authorization": f"Bearer {token}"}, timeout=30.0) as client:
        for sent in instances:
            try:
                if stow(client, [sent.file.read_bytes()]).status_code == 200:
                    done.append(sent)
            except httpx.TransportError:
                break
    fresh_node.kill()
    assert len(done) < len(instances), "the crash did not happen"
    whole_after_restart(fresh_node, done, instances)


def test_the_node_goes_on_after_one_of_its_processes_was_killed(fresh_node: RunningNode, tmp_path: Path) -> None:
    folder = tmp_path / "send"
    shutil.copytree(SERIES, folder)
    fresh_node.start(CAIRN_CRASH_AT="store.5:2")
    first = fresh_node.storescu("--scan-directories", folder)
    assert first.returncode != 0
    fresh_node.wait_ready()
    assert len(acknowledged(fresh_node.storescu(SERIES / "17106").stdout)) == 1
    assert fresh_node.stop() == 0


def test_a_power_cut_under_load_keeps_every_acknowledged_instance(fresh_node: RunningNode) -> None:
    instances = sendable([FOLDER])
    fresh_node.start()
    done: list[Sent] = []
    with fresh_node.http("clinician") as client:
        for sent in instances[:40]:
            assert stow(client, [sent.file.read_bytes()]).status_code == 200
            done.append(sent)
        fresh_node.kill()
    whole_after_restart(fresh_node, done, instances[:50])
