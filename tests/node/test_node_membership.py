"""Members found a consortium by commands alone, take another in, rotate a key and retire one, by vote on the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge import consortium_setup as setup
from bridge import control
from bridge.consensus import condition
from bridge.consensus.condition import Condition
from tests.cometbft_node import COMETBFT
from tests.node.running_node import RunningNode, free_ports

PATIENCE_S = 60.0


class Hospital(RunningNode):
    """A node whose home was made by `cairn consortium`, with ports of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder / name)
        self.name, self.card = name, folder / f"{name}.card"
        self.furnish()

    def furnish(self) -> None:
        """A new home with settings and nothing else."""
        members, p2p, rpc = free_ports(3)
        self.home.mkdir()
        setup.settle(
            self.home,
            {
                "dimse": {"processes": 1},
                "members": {"port": members},
                "ledger.cometbft": {"binary": str(COMETBFT), "p2p_port": p2p, "rpc": f"http://127.0.0.1:{rpc}"},
            },
        )

    def members(self) -> dict[str, Any]:
        """What `cairn consortium members` says here, asked as that command asks."""
        return self.ask("consortium-members")

    def readiness(self) -> list[str]:
        """What `/readyz` says besides "ready"."""
        return list(httpx.get(f"{self.url}/readyz").json().get("reasons", []))

    def ask(self, command: str, **arguments: object) -> dict[str, Any]:
        """What the running node answers a command, without the time that starting one takes."""
        told = control.ask(self.home / "run/cairn.sock", command, {"wait": 30, **arguments}, lambda text: None)
        assert isinstance(told, dict)
        return told

    def vote(self, id: str, yes: bool = True) -> str:
        """Vote on a proposal; what it is then."""
        return str(self.ask("consortium-vote", proposal=id, yes=yes)["state"])

    def proposal(self, id: str) -> dict[str, Any]:
        """A proposal as it is known here."""
        return next(row for row in self.members()["proposals"] if row["id"] == id)

    def propose(self, do: str, **what: object) -> str:
        """Propose; the proposal's id when it is final."""
        told = self.ask("consortium-propose", do=do, **what)
        assert (told["finality"], told["state"]) == ("final", "open")
        return str(told["proposal"])


def until(what: Callable[[], bool]) -> None:
    """Wait for something that the other members' blocks bring about."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def decide(proposer: Hospital, voters: list[Hospital], do: str, **what: object) -> None:
    """A proposal that the voters accept, each once it sees it; the last vote decides."""
    id = proposer.propose(do, **what)
    for number, voter in enumerate(voters, 1):
        until(lambda voter=voter: any(row["id"] == id for row in voter.members()["proposals"]))
        assert voter.vote(id[:16]) == ("accepted" if number == len(voters) else "open")


def h3_now(asked: Hospital) -> dict[str, Any]:
    """What a member says of h3."""
    return next(row for row in asked.members()["members"] if row["name"] == "h3")


def condition_of(one: Hospital) -> Condition:
    """What a hospital's console has to go by when it says why entries wait."""
    return condition.read(one.home) or Condition(0)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Hospital]]:
    """Three members that run, and one that is none yet."""
    folder = tmp_path_factory.mktemp("membership")
    made = [Hospital(folder, f"h{number}") for number in range(4)]
    for one in made[1:]:
        one.cairn("consortium", "join", "--name", one.name, "--out", str(one.card))
    cards = [argument for one in made[1:3] for argument in ("--member", str(one.card))]
    told = made[0].answer("consortium", "init", "--name", "h0", "--consortium", "north", *cards)
    for one in made[1:]:
        one.cairn("consortium", "join", "--genesis", told["genesis"])
    try:
        for one in made[:3]:
            one.start(ready=False)
        for one in made[:3]:
            one.wait_ready()
        yield made
        for one in made:
            if one.runs:
                assert one.stop() == 0
    finally:
        for one in made:
            one.kill()


