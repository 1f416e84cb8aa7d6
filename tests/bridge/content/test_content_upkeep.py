"""What is to be done next, of everything that could be: a decision without a world around it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.content.upkeep import (
    AUDIT_S,
    ENGINE,
    RECOUNT_S,
    Outlook,
    Pack,
    Setback,
    Step,
    StepKind,
    TreeState,
    faults,
    next_step,
    set_back,
    trimmable,
)

NOW = 1000.0
CALM = Outlook(audited=NOW, recounted=NOW)
FIRST, SECOND = TreeState(1, b"first"), TreeState(2, b"second", b"former")


def held_back(until: float, reason: str = "why") -> Setback:
    return Setback(1, until, reason)


def test_nothing_is_done_when_everything_is_pinned_and_read_back() -> None:
    assert next_step(CALM, NOW) is None


def test_pins_are_compared_first_and_again_after_a_while() -> None:
    waiting = replace(CALM, waiting=[FIRST])
    assert next_step(replace(waiting, audited=None), NOW) == Step(StepKind.AUDIT)
    assert next_step(waiting, NOW) == Step(StepKind.PIN, tree=FIRST)
    assert next_step(waiting, NOW + AUDIT_S) == Step(StepKind.AUDIT)


def test_what_was_begun_is_finished_before_anything_is_begun() -> None:
    outlook = replace(CALM, waiting=[FIRST], unverified=[SECOND], stale=[b"old"])
    assert next_step(outlook, NOW) == Step(StepKind.DROP, root=b"old")
    assert next_step(replace(outlook, stale=[]), NOW) == Step(StepKind.READ_BACK, tree=SECOND)
    assert next_step(replace(outlook, stale=[], unverified=[]), NOW) == Step(StepKind.PIN, tree=FIRST)


def test_one_root_that_failed_does_not_hold_up_the_others() -> None:
    outlook = replace(CALM, waiting=[FIRST, SECOND], setbacks={b"first": held_back(NOW + 1)})
    assert next_step(outlook, NOW) == Step(StepKind.PIN, tree=SECOND)
    assert next_step(outlook, NOW + 1) == Step(StepKind.PIN, tree=FIRST)


def test_nothing_is_asked_of_an_engine_that_is_set_aside() -> None:
    outlook = replace(CALM, waiting=[FIRST], stale=[b"old"], audited=None, setbacks={ENGINE: held_back(NOW + 1)})
    assert next_step(outlook, NOW) is None
    assert next_step(outlook, NOW + 1) == Step(StepKind.AUDIT)


def test_copies_that_are_too_few_are_counted_again_after_a_while() -> None:
    outlook = replace(CALM, short=[b"root"])
    assert next_step(outlook, NOW) is None
    assert next_step(replace(outlook, recounted=NOW - RECOUNT_S), NOW) == Step(StepKind.RECOUNT)


@pytest.mark.parametrize(
    ("spool_bytes", "gone"),
    [(0, [0, 2, 3]), (100, [0, 2, 3]), (199, [0, 2, 3]), (200, [0, 2]), (300, [0]), (399, [0]), (400, []), (10**9, [])],
)
def test_the_oldest_verified_packs_go_until_the_spool_fits_and_the_newest_stays(
    spool_bytes: int, gone: list[int]
) -> None:
    packs = [Pack(0, 100, True), Pack(1, 50, False), Pack(2, 100, True), Pack(3, 100, True), Pack(4, 50, True)]
    assert [pack.number for pack in trimmable(packs, spool_bytes)] == gone


def test_no_pack_goes_where_it_may_not() -> None:
    outlook = replace(CALM, packs=[Pack(0, 100, True), Pack(1, 100)], may_trim=True)
    assert next_step(outlook, NOW) == Step(StepKind.TRIM, pack=0)
    assert next_step(replace(outlook, may_trim=False), NOW) is None
    assert next_step(replace(outlook, packs=[Pack(0, 100), Pack(1, 100)]), NOW) is None
    assert next_step(replace(outlook, packs=[Pack(0, 1 << 40, True)]), NOW) is None


def test_a_rest_doubles_up_to_its_limit() -> None:
    held, rests = None, []
    for _ in range(8):
        held = set_back(held, ENGINE, "down", NOW)
        rests.append(held.until - NOW)
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]
    assert set_back(Setback(99, 0.0, ""), b"root", "lost", NOW) == Setback(100, NOW + 600, "lost")


def test_no_faults_when_nothing_is_wrong() -> None:
    assert faults(replace(CALM, waiting=[FIRST])) == {}


def test_faults_say_what_is_wrong_and_what_waits() -> None:
    setbacks = {ENGINE: held_back(NOW, "it does not answer"), b"first": held_back(NOW, "it timed out")}
    outlook = replace(CALM, waiting=[FIRST, SECOND], setbacks=setbacks)
    assert faults(outlook) == {
        "engine": "it does not answer; 2 studies are to be brought to it",
        "pins": "1 study is not taken by the engine: it timed out",
    }
    assert faults(CALM, ["its disk is full"], ["block b is missing"], unpinned=3, spool="no fsync") == {
        "engine": "its disk is full",
        "blocks": "1 study is not whole: block b is missing",
        "spool": "no fsync",
    }
    assert faults(CALM, unpinned=3) == {"pins": "the engine has lost pins: 3 studies are to be brought to it again"}
