"""Hospitals that hold one ledger, each in a network of its own, and the steps that a description takes with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge import consortium_setup as setup
from ledger.genesis import Genesis
from tests.network import lies
from tests.network.false_log import FalseLog
from tests.network.hospital import Hospital, until
from tests.network.lines import Quality
from tests.network.namespaces import Switch


class Consortium:
    """A running network. Methods named `do_...` are what a description's `do` names, `expect_...` its `expect`."""

    def __init__(self, switch: Switch, members: dict[str, Hospital], genesis: Genesis) -> None:
        self.switch, self.members, self.genesis = switch, members, genesis
        self.studies: dict[str, list[str]] = {name: [] for name in members}
        self._twin = lies.Twin()
        self._false_log: FalseLog | None = None
        self._lost: dict[str, int] = {}

    # --- do --------------------------------------------------------------------------------------------------------

    def do_store(self, at: Sequence[str]) -> None:
        """A modality sends a study to each, which is acknowledged and sealed whatever consensus does."""
        for one in self._of(at):
            before = one.sealed()
            self.studies[one.name].append(one.store())
            until(lambda one=one, before=before: one.sealed() > before, lambda: f"{at} did not seal it")

    def do_kill(self, at: Sequence[str]) -> None:
        """A power cut."""
        for one in self._of(at):
            one.power_cut()

    def do_crash(self, at: Sequence[str], step: str) -> None:
        """The ledger's process dies at a step, again and again, until a power cut ends it."""
        for one in self._of(at):
            one.power_cut()
            one.start(ready=False, CAIRN_CRASH_AT=step)
            one.wait_printed("a process ended and is started again")
            one.power_cut()

    def do_start(self, at: Sequence[str], wait: bool = True) -> None:
        """Start those that do not run."""
        for one in self._of(at):
            one.start(ready=False)
        for one in self._of(at) if wait else ():
            one.wait_ready()

    def do_pause(self, at: Sequence[str]) -> None:
        """Every process stands still, with its connections open."""
        for one in self._of(at):
            one.pause()

    def do_resume(self, at: Sequence[str]) -> None:
        """And goes on."""
        for one in self._of(at):
            one.resume()

    def do_part(self, groups: Sequence[Sequence[str]]) -> None:
        """Only who is in one group reaches each other."""
        self.switch.part(*groups)

    def do_join(self) -> None:
        """The network is whole again."""
        self.switch.join()

    def do_worsen(self, at: Sequence[str], **quality: float) -> None:
        """Their lines delay, lose and double packets from now on (`tests.network.lines.Quality`)."""
        for name in at:
            self.switch.worsen(name, Quality(**quality))

    def do_mend(self) -> None:
        """All lines are good again."""
        self.switch.mend()

    def do_lose(self, at: Sequence[str]) -> None:
        """The disk with the consortium's data is lost, of a member that does not run."""
        for one in self._of(at):
            self._lost[one.name] = one.sealed()
            one.lose()

    def do_lie(self, at: str, to: str, how: str) -> None:
        """`at`, whose keys the liar has, says something wrong straight to the CometBFT of `to`, and is refused."""
        lies.tell(self, self.members[at], self.members[to], how)

    def do_flood(self, at: str, to: str, count: int) -> None:
        """So many transactions that say nothing go to the CometBFT of `to`."""
        lies.flood(self.members[at], self.members[to], count)

    def do_sign_twice(self, at: str) -> None:
        """A second CometBFT signs with the key of `at`, beside the first."""
        self._twin.start(self, self.members[at])

    def do_sign_once(self) -> None:
        """The second one ends, and `at` is an honest member again."""
        self._twin.end()

    def do_show_another_log(self, at: str) -> None:
        """In place of `at`, which does not run, its keys sign another history to whoever asks."""
        self._false_log = FalseLog(self.members[at], self.genesis.origin)

    def do_show_none(self) -> None:
        """That ends."""
        if self._false_log is not None:
            self._false_log.close()
        self._false_log = None

    # --- expect ----------------------------------------------------------------------------------------------------

    def expect_committed(self, of: Sequence[str], on: Sequence[str]) -> None:
        """Everything that `of` have sealed is final on `on`."""
        wanted = {one.node: max(1, one.sealed()) for one in self._of(of)}  # each has at least joined

        def reached() -> bool:
            return all(one.state().chain(node).sequence >= n for one in self._of(on) for node, n in wanted.items())

        until(reached, lambda: f"not committed: {self.report()}")

    def expect_regained(self, of: Sequence[str], on: Sequence[str]) -> None:
        """As many entries of `of` are final as it had made when it lost them, those too that only it had held."""

        def reached() -> bool:
            return all(one.state().chain(of_.node).sequence >= self._lost[of_.name] for one in on_ for of_ in ofs)

        ofs, on_ = self._of(of), self._of(on)
        until(reached, lambda: f"not regained: {self.report()}")

    def expect_still(self, on: Sequence[str]) -> None:
        """What waits is in every mempool of `on`, the vote on its block has come as far as it can, and none follows."""
        heights = [one.height() for one in self._of(on)]

        def voting(one: Hospital) -> bool:
            waiting = one.consensus("num_unconfirmed_txs")
            round_state = one.consensus("consensus_state")
            if waiting is None or round_state is None or waiting["n_txs"] == "0":
                return False
            return int(round_state["round_state"]["height/round/step"].split("/")[2]) >= 4  # RoundStepPrevote

        until(lambda: all(voting(one) for one in self._of(on)), lambda: f"no vote began: {self.report()}")
        assert [one.height() for one in self._of(on)] == heights

    def expect_viewed(self, at: Sequence[str]) -> None:
        """Each shows the study that it was sent last."""
        for one in self._of(at):
            status, found = one.get(f"/dicom-web/studies?StudyInstanceUID={self.studies[one.name][-1]}")
            assert (status, len(found)) == (200, 1)

    def expect_agreed(self, on: Sequence[str]) -> None:
        """Nothing waits anywhere, and all hold the same blocks."""

        def agreed() -> bool:
            return (
                not any(one.outbox() for one in self._of(on)) and len({str(o.committed()) for o in self._of(on)}) == 1
            )

        until(agreed, lambda: f"they do not agree: {self.report()}")

    def expect_quiet(self, on: Sequence[str]) -> None:
        """No block is made while nothing happens: every mempool is empty and the vote on the next has not begun."""

        def idle() -> bool:
            told = [(one.consensus("num_unconfirmed_txs"), one.consensus("consensus_state")) for one in self._of(on)]
            steps = [(n or {}).get("n_txs") == "0" and "/0/2" in str(c) for n, c in told]  # RoundStepNewRound
            return all(steps) and len({one.height() for one in self._of(on)}) == 1

        until(idle, lambda: f"it does not come to rest: {self.report()}")

    def expect_linked(self, on: Sequence[str]) -> None:
        """Each knows the records of all its own entries."""
        until(lambda: not any(one.unlinked() for one in self._of(on)), lambda: f"not linked: {self.report()}")

    def expect_verified(self, on: Sequence[str]) -> None:
        """`cairn ledger verify` finds nothing wrong."""
        for one in self._of(on):
            one.cairn("ledger", "verify")

    def expect_alert(self, rule: str, on: Sequence[str]) -> None:
        """`on` raise an alert of this rule."""
        until(lambda: all(rule in one.alerts() for one in self._of(on)), lambda: f"no alert {rule}: {self.report()}")

    def expect_evidence(self, against: str, on: Sequence[str]) -> None:
        """`on` name the member that lied, on the ledger and to people."""
        liar = self.members[against].node

        def named() -> bool:
            self.do_store(on[:1])  # evidence comes with the next block
            return all(any(found.node == liar for found in one.state().evidence) for one in self._of(on))

        until(named, lambda: f"no evidence: {self.report()}")
        told = self.members[on[0]].answer("consortium", "members")["evidence"]
        assert against in {found["member"] for found in told}

    def expect_lossy(self) -> None:
        """Packets did go through the bad lines, and some were lost there."""
        assert all(line.passed for line in self.switch.lines.values())
        assert sum(line.lost for line in self.switch.lines.values())

    # --- all of it -------------------------------------------------------------------------------------------------

    def take(self, step: dict[str, Any]) -> None:
        """One step of a description; `at`, `of` and `on` may be one name, or "all"."""
        verb = next(each for each in ("do", "expect") if each in step)
        arguments = {name: self._names(name, value) for name, value in step.items() if name != verb}
        method: Callable[..., None] = getattr(self, f"{verb}_{step[verb].replace('-', '_')}")
        method(**arguments)

    def heal(self) -> None:
        """Whatever a description left behind: all run, reach each other and agree."""
        self._twin.end()
        self.do_show_none()
        self.switch.mend()
        self.switch.join()
        for one in self.members.values():
            if not one.runs:
                one.start(ready=False)
        for one in self.members.values():
            one.resume()
            one.wait_ready()
        self.expect_agreed(list(self.members))

    def report(self) -> str:
        """Where each member stands, and its last words."""
        lines = [f"after {time.monotonic():.0f} s"]
        for one in self.members.values():
            lines.append(f"{one.name}: height {one.height()}, {one.committed()}, waits {one.outbox()[:3]}")
            lines.append(one.printed()[-600:])
        return "\n".join(lines)

    def _of(self, names: Sequence[str]) -> list[Hospital]:
        return [self.members[name] for name in names]

    def _names(self, argument: str, value: Any) -> Any:
        if value == "all":
            return list(self.members)
        return [value] if argument in ("of", "on") and isinstance(value, str) else value


@contextmanager
def consortium(folder: Path, names: Sequence[str]) -> Iterator[Consortium]:
    """A running consortium of new hospitals in `folder`, ended afterwards."""
    with Switch() as switch:
        members = {name: Hospital(folder, name, switch.attach(name)) for name in names}
        genesis = setup.found("network", time.time_ns() // 1000, [one.card for one in members.values()])
        network = Consortium(switch, members, genesis)
        try:
            for one in members.values():
                one.join(genesis)
                one.start(ready=False)
            for one in members.values():
                one.wait_ready()
            network.expect_committed(names, names)
            network.expect_agreed(names)
            yield network
        finally:
            for one in members.values():
                if one.runs:
                    one.power_cut()
                one.close_reading()
