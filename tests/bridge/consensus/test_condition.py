"""What the ledger's process tells of consensus, for who looks: since when, and no longer than it is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bridge.consensus.condition import FILE, Condition, Reporter, follow, read, silent
from bridge.consensus.rpc import Rpc, RpcFault
from tests.ledger.ledger_hospitals import HOSPITALS, joined

ACTIVE = joined().state.active
OWN = HOSPITALS[0].node


class Peers:
    """A CometBFT that tells its peers; none: it does not answer."""

    def __init__(self) -> None:
        self.known: dict[str, str] | None = {
            member.card.address.partition("@")[0]: member.name for member in ACTIVE if member.node != OWN
        }
        self.closed = False

    def peers(self) -> dict[str, str]:
        if self.known is None:
            raise RpcFault("CometBFT does not answer: refused")
        return self.known

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_by(self, seconds: float) -> int:
        self.now += round(seconds * 1_000_000)
        return self.now


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(tmp_path: Path, peers: Peers, clock: Clock) -> Reporter:
    return Reporter(tmp_path, cast(Rpc, cast(Any, peers)), OWN, lambda: ACTIVE, clock)


def test_nothing_is_told_before_it_is_known(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / "run").mkdir()
    for broken in ("", "[]", '{"at": 1, "more": 2}'):
        (tmp_path / FILE).write_text(broken, "utf-8")
        assert read(tmp_path) is None


def test_who_is_not_heard_is_told_since_when(tmp_path: Path, reporter: Reporter, peers: Peers, clock: Clock) -> None:
    reporter.step(None, "")
    assert read(tmp_path) == Condition(clock.now)
    assert peers.known is not None
    peers.known = {id: name for id, name in peers.known.items() if name != "h2"}
    lost = clock.pass_by(3)
    reporter.step(None, "")
    clock.pass_by(30)
    reporter.step(None, "")
    assert read(tmp_path) == Condition(clock.now, unheard={"h2": lost})
    reporter.close()
    assert (read(tmp_path), peers.closed) == (None, True)


class Call:
    """A roll call whose answers are known."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False

    def step(self, members: Any) -> None:
        self.asked = [member.name for member in members]

    def silent(self) -> set[bytes]:
        return {HOSPITALS[1].node} if self.asked else set()

    def forget(self) -> None:
        self.asked = []

    def close(self) -> None:
        self.closed = True


def test_who_does_not_answer_while_entries_wait_is_not_heard_though_cometbft_knows_nothing_of_it(
    tmp_path: Path, peers: Peers, clock: Clock
) -> None:
    call: Any = Call()
    reporter = Reporter(tmp_path, cast(Rpc, cast(Any, peers)), OWN, lambda: ACTIVE, clock, call)
    reporter.step(None, "")
    assert (read(tmp_path), call.asked) == (Condition(clock.now), [])
    began = clock.pass_by(2)
    reporter.step(None, "", waits=True)
    assert read(tmp_path) == Condition(began, unheard={"h1": began})
    assert sorted(call.asked) == ["h1", "h2", "h3"]
    clock.pass_by(2)
    reporter.step(None, "")
    assert read(tmp_path) == Condition(clock.now)
    reporter.close()
    assert call.closed and peers.closed


def test_a_cometbft_that_is_silent_blames_nobody(
    tmp_path: Path, reporter: Reporter, peers: Peers, clock: Clock
) -> None:
    peers.known = None
    began = clock.now
    reporter.step(None, "")
    clock.pass_by(10)
    reporter.step("CometBFT ended; it is started again", "sequence 4, where 9 comes next")
    told = Condition(
        clock.now, "CometBFT ended; it is started again", began, "sequence 4, where 9 comes next", clock.now
    )
    assert read(tmp_path) == told


def test_it_is_looked_every_second_and_written_when_it_is_new(tmp_path: Path, reporter: Reporter, clock: Clock) -> None:
    reporter.step(None, "")
    first = read(tmp_path)
    for seconds in (0.5, 1.5):
        clock.pass_by(seconds)
        reporter.step(None, "")
    assert read(tmp_path) == first
    clock.pass_by(3)
    reporter.step(None, "")
    assert read(tmp_path) == Condition(clock.now)


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path, reporter: Reporter) -> None:
    (tmp_path / "run").write_text("no folder", "utf-8")
    reporter.step(None, "")
    assert read(tmp_path) is None


def test_what_is_over_begins_anew_when_it_comes_back() -> None:
    first = follow(None, 10, "", "why", ["h1"])
    over = follow(first, 20, "", "", [])
    assert (over.refused_since, over.unheard) == (None, {})
    again = follow(over, 30, "", "why", ["h1"])
    assert (first.refused_since, again.refused_since, again.unheard) == (10, 30, {"h1": 30})


def test_only_members_who_are_active_and_others_are_missed() -> None:
    assert silent(ACTIVE, OWN, {}) == ["h1", "h2", "h3"]
    assert silent([member for member in ACTIVE if member.name in ("h0", "h1")], OWN, {}) == ["h1"]
