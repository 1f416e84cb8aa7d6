"""Who does not answer while entries wait: by what each member's listener says, and by how long it says nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from bridge.consensus.roll_call import AGAIN_S, PATIENCE_S, RollCall
from bridge.consensus.rpc_proxy import PATH
from bridge.errors import EngineFault
from tests.ledger.ledger_hospitals import joined

OTHERS = joined().state.active[1:]
AWAY, FROZEN, WELL = (member.node for member in OTHERS)


class Listeners:
    """One answers, one refuses, one says nothing until the test lets it; each is asked in a thread of the roll call."""

    name = "a member"

    def __init__(self) -> None:
        self.now, self.asked, self.answers = 100.0, list[bytes](), threading.Semaphore(0)
        self.frozen, self.begun = threading.Event(), threading.Event()

    def of(self, node: bytes) -> Listeners:
        self.asked.append(node)
        listener = Listeners.__new__(Listeners)
        listener.__dict__.update(self.__dict__, node=node)
        return listener

    def ask(self, method: str, path: str) -> object:
        assert (method, path) == ("GET", f"{PATH}status")
        node: bytes = self.__dict__["node"]
        if node == FROZEN:
            self.begun.set()
            assert self.frozen.wait(30)
        if node == AWAY:
            raise EngineFault("it does not answer")
        return {}


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.frozen.set()


@pytest.fixture
def call(listeners: Listeners) -> Iterator[RollCall]:
    made = RollCall(listeners.of, lambda: listeners.now)
    yield made
    listeners.frozen.set()
    made.close()


def until(done: Callable[[], bool]) -> None:
    """Threads of the roll call get their turn."""
    pause = threading.Event()
    for _ in range(2000):
        if done():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to that")


def test_who_refuses_is_silent_at_once_and_who_says_nothing_after_a_while(listeners: Listeners, call: RollCall) -> None:
    assert call.silent() == set()
    call.step(OTHERS)
    assert listeners.begun.wait(60)
    until(lambda: call.silent() == {AWAY})
    listeners.now += PATIENCE_S
    assert call.silent() == {AWAY, FROZEN}
    listeners.frozen.set()
    until(lambda: call.silent() == {AWAY})


def test_each_is_asked_again_after_some_seconds_and_nobody_twice_at_once(listeners: Listeners, call: RollCall) -> None:
    call.step(OTHERS)
    until(lambda: len(listeners.asked) == 3 and call.silent() == {AWAY})
    call.step(OTHERS)
    assert len(listeners.asked) == 3
    listeners.now += AGAIN_S
    until(lambda: (call.step(OTHERS), len(listeners.asked) == 5)[1])
    assert listeners.asked.count(FROZEN) == 1


def test_when_nothing_waits_any_more_nobody_is_blamed(listeners: Listeners, call: RollCall) -> None:
    call.step(OTHERS)
    until(lambda: listeners.begun.is_set() and call.silent() == {AWAY})
    listeners.now += PATIENCE_S
    call.forget()
    assert call.silent() == set()
    listeners.frozen.set()
    until(lambda: not call._queued)
    assert call.silent() == set()
