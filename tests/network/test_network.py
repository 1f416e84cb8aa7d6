"""Consortia of real nodes with real CometBFTs, and what is done to them: each description beside this is a test."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.consortium import Consortium, consortium

DESCRIPTIONS = sorted(Path(__file__).parent.glob("*.toml"))
NAMES = ("h0", "h1", "h2", "h3")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """Four hospitals that every description begins with: all run, and agree."""
    with consortium(tmp_path_factory.mktemp("net"), NAMES) as running:
        yield running


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda path: path.stem)
def test_what_a_description_says_holds(network: Consortium, description: Path) -> None:
    document = tomllib.loads(description.read_text("utf-8"))
    assert set(document) == {"what", "step"}
    try:
        for step in document["step"]:
            network.take(step)
    finally:
        network.heal()
