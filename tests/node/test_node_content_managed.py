"""A Kubo that the node runs itself: it is started, watched, started again, and ends with the node."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.kubo_daemon import IPFS
from tests.node.instances import Sent, all_there, sendable
from tests.node.kubo_archive import OTHERS, SERIES, managed_kubo, until
from tests.node.running_node import RunningNode, acknowledged


@pytest.fixture
def managing(fresh_node: RunningNode) -> Iterator[RunningNode]:
    """A running node with a Kubo of its own that serves."""
    fresh_node.settings |= managed_kubo()
    fresh_node.start()
    fresh_node.wait_printed("Kubo serves")
    yield fresh_node


def serves(node: RunningNode) -> bool:
    return node.answer("content", "status")["answers"] == [] and kubo_of(node) is not None


def kubo_of(node: RunningNode) -> int | None:
    """The process id of the node's Kubo."""
    for pid in node.processes():
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(str(IPFS).encode()):
            return pid
    return None


def content_of(node: RunningNode) -> int:
    """The process id of the content process, which is Kubo's parent."""
    kubo = kubo_of(node)
    assert kubo is not None
    parent = psutil.Process(kubo).parent()
    assert parent is not None
    return parent.pid


def store(node: RunningNode, instances: list[Sent]) -> None:
    said = node.storescu(*[sent.file for sent in instances]).stdout
    assert len(acknowledged(said)) == len(instances), said


def all_kept(node: RunningNode, instances: list[Sent]) -> None:
    """Everything is pinned, read back, and comes back."""
    until(lambda: serves(node), node.printed)

    def kept() -> bool:
        studies = node.answer("content", "status")["studies"]
        return bool(studies["waiting"] == 0 < studies["pinned"] == studies["verified"])

    until(kept, node.printed)
    with node.http("viewer") as client:
        all_there(client, instances)


def test_what_is_stored_is_in_the_nodes_own_kubo_and_that_ends_with_the_node(managing: RunningNode) -> None:
    instances = sendable([SERIES])
    store(managing, instances)
    all_kept(managing, instances)
    kubo = kubo_of(managing)
    assert kubo is not None
    assert managing.stop() == 0, managing.printed()
    assert not psutil.pid_exists(kubo)
    assert managing.answer("content", "repair")["read_back"] == 1, "the command runs it for as long as it needs it"
    managing.start()
    all_kept(managing, instances)


def test_a_kubo_that_is_killed_is_started_again(managing: RunningNode) -> None:
    killed = kubo_of(managing)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    instances = sendable([SERIES])
    store(managing, instances)
    all_kept(managing, instances)
    assert kubo_of(managing) not in (None, killed)


def test_a_kubo_that_answers_nothing_is_started_again(managing: RunningNode) -> None:
    paused = kubo_of(managing)
    assert paused is not None
    os.kill(paused, signal.SIGSTOP)
    instances = sendable([SERIES, OTHERS])
    store(managing, instances)
    with managing.http("viewer") as client:
        all_there(client, instances)
    all_kept(managing, instances)
    assert kubo_of(managing) not in (None, paused)


def test_a_content_process_that_is_killed_takes_its_kubo_along_and_both_are_started_again(
    managing: RunningNode,
) -> None:
    kubo = kubo_of(managing)
    assert kubo is not None
    os.kill(content_of(managing), signal.SIGKILL)
    until(lambda: not psutil.pid_exists(kubo))
    instances = sendable([SERIES])
    store(managing, instances)
    all_kept(managing, instances)


def test_power_cut_and_start_again(managing: RunningNode) -> None:
    instances = sendable([SERIES])
    store(managing, instances)
    managing.kill()
    managing.start()
    all_kept(managing, instances)
    assert managing.answer("fsck")["findings"] == []


def test_of_an_erased_study_kubo_keeps_no_root(managing: RunningNode) -> None:
    erased, others = sendable([SERIES]), sendable([OTHERS])
    store(managing, erased + others)
    all_kept(managing, erased + others)

    def kept_by_kubo() -> set[str]:
        answer = httpx.post(f"{managing.settings['CAIRN_CONTENT__KUBO__API']}/api/v0/pin/ls?type=recursive", timeout=10)
        return set(answer.json()["Keys"])

    before = kept_by_kubo()
    assert managing.answer("study", "erase", erased[0].study, "--yes")["released"] is True
    assert len(before - kept_by_kubo()) == 1
    all_kept(managing, others)
    assert managing.stop() == 0, managing.printed()
    assert managing.answer("fsck")["findings"] == []
    assert managing.answer("ledger", "verify")["findings"] == []
