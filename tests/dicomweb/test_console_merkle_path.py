"""The drawn path is the one that the proof proves, in trees of every shape."""

from __future__ import annotations

import pytest
from ledger_in_memory import Ledger, some

from dicomweb.console.merkle_path import climb, draw
from ledger import merkle


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 13])
def test_every_leaf_climbs_to_the_signed_root(size: int) -> None:
    ledger = Ledger()
    for _ in range(size):
        ledger.add("study.query")
    for index, leaf in enumerate(ledger.log.leaves):
        path = climb(leaf, ledger.log.prove(leaf))
        assert path is not None
        assert (path.index, path.size, path.root, path.holds) == (index, size, merkle.root(ledger.log.leaves), True)
        assert len(path.steps) == len(merkle.inclusion_proof(index, size, merkle.node_reader(ledger.log.leaves)))
        assert draw(path).count("<rect") == 2 * len(path.steps) + 1


def test_a_sibling_stands_on_its_side() -> None:
    log = some().log
    path = climb(log.leaves[2], log.prove(log.leaves[2]))
    assert path is not None
    assert [step.sibling_left for step in path.steps] == [False, True, False]
    assert path.steps[0].sibling == log.leaves[3]


def test_another_leaf_does_not_lead_to_the_signed_root_and_the_picture_says_so() -> None:
    log = some().log
    path = climb(log.leaves[1], log.prove(log.leaves[2]))
    assert path is not None
    assert not path.holds
    assert "another root" in draw(path)
    assert "broken" in draw(path)


@pytest.mark.parametrize("text", ["", "c2sp.org/tlog-proof@v1\nindex x\n\nnote", "index 1\n!!\n\n" + "a\n1\nb\n"])
def test_what_is_no_proof_has_no_path(text: str) -> None:
    assert climb(bytes(32), text) is None
