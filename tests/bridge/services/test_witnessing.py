"""A node asks its witnesses: what it sends, keeps, and makes of each answer; and what raises an alert at both ends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.errors import EngineFault, StorageFault
from bridge.services.witnessing import FRESH_US, Watched, Witness, Witnessing
from ledger import checkpoint, cosignature, keys, merkle, policy
from ledger.checkpoint import Verifier
from ledger.witness import TEXT, Answer
from ledger.witness_store import WitnessStore

ORIGIN = "cairn/own"
SECOND = 1_000_000


def key(label: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(label.encode()).digest())


LOG = Verifier(ORIGIN, keys.raw(key("log").public_key()))


class Log:
    """A node's log of so many leaves, to be changed behind everybody's back."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def grow(self, count: int, label: str = "leaf") -> None:
        self.leaves += [hashlib.sha256(f"{label} {len(self.leaves) + at}".encode()).digest() for at in range(count)]

    def signed(self) -> str | None:
        if not self.leaves:
            return None
        return checkpoint.make(ORIGIN, len(self.leaves), merkle.root(self.leaves), key("log"))

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        return merkle.consistency_proof(first, second, merkle.node_reader(self.leaves[:second]))


class Member:
    """A member's listener: a witness of its own behind it; may be away, or answer otherwise."""

    def __init__(self, name: str, path: Path, clock: Callable[[], int]) -> None:
        self.key = cosignature.cosigner(name, key(name).public_key())
        self.store = WitnessStore(path)
        own = Verifier(f"cairn/{name}", keys.raw(key(name).public_key()))
        self.witnessing = Witnessing(self.store, name, key(name), [Watched("own", LOG)], [], 1, own, clock)
        self.asked = 0
        self.away = False
        self.says: Answer | None = None

    def post(self, path: str, body: bytes, kind: str) -> tuple[int, str, bytes]:
        assert (path, kind) == ("/witness/add-checkpoint", TEXT)
        self.asked += 1
        if self.away:
            raise EngineFault("member south does not answer")
        answer = self.says or self.witnessing.add_checkpoint("own", body)
        return answer.status, answer.type, answer.body.encode()


