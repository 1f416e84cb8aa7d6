"""When a managed Kubo is started, asked and started again."""

from __future__ import annotations

import logging

import pytest

from bridge.child_watch import HUNG_DRAIN_S, PING_S, SILENCES, STABLE_S, WAIT_S, NotYet, Watch
from bridge.content.kubo.watch import MANNER
from bridge.errors import ConfigError, EngineFault


class DaemonDouble:
    """A daemon that does what it is told to."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.runs = self.serves = False
        self.reads = True
        self.config_error = self.waits_for = ""

    def prepare(self) -> None:
        if self.waits_for:
            raise NotYet(self.waits_for)
        if self.config_error:
            raise ConfigError(self.config_error)
        self.did.append("prepare")

    def start(self) -> None:
        self.did.append("start")
        self.runs = True

    def alive(self) -> bool:
        return self.runs

    def ready(self) -> bool:
        if not self.runs:
            raise EngineFault("Kubo ended: lock is held")
        return self.serves

    def ping(self) -> bool:
        self.did.append("ping")
        return self.reads

    def stop(self, drain_s: float = 20.0) -> None:
        self.did.append(f"stop {drain_s:g}")
        self.runs = self.serves = False


class Watched:
    """A watch, its daemon, and the time, which passes when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.daemon = DaemonDouble()
        self.watch = Watch(self.daemon, MANNER, lambda: self.time)

    def after(self, seconds: float) -> str | None:
        """One step so much later; why Kubo cannot be used."""
        self.time += seconds
        self.watch.step()
        return self.watch.reason

    def serving(self) -> Watched:
        self.after(0)
        self.daemon.serves = True
        assert self.after(1) is None
        self.daemon.did.clear()
        return self


def test_one_that_waits_is_told_once_and_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.daemon.waits_for = "somebody else"
    with caplog.at_level(logging.INFO):
        assert {watched.after(WAIT_S) for _ in range(4)} == {"somebody else"}
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "Kubo waits: somebody else")
    ]
    assert watched.daemon.did == []
    watched.daemon.waits_for = ""
    watched.after(WAIT_S)
    assert watched.daemon.did == ["prepare", "start"]


def test_one_that_is_to_be_renewed_is_ended_and_started_by_the_next_step() -> None:
    watched = Watched().serving()
    watched.watch.renew("its neighbours moved", 7)
    assert watched.watch.reason == "its neighbours moved"
    watched.after(0)
    assert watched.daemon.did == ["stop 7", "prepare", "start"]


def test_it_is_prepared_started_and_used_once_it_serves() -> None:
    watched = Watched()
    assert watched.after(0) == "Kubo is being started"
    assert watched.after(1) == "Kubo is being started"
    watched.daemon.serves = True
    assert watched.after(1) is None
    assert watched.daemon.did == ["prepare", "start"]


def test_it_is_asked_every_few_seconds_whether_it_reads() -> None:
    watched = Watched().serving()
    for _ in range(10):
        assert watched.after(1) is None
    assert watched.daemon.did == ["ping"] * int(10 / PING_S)


def test_one_that_ended_is_started_again_later_each_time() -> None:
    watched = Watched().serving()
    watched.daemon.runs = False
    assert watched.after(0.1) == "Kubo ended; it is started again"
    watched.after(0.9)
    assert "start" not in watched.daemon.did
    watched.after(0.1)
    assert watched.daemon.did[-1] == "start"
    watched.daemon.runs = False
    assert watched.after(0.1) == "Kubo ended: lock is held; it is started again"
    watched.after(1.9)
    assert watched.daemon.did.count("start") == 1
    watched.after(0.1)
    assert watched.daemon.did.count("start") == 2


def test_one_that_ran_for_long_is_started_again_soon() -> None:
    watched = Watched()
    for _ in range(6):
        watched.after(60)
        watched.daemon.runs = False
        watched.after(1)
    watched.after(60)
    watched.daemon.serves = True
    assert watched.after(1) is None
    watched.after(STABLE_S + 1)
    watched.daemon.runs = False
    watched.after(1)
    watched.daemon.did.clear()
    watched.after(1)
    assert watched.daemon.did == ["prepare", "start"]


def test_one_that_answers_without_reading_is_started_again() -> None:
    watched = Watched().serving()
    watched.daemon.reads = False
    for silence in range(1, SILENCES):
        assert watched.after(PING_S) == f"Kubo does not read a block that it holds (asked {silence} times)"
    watched.after(PING_S)
    assert watched.daemon.did[-1] == f"stop {HUNG_DRAIN_S:g}"
    watched.after(2)
    assert watched.daemon.did[-1] == "start"


def test_one_that_reads_again_is_used_again() -> None:
    watched = Watched().serving()
    watched.daemon.reads = False
    assert watched.after(PING_S) is not None
    watched.daemon.reads = True
    assert watched.after(PING_S) is None


def test_one_that_never_serves_is_started_again() -> None:
    watched = Watched()
    watched.after(0)
    watched.after(MANNER.ready_s)
    assert watched.daemon.runs
    assert "does not serve" in (watched.after(1) or "")
    assert not watched.daemon.runs


def test_settings_that_cannot_be_met_are_told_and_tried_again() -> None:
    watched = Watched()
    watched.daemon.config_error = "there is no program ipfs"
    assert watched.after(0) == "there is no program ipfs; it is started again"
    watched.daemon.config_error = ""
    watched.after(1)
    assert watched.daemon.did[-1] == "start"


def test_in_the_end_it_is_given_the_time_to_end() -> None:
    watched = Watched().serving()
    watched.watch.end(17.0)
    assert watched.daemon.did == ["stop 17"]
