"""Work with members in lanes: one for each at a time, some at once, and a failure of ours is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from bridge import member_lanes
from bridge.errors import EngineFault
from bridge.member_lanes import MOST, MemberLanes

PATIENCE_S = 20.0


class Work:
    """Waits until it may go on; tells when it began and when its lane is free again."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun, self.may, self.count = threading.Event(), threading.Event(), 0

    def __call__(self) -> int:
        self.count += 1
        self.begun.set()
        assert self.may.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return 1


def free(lanes: MemberLanes, node: bytes) -> None:
    """Until new work with a member is begun."""
    done = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        lanes(node, done.set)
        if done.wait(0.01):
            return
    raise AssertionError("its lane is never free")


def test_one_that_takes_its_time_keeps_only_its_own_waiting() -> None:
    lanes, slow, second, other = MemberLanes("test", lambda: None), Work(), Work(), Work()
    assert lanes(b"north", slow) == 0 and slow.begun.wait(PATIENCE_S)
    lanes(b"north", second)
    lanes(b"south", other)
    assert other.begun.wait(PATIENCE_S) and second.count == 0
    for work in (slow, other):
        work.may.set()
    free(lanes, b"north")
    assert (slow.count, second.count, other.count) == (1, 0, 1)


def test_no_more_than_some_are_worked_with_at_once() -> None:
    lanes, works = MemberLanes("test", lambda: None), [Work() for _ in range(MOST + 1)]
    for number, work in enumerate(works):
        lanes(bytes([number]), work)
    assert all(work.begun.wait(PATIENCE_S) for work in works[:MOST]) and works[-1].count == 0
    for work in works:
        work.may.set()
    free(lanes, bytes([MOST]))


@pytest.mark.parametrize(("error", "told"), [(EngineFault("it is away"), 0), (ValueError("a bug"), 1)])
def test_a_failure_of_ours_is_told_and_the_lane_is_free_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: int
) -> None:
    monkeypatch.setattr(member_lanes, "AFTER_FAULT_S", 0.0)
    broken: list[int] = []
    fail: Callable[[], None] = lambda: broken.append(1)  # noqa: E731
    lanes, work = MemberLanes("test", fail), Work(error)
    work.may.set()
    lanes(b"north", work)
    free(lanes, b"north")
    assert len(broken) == told
