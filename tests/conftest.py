"""Fixtures that start a real node: `node` shared by the tests of a file, `fresh_node` for tests that break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.running_node import RunningNode


def ended_well(node: RunningNode) -> None:
    """Stop a node that still runs: its exit code is 0 and it printed no stack trace."""
    if node.runs:
        assert node.stop() == 0, node.printed()[-3000:]
    assert "Traceback" not in node.printed(), node.printed()[-6000:]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A running node that the tests of one file share; it must end cleanly."""
    running = RunningNode(tmp_path_factory.mktemp("cairn") / "home")
    try:
        running.start()
        yield running
        ended_well(running)
    finally:
        running.kill()


@pytest.fixture
def fresh_node(tmp_path: Path) -> Iterator[RunningNode]:
    """A node for one test alone, not started; whatever the test leaves running must end cleanly."""
    own = RunningNode(tmp_path / "home")
    try:
        yield own
        ended_well(own)
    finally:
        own.kill()
