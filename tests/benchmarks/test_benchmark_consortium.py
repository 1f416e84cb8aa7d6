"""The consortium benchmark: the steps that need no four hospitals run, and the page says what they gave."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import consortium_steps as steps
from tests.benchmarks.consortium_page import Measured, page
from tests.benchmarks.ledger_page import Figure


def test_a_snapshot_is_taken_in_and_its_rate_told(tmp_path: Path) -> None:
    figure = steps.state_sync(tmp_path, 300)
    assert figure.ours > 0 < figure.raw


def test_the_state_of_many_members_is_measured() -> None:
    size, spent_ms = steps.large_state(20)
    assert size > 20 * 200 and spent_ms > 0


def test_the_page_tells_every_figure_and_what_a_thousand_hospitals_come_to() -> None:
    figures = [Figure(name, "ms", 2, "raw", 1) for name in ("one", "batches", "sync")]
    measured = Measured(figures, "no blocks", 800, steps.Growth(800, 800_000, 400_000), 5, (1_500_000, 3.0))
    text = page(measured, ["a processor, 2 cores, 8 GiB memory", "CometBFT 0.38.25"])
    assert all(name in text for name in ("one", "batches", "sync", "no blocks", "0.38.25"))
    assert "5,000" in text and "999,000" in text
    assert "{" not in text
