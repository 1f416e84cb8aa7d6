"""The benchmark of the content engines: every step runs against real Kubos, and the page says what it gave."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import content_steps as steps
from tests.benchmarks.content_page import page
from tests.benchmarks.content_speed import Plan, measure
from tests.benchmarks.ledger_page import Figure, table

TINY = Plan(studies=2, instances=3, rounds=1, slices=3, frames=5, times=5, large=5 * 10**7)


def test_a_figure_without_a_target_has_no_verdict() -> None:
    figure = Figure("a", "MiB/s", 1, "raw", 2)
    assert (figure.target, figure.verdict) == ("", "")
    assert figure.line().rstrip().endswith("(ratio 0.50)")


def test_every_step_is_measured_on_small_studies(tmp_path: Path) -> None:
    figures = list(measure(tmp_path, TINY))
    assert len(figures) == 11
    assert all(figure.ours > 0 < figure.raw for figure in figures)
    (fetched,) = [figure for figure in figures if figure.unit == "blocks at most"]
    assert fetched.reached
    text = page(figures, ["a machine"], "Kubo")
    assert all(line in text for line in table(figures))
    assert [path.name for path in tmp_path.iterdir()] == ["kubo.kubo.log"]


def test_memory_does_not_grow_with_the_study(tmp_path: Path) -> None:
    for figure in steps.memory(tmp_path, 2 * 10**8):
        assert figure.ours < figure.raw + 40, figure.line()  # MiB, of 180 MB more
