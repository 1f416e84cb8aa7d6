"""`cairn content repair` over an engine that hangs, or does not take a study."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from bridge.content.pack_format import pack_path
from bridge.errors import EngineFault
from bridge.services.repair_content import repair
from tests.bridge.services.test_keep_content import Archive, all_closed

__all__ = ["all_closed"]


def repaired(archive: Archive, told: list[str]) -> dict[str, object]:
    def study_of(root: bytes) -> str | None:
        tree = archive.node.index.trees.by_root(root)
        return tree.study if tree is not None else None

    return repair(archive.upkeep, archive.node.index.pins, study_of, told.append)


def test_a_study_that_the_engine_does_not_take_is_named_and_not_counted_as_brought(home: Path) -> None:
    archive = Archive(home, 1 << 30, 1 << 40)
    studies = [generate_uid(), generate_uid()]
    roots = [archive.store(study) for study in studies]
    archive.engine.refused = {roots[0]}
    told: list[str] = []
    result = repaired(archive, told)
    assert (result["brought"], result["read_back"], result["waiting"], result["lost"]) == (1, 1, 1, [])
    assert result["refused"] == [{"study": studies[0], "what": "it does not take this one"}]
    assert f"{studies[0]}: it does not take this one" in told
    archive.engine.refused.clear()
    assert repaired(archive, told)["refused"] == []
    assert archive.engine.roots == set(roots)


def beside(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's own upkeep takes every step before the command does."""
    step = archive.upkeep.step

    def taken_already() -> None:
        while step() is not None:
            pass

    monkeypatch.setattr(archive.upkeep, "step", taken_already)


def test_what_the_node_itself_tried_at_the_same_time_and_could_not_bring_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(home, 1 << 30, 1 << 40)
    studies = [generate_uid(), generate_uid()]
    roots = [archive.store(study) for study in studies]
    damage(archive, home, roots[0])
    archive.engine.refused = {roots[1]}
    beside(archive, monkeypatch)
    result = repaired(archive, [])
    assert [one["study"] for one in result["lost"]] == [studies[0]]  # type: ignore[attr-defined]
    assert [one["study"] for one in result["refused"]] == [studies[1]]  # type: ignore[attr-defined]


def test_an_engine_that_the_node_itself_found_silent_is_a_fault(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(home, 1 << 30, 1 << 40)
    archive.store(generate_uid())
    archive.engine.down = "it does not answer"
    beside(archive, monkeypatch)
    with pytest.raises(EngineFault, match="it does not answer"):
        repaired(archive, [])


def test_a_study_that_lacks_a_block_to_be_brought_is_told_as_not_whole(home: Path) -> None:
    archive = Archive(home, 1 << 30, 1 << 40)
    study = generate_uid()
    damage(archive, home, archive.store(study))
    result = repaired(archive, [])
    assert (result["brought"], result["read_back"], result["refused"]) == (0, 0, [])
    assert [one["study"] for one in result["lost"]] == [study]  # type: ignore[attr-defined]


def damage(archive: Archive, home: Path, root: bytes) -> None:
    """Flip a bit of a block in its pack."""
    place = archive.node.index.locate_block(root)
    assert place is not None
    pack = pack_path(home / "packs", place.pack)
    content = bytearray(pack.read_bytes())
    content[place.offset] ^= 1
    pack.write_bytes(content)


def test_nobody_waits_for_a_step_that_waits_for_an_engine_that_hangs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(home, 1 << 30, 1 << 40)
    archive.store(generate_uid())
    archive.all_steps()
    archive.store(generate_uid())
    begun, over = threading.Event(), threading.Event()
    pin = archive.engine.pin

    def hang(root: bytes, replaces: bytes | None = None) -> object:
        begun.set()
        assert over.wait(60)
        return pin(root, replaces)

    monkeypatch.setattr(archive.engine, "pin", hang)
    step = threading.Thread(target=archive.upkeep.step)
    step.start()
    try:
        assert begun.wait(60)
        archive.engine.down = "it does not answer"
        with pytest.raises(EngineFault, match="it does not answer"):
            repaired(archive, [])
    finally:
        archive.engine.down = ""
        over.set()
        step.join()
    assert repaired(archive, [])["waiting"] == 0
