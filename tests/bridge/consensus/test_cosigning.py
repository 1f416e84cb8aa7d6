"""Members exchange cosignatures: what verifies is kept, what contradicts is evidence, what is missing is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bridge.consensus.cosigning import EQUIVOCATION, PATH, PATIENCE_S, Cosigning
from bridge.errors import ContentMissing, EngineFault
from ledger import checkpoint, cosignature
from ledger.shared_policy import quorum_policy
from tests.ledger.shared_log import Hospital, Network

WITHIN_S = 60.0


class Member:
    """A member's listener: what it answers for a size; None: it has nothing of it yet."""

    def __init__(self, note: Callable[[int], str | None]) -> None:
        self.note = note
        self.asked: list[int] = []

    def ask(self, method: str, path: str) -> Mapping[str, object]:
        size = int(path.removeprefix(PATH))
        self.asked.append(size)
        found = self.note(size)
        if found is None:
            raise ContentMissing("not held here")
        return {"checkpoint": found}


class Exchange:
    """East's exchange with the three others, whose copies of the log are as they were at each size."""

    def __init__(self, network: Network) -> None:
        self.network, self.now = network, 0.0
        self.members = {one.node: Member(one.store.checkpoint) for one in network.copies}
        self.silent: set[bytes] = set()
        self.published: list[tuple[int, str]] = []
        east = network["east"]
        self.cosigning = Cosigning(
            *(east.store, network.genesis.origin, east.node, lambda: east.application.state, self),
            lambda size, note: self.published.append((size, note)),
            lambda: self.now,
        )

    def __call__(self, node: bytes) -> Member:
        if node in self.silent:
            raise EngineFault("it does not answer")
        return self.members[node]

    def close(self) -> None:
        """Nothing is open."""

    def step(self) -> bool:
        """One step, with what the members answer to it."""
        more = self.cosigning.step()
        self.cosigning._pool.submit(lambda: None).result()
        until = time.monotonic() + WITHIN_S
        while self.cosigning._asked:
            assert time.monotonic() < until
            threading.Event().wait(0.01)
        return more

    def held(self, size: int) -> set[str]:
        return set(self.network["east"].store.cosignatures(size))

    def other(self, name: str) -> Member:
        return self.members[self.network[name].node]


@pytest.fixture
def exchange(tmp_path: Path) -> Iterator[Exchange]:
    network = Network(tmp_path)
    network.join()
    made = Exchange(network)
    yield made
    made.cosigning.close()
    network.close()


def test_each_members_line_is_verified_and_kept_and_then_nobody_is_asked(exchange: Exchange) -> None:
    assert exchange.step()
    assert exchange.held(4) == {"east", "north", "south", "west"}
    assert not exchange.step()
    assert [exchange.other(name).asked for name in ("north", "south", "west")] == [[4]] * 3
    east = exchange.network["east"]
    note = east.store.checkpoint(4)
    assert note is not None
    lines = "".join(line for name, line in east.store.cosignatures(4).items() if name != "east")
    accepted = quorum_policy(east.application.state, exchange.network.genesis.origin).accept(note + lines)
    assert len(accepted.cosigned) == 4


def test_a_checkpoint_is_published_when_a_quorum_cosigned_it_and_again_with_more_lines(exchange: Exchange) -> None:
    origin, east = exchange.network.genesis.origin, exchange.network["east"]
    for name in ("south", "west"):
        exchange.silent.add(exchange.network[name].node)
    exchange.step()
    exchange.step()
    assert exchange.published == []
    exchange.silent.remove(exchange.network["south"].node)
    exchange.step()
    exchange.step()
    ((size, note),) = exchange.published
    assert size == 4
    assert len(quorum_policy(east.application.state, origin).accept(note).cosigned) == 3
    exchange.silent.clear()
    exchange.step()
    exchange.step()
    assert [size for size, _ in exchange.published] == [4, 4]
    assert len(quorum_policy(east.application.state, origin).accept(exchange.published[1][1]).cosigned) == 4


def test_a_member_that_is_behind_is_asked_again_and_the_others_lines_are_kept(exchange: Exchange) -> None:
    exchange.other("west").note = lambda size: None
    exchange.silent.add(exchange.network["south"].node)
    assert exchange.step() and exchange.step()
    assert exchange.held(4) == {"east", "north"}
    exchange.silent.clear()
    exchange.other("west").note = exchange.network["west"].store.checkpoint
    exchange.step()
    assert exchange.held(4) == {"east", "north", "south", "west"}


def test_a_checkpoint_without_a_quorum_is_asked_for_a_while_before_a_newer_one_is(exchange: Exchange) -> None:
    for name in ("south", "west"):
        exchange.silent.add(exchange.network[name].node)
    exchange.step()
    exchange.network.decide([[exchange.network.sign("north")]])
    exchange.step()
    assert exchange.held(5) == set()
    exchange.now = PATIENCE_S
    exchange.step()
    assert exchange.held(5) == {"east", "north"}
    exchange.silent.remove(exchange.network["south"].node)
    exchange.step()
    assert exchange.held(5) == {"east", "north", "south"}
    exchange.network.decide([[exchange.network.sign("north")]])
    exchange.step()  # a quorum is held: the newest is asked for at once
    assert exchange.held(6) == {"east", "north", "south"}


def signed(hospital: Hospital, note: str, head: checkpoint.Checkpoint) -> str:
    """A checkpoint that a member signed and cosigned, whatever it says."""
    made = checkpoint.make(head.origin, head.size, head.root, hospital.signer)
    return cosignature.sign(made, hospital.name, hospital.cosigner, 1_700_000_000)


def test_another_root_for_the_same_size_is_kept_as_evidence_and_no_line_of_it(exchange: Exchange) -> None:
    west, east = exchange.network["west"], exchange.network["east"]
    note = east.store.checkpoint(4)
    assert note is not None
    head = checkpoint.parse(checkpoint.split_note(note)[0])
    lie = signed(west, note, head._replace(root=bytes(32)))
    exchange.other("west").note = lambda size: lie
    exchange.step()
    exchange.step()
    (proved,) = east.store.evidence()
    assert (proved.kind, proved.node, proved.height, proved.detail) == (EQUIVOCATION, west.node, 4, lie.encode())
    assert "west" not in exchange.held(4)


def test_what_is_not_signed_by_that_member_or_of_another_size_is_nothing(exchange: Exchange) -> None:
    north = exchange.network["north"].store.checkpoint
    note = north(4)
    assert note is not None
    forged = signed(exchange.network["west"], note, checkpoint.Checkpoint("cairn/other", 4, bytes(32)))
    log_line_only = checkpoint.make(exchange.network.genesis.origin, 4, bytes(32), exchange.network["south"].signer)
    answers = {"west": forged, "south": log_line_only, "north": note.replace("\n4\n", "\n5\n", 1)}
    for name, answer in answers.items():
        exchange.other(name).note = lambda size, answer=answer: answer  # type: ignore[misc]
    exchange.step()
    assert exchange.held(4) == {"east"}
    assert exchange.network["east"].store.evidence() == []
    exchange.other("west").note = lambda size: north(4)  # of another member
    exchange.step()
    assert exchange.held(4) == {"east"}


def test_the_thread_follows_commits_until_it_is_closed(exchange: Exchange) -> None:
    exchange.cosigning.start()
    exchange.network.decide([[exchange.network.sign("north")]])
    exchange.cosigning.committed()
    until = time.monotonic() + WITHIN_S
    while exchange.held(5) != {"east", "north", "south", "west"}:
        assert time.monotonic() < until
        threading.Event().wait(0.05)
