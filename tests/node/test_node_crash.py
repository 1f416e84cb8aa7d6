"""kill -9 at each numbered step of the way in: nothing acknowledged is lost, nothing half stored is seen."""

import os
import random
import shutil
import signal
import subprocess
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from bridge.serve import MOST_DOORS, processors
from tests.node.instances import FOLDER, HIGHDICOM, Sent, all_there, retrieve, sendable, stow
from tests.node.running_node import DCMTK, RunningNode, acknowledged, storescu

BEFORE_THE_ANSWER = [f"store.{number}" for number in range(8)]
WHEN_CLOSING = ["close_batch.8", "close_batch.8b", "close_batch.9"]
SERIES = FOLDER / "77654033" / "CT2"
SEED = 20260117


def start_to_crash(node: RunningNode, step: str) -> None:
    """Crash at the third instance; the first association (0); the second batch, as each start is a batch by itself.

    The first start of all makes more, for its keys and the login link that it prints, and so does one whose settings
    differ from those of the last. One process takes all associations, since each counts for itself.
    """
    count = ""
    if step in WHEN_CLOSING:
        assert node.start(CAIRN_DIMSE__PROCESSES="1").stop() == 0, node.printed()
        count = ":2"
    elif step != "store.0":
        count = ":3"
    node.start(CAIRN_CRASH_AT=step + count, CAIRN_DIMSE__PROCESSES="1")


def whole_after_restart(node: RunningNode, acknowledged_instances: list[Sent], all_sent: list[Sent]) -> None:
    """Start again without the crash: fsck and the ledger hold, what was acknowledged is there, the rest can be sent."""
    node.start()
    nothing_wrong(node)
    with node.http("admin") as client:
        all_there(client, acknowledged_instances)
        for sent in all_sent:
            response = client.get(f"/dicom-web{sent.path}")
            assert response.status_code in (200, 404), response.text
            if response.status_code == 200:
                assert retrieve(client, sent) == sent.data_set
        assert stow(client, [sent.file.read_bytes() for sent in all_sent]).status_code == 200
        all_there(client, all_sent)
    assert node.stop() == 0, node.printed()
    nothing_wrong(node)


def nothing_wrong(node: RunningNode) -> None:
    assert node.answer("fsck")["findings"] == []
    assert node.answer("ledger", "verify")["findings"] == []


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER + WHEN_CLOSING)
def test_a_dicom_process_killed_at_a_step_loses_nothing_acknowledged(
    fresh_node: RunningNode, tmp_path: Path, step: str
) -> None:
    folder = tmp_path / "send"
    shutil.copytree(SERIES, folder)
    instances = sendable([folder])
    start_to_crash(fresh_node, step)
    said = fresh_node.storescu("--scan-directories", folder).stdout
    if step in WHEN_CLOSING:
        said += fresh_node.storescu("--scan-directories", folder).stdout
    fresh_node.wait_printed('"worker": "dimse-0", "status": 9')
    fresh_node.kill()
    done = {str(path) for path in acknowledged(said)}
    assert len(done) < len(instances) or step in WHEN_CLOSING
    whole_after_restart(fresh_node, [sent for sent in instances if str(sent.file) in done], instances)


@pytest.mark.parametrize("step", BEFORE_THE_ANSWER + WHEN_CLOSING)
def test_a_web_process_killed_at_a_step_loses_nothing_acknowledged(fresh_node: RunningNode, step: str) -> None:
    instances = sendable([HIGHDICOM])[:4]
    token = fresh_node.token("clinician")
    start_to_crash(fresh_node, step)
    done: list[Sent] = []
    with httpx.Client(base_url=fresh_node.url, headers={"authorization": f"Bearer {token}"}, timeout=30.0) as client:
        for sent in instances:
            try:
                if stow(client, [sent.file.read_bytes()]).status_code == 200:
                    done.append(sent)
            except httpx.TransportError:
                break
    fresh_node.wait_printed('"worker": "web-0", "status": 9')
    fresh_node.kill()
    assert len(done) < len(instances) or step in WHEN_CLOSING
    whole_after_restart(fresh_node, done, instances)


def test_the_node_goes_on_after_each_of_its_processes_was_killed(fresh_node: RunningNode) -> None:
    fresh_node.start()
    files = cycle(sorted(path for path in SERIES.iterdir() if path.is_file()))
    doors = [f"dimse-{number}" for number in range(min(processors(), MOST_DOORS))]
    for worker, pid in zip((*doors, "web-0", "ledger-0", "content-0"), sorted(fresh_node.processes()[1:]), strict=True):
        os.kill(pid, signal.SIGKILL)
        fresh_node.wait_printed(f'"worker": "{worker}", "status": 9')
        fresh_node.wait_ready()
        assert len(acknowledged(fresh_node.storescu(next(files)).stdout)) == 1
    assert fresh_node.stop() == 0, fresh_node.printed()
    nothing_wrong(fresh_node)


def test_a_power_cut_while_a_client_stores_keeps_every_acknowledged_instance(fresh_node: RunningNode) -> None:
    instances = sendable([FOLDER])
    fresh_node.start()
    done: list[Sent] = []
    with fresh_node.http("clinician") as client:
        for sent in instances[:40]:
            assert stow(client, [sent.file.read_bytes()]).status_code == 200
            done.append(sent)
        fresh_node.kill()
    whole_after_restart(fresh_node, done, instances[:50])


def test_power_cuts_at_random_moments_of_an_association_keep_every_acknowledged_instance(
    fresh_node: RunningNode, storescp: tuple[int, Path]
) -> None:
    chance = random.Random(SEED)
    port, received = storescp
    assert storescu(port, "ANY", *[sent.file for sent in sendable([FOLDER])]).returncode == 0
    instances = {str(sent.file): sent for sent in sendable([received])}  # encoded as DCMTK sends them
    done: set[str] = set()
    for _ in range(4):
        fresh_node.start()
        done |= killed_while_sending(fresh_node, list(instances), at=chance.randrange(2, 60))
        assert fresh_node.start().stop() == 0, fresh_node.printed()
        nothing_wrong(fresh_node)
    assert done
    whole_after_restart(fresh_node, [instances[path] for path in sorted(done)], list(instances.values()))


def killed_while_sending(node: RunningNode, files: list[str], at: int) -> set[str]:
    """Send the files and kill the node as soon as the sender begins with file number `at`; what was acknowledged."""
    command = [DCMTK / "storescu", "-v", "-aec", "CAIRN", "127.0.0.1", str(node.dimse_port), *files]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sender:
        assert sender.stdout is not None
        for line in sender.stdout:
            said.append(line)
            if line.startswith("I: Sending file: "):
                at -= 1
                if not at:
                    node.kill()
    assert not node.runs, "all was sent before the power was cut"
    return {str(path) for path in acknowledged("".join(said))}
