"""The ledger benchmark: verdicts point the right way, every step runs, page and picture say what it gave."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.benchmarks import ledger_steps as steps
from tests.benchmarks.ledger_page import Figure, page, table
from tests.benchmarks.ledger_picture import draw
from tests.benchmarks.ledger_speed import measure


def test_a_figure_is_reached_within_its_bounds_and_not_beyond() -> None:
    assert Figure("a", "ms", 3, "raw", 2, at_most=1.5).reached
    assert not Figure("a", "ms", 3.1, "raw", 2, at_most=1.5).reached
    assert Figure("a", "entries/s", 40, "raw", 100, at_least=0.4).reached
    assert not Figure("a", "entries/s", 39, "raw", 100, at_least=0.4).reached
    assert not Figure("a", "ms", 2.1, "raw", 2, limit=2).reached
    assert not Figure("a", "entries/s", 99, "raw", 2, floor=100).reached
    assert (
        Figure("a", "ms", 1, "raw", 2, at_most=1.5, limit=5).target == "at most 1.5 times the raw step and at most 5 ms"
    )


def test_every_step_is_measured_on_a_small_log(tmp_path: Path) -> None:
    figures, costs = measure(tmp_path, 300, 1)
    assert len(figures) == 11 and all(figure.ours > 0 < figure.raw for figure in figures)
    assert [cost.size for cost in costs] == [1, 4, 16, 64, 256, 1024, costs[-1].size]
    assert costs[-1].characters > costs[0].characters
    lines = table(figures)
    text = page(figures, costs, ["a machine"], 300)
    assert len(lines) == len(figures) + 2 and all(line in text for line in lines)
    picture = ElementTree.fromstring(draw(costs))
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}polyline")) == 3


def test_a_proof_grows_by_one_hash_with_each_doubling(tmp_path: Path) -> None:
    log = steps.Log(tmp_path)
    log.seal(300)
    log.close()
    sizes = {cost.size: cost.characters for cost in steps.proof_costs(log, 1)}
    # The checkpoint's size and the index have more digits, too.
    assert 8 * 45 <= sizes[256] - sizes[1] <= 8 * 45 + 8