def test_members_take_in_a_hospital_rotate_a_key_and_retire_one(hospitals: list[Hospital]) -> None:
    h0, h1, h2, h3 = hospitals
    until(lambda: all(row["entries"] > 0 for row in h0.members()["members"]))

    # Who is to be taken in may run before: it says what it waits for, and has not failed.
    h3.start()
    until(lambda: any("voted it in" in reason for reason in h3.readiness()))
    assert any("not a member yet" in row["what"] for row in h3.members()["waits"])
    assert h3.answer("ledger", "verify")["findings"] == []

    # It is compared by the fingerprint of the card, and heard from then on.
    fingerprint = h3.answer("consortium", "join")["fingerprint"]
    id = h0.answer("consortium", "propose", "enroll", str(h3.card), "--wait", "30")["proposal"]
    until(lambda: any(row["id"] == id for row in h1.members()["proposals"]))
    assert h1.proposal(id)["fingerprint"] == fingerprint and h1.proposal(id)["needed"] == 3
    assert h1.answer("consortium", "vote", id, "yes", "--wait", "30")["state"] == "open"
    assert h2.vote(id) == "accepted"
    until(lambda: any(row["name"] == "h3" and row["entries"] > 0 for row in h0.members()["members"]))
    until(lambda: h3.readiness() == [])
    said = [json.loads(line) for line in h3.printed().splitlines() if line.startswith("{")]
    assert sum("voted it in" in row["message"] for row in said) == 1
    assert not [row for row in said if row["level"] == "error"]
    assert {row["name"]: row["power"] for row in h3.members()["members"]} == dict.fromkeys(("h0", "h1", "h2", "h3"), 1)

    # One that lost its disk, keys and all, makes others, and goes on where its chain is once they are accepted.
    h3.kill()
    until(lambda: "h3" in condition_of(h0).unheard)
    held = next(row for row in h0.members()["members"] if row["name"] == "h3")
    h3.home.rename(h3.home.with_name("lost"))
    h3.furnish()
    h3.cairn("consortium", "join", "--name", "h3", "--out", str(h3.card))
    decide(h0, [h1, h2], "rotate", card=str(h3.card))
    h3.cairn("consortium", "join", "--genesis", str(h0.home / "consortium/genesis.json"))
    h3.start()
    until(lambda: h3_now(h0)["entries"] > held["entries"])
    until(lambda: not condition_of(h0).unheard)
    assert h3_now(h0)["node"] == held["node"] and h3_now(h0)["key"] != held["key"]
    assert h3.answer("ledger", "verify")["findings"] == []

    # A member's new key is accepted by the others, and in use a moment later: its processes are started afresh.
    before = next(row for row in h1.members()["members"] if row["own"])
    decide(h1, [h0, h3], "rotate")
    until(lambda: not next(row for row in h0.members()["members"] if row["name"] == "h1")["rotating"])
    after = next(row for row in h0.members()["members"] if row["name"] == "h1")
    assert after["node"] == before["node"] and after["key"] != before["key"]
    until(h1.is_ready)
    assert not h1.members()["restart"] and not (h1.home / "keys" / "next.json").exists()

    # A retired member is not heard any more; three decide from now on, and one that is lost has no say.
    decide(h2, [h0, h1], "power", member="h0", power=3)
    decide(h0, [h1, h2], "retire", member="h3")
    until(lambda: not h3.members()["members"][-1]["active"])
    assert "no active member" in h3.cairn("consortium", "propose", "power", "h0", "1", code=2).stderr
    h3.ask("token-create", role="viewer")
    h3.wait_printed("of a member that is retired")
    until(lambda: "retired" in condition_of(h3).refused)
    assert "waits: This hospital was retired by vote" in h3.cairn("consortium", "members").stdout
    assert ["no longer a member" in reason for reason in h3.readiness()] == [True]
    told = {row["name"]: (row["active"], row["power"]) for row in h1.members()["members"]}
    assert told == {"h0": (True, 3), "h1": (True, 1), "h2": (True, 1), "h3": (False, 0)}
    assert h0.members()["quorum"] == 3

    # What cannot be is told before it is stated.
    for said, command, arguments in (
        ("had, this name", "consortium-propose", {"do": "enroll", "card": str(h3.card)}),
        ("no active member", "consortium-propose", {"do": "retire", "member": "h3"}),
        ("first 8 digits", "consortium-vote", {"proposal": "x", "yes": False}),
        ("decided already", "consortium-vote", {"proposal": id, "yes": False}),
    ):
        with pytest.raises(control.Failed, match=said):
            h0.ask(command, **arguments)

    # Who proposed may withdraw.
    last = h1.propose("power", member="h2", power=0)
    assert h1.vote(last, yes=False) == "withdrawn"
    for one in (h0, h1):
        assert one.answer("ledger", "verify")["findings"] == []