class Pair:
    """A node with two witnesses, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_800_000_000 * SECOND
        self.log = Log()
        self.south, self.west = (Member(name, folder / name, lambda: self.now) for name in ("south", "west"))
        self.own = self.opened(folder / "own", 2)

    def opened(self, path: Path, threshold: int) -> Witnessing:
        witnesses = [Witness("south", self.south.key, self.south), Witness("west", self.west.key, self.west)]
        return Witnessing(WitnessStore(path), "own", key("own"), [], witnesses, threshold, LOG, lambda: self.now)

    def step(self, seconds: int = 1) -> list[bool]:
        self.now += seconds * SECOND
        return [self.own.step(witness, self.log) for witness in self.own.witnesses]

    def states(self) -> list[str]:
        return [each.asked.state if each.asked else "" for each in self.own.state().witnesses]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for each in (made.own, made.south.witnessing, made.west.witnessing):
        each.close()


def test_nothing_is_asked_while_there_is_no_entry_or_none_that_is_new(pair: Pair) -> None:
    assert pair.step() == [False, False]
    pair.log.grow(3)
    assert pair.step() == [True, True]
    assert pair.step() == [False, False]
    pair.log.grow(2)
    assert pair.step() == [True, True]
    assert (pair.south.asked, pair.own.newest()) == (2, 5)


def test_a_quiet_log_is_cosigned_afresh_every_hour(pair: Pair) -> None:
    pair.log.grow(3)
    pair.step()
    assert pair.step(FRESH_US // SECOND) == [True, True]
    assert pair.own.state().witnesses[0].time_us == pair.now


def test_a_checkpoint_with_the_lines_that_were_kept_is_what_the_policy_asks_for(pair: Pair) -> None:
    pair.log.grow(3)
    pair.step()
    trust = policy.parse(pair.own.policy(LOG.vkey()).encode())
    note = pair.log.signed() or ""
    accepted = trust.accept(note + "".join(pair.own.lines(3)))
    assert [each.witness for each in accepted.cosigned] == ["south", "west"]
    with pytest.raises(Exception, match="not the quorum"):
        trust.accept(note + pair.own.lines(3)[0])


def test_while_a_witness_is_away_nothing_is_witnessed_and_it_is_asked_again_in_a_while(pair: Pair) -> None:
    pair.west.away = True
    pair.log.grow(3)
    pair.step()
    assert (pair.states(), pair.own.newest()) == (["ok", "silent"], None)
    assert pair.step() == [False, False]
    pair.west.away = False
    assert pair.step(5) == [False, True]
    assert (pair.states(), pair.own.newest(), pair.own.newest(4)) == (["ok", "ok"], 3, None)
    assert list(pair.own.misconduct()) == []


def test_what_a_witness_has_seen_is_asked_for_when_it_was_forgotten_here(pair: Pair, tmp_path: Path) -> None:
    pair.log.grow(3)
    pair.step()
    pair.own.close()
    pair.own = pair.opened(tmp_path / "anew", 2)
    pair.log.grow(4)
    pair.step()
    assert (pair.states(), pair.own.newest()) == (["ok", "ok"], 7)


def test_a_rewritten_log_raises_an_alert_here_and_there_once(pair: Pair) -> None:
    pair.log.grow(5)
    pair.step()
    pair.log.leaves[2:] = []
    pair.log.grow(6, "another")
    for _ in range(3):
        pair.step(10)
        pair.log.grow(1, "another")
    assert pair.states() == ["contradicted", "contradicted"]
    assert pair.own.newest() == 5
    found = {(each.rule, each.who, each.place) for each in pair.own.misconduct()}
    assert found == {("witness-refused", who, "after 5 entries") for who in ("south", "west")}
    (seen, *_) = pair.south.witnessing.misconduct()
    assert (seen.rule, seen.who, seen.height) == ("second-history", "own", 5)


def test_another_history_of_the_same_length_is_found_as_well(pair: Pair) -> None:
    pair.log.grow(5)
    pair.step()
    pair.log.leaves[4:] = []
    pair.log.grow(1, "another")
    pair.step(FRESH_US // SECOND)
    assert pair.states() == ["contradicted", "contradicted"]
    assert [each.rule for each in pair.south.witnessing.misconduct()] == ["second-history"]


def test_a_log_that_was_cut_short_is_found_by_its_own_node(pair: Pair) -> None:
    pair.log.grow(5)
    pair.step()
    pair.log.leaves[3:] = []
    pair.step()
    assert pair.states() == ["contradicted", "contradicted"]
    assert {each.rule for each in pair.own.misconduct()} == {"witness-refused"}


def test_what_no_witness_answers_is_not_kept(pair: Pair) -> None:
    pair.log.grow(3)
    other = cosignature.sign(pair.log.signed() or "", "west", key("somebody"), 1)
    line = other.removeprefix(pair.log.signed() or "")
    for answer in (
        Answer(200, TEXT, line),
        Answer(200, TEXT, ""),
        Answer(404, TEXT, "the log is not known here\n"),
        Answer(409, TEXT, "3\n"),
        Answer(500, TEXT, ""),
    ):
        pair.west.says = answer
        pair.step(60)
        assert pair.states()[1] == "refused"
    assert pair.own.newest() is None
    assert list(pair.own.misconduct()) == []


def test_a_member_that_submits_anothers_checkpoint_with_a_wrong_proof_makes_no_evidence(pair: Pair) -> None:
    pair.log.grow(3)
    pair.step()
    pair.log.grow(3)
    body = f"old 3\n\n{pair.log.signed()}".encode()
    assert pair.south.witnessing.add_checkpoint("west", body).status == 422
    assert list(pair.south.witnessing.misconduct()) == []
    assert pair.south.witnessing.add_checkpoint("own", body).status == 422
    assert len(list(pair.south.witnessing.misconduct())) == 1


def test_with_a_threshold_of_none_nothing_needs_to_be_witnessed(pair: Pair, tmp_path: Path) -> None:
    own = pair.opened(tmp_path / "none", 0)
    assert own.policy("KEY").endswith("quorum none\n")
    assert own.newest() is None
    own.close()


def test_a_store_that_fails_is_a_fault_of_storage(pair: Pair) -> None:
    pair.log.grow(3)
    pair.own.close()
    for call in (pair.own.newest, pair.own.state, lambda: list(pair.own.misconduct()), pair.step):
        with pytest.raises(StorageFault):
            call()
