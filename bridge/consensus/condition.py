"""How this node's part in consensus stands: told by the ledger's process, read by whoever shows it.

It lies in CAIRN_HOME/run, replaced whole and never synced: it is worth something while it is fresh, and no longer.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from bridge.consensus.roll_call import RollCall
from bridge.consensus.rpc import Rpc, RpcFault
from ledger.members import Member

__all__ = ["ANSWER_S", "FILE", "LEFT_BEHIND", "Condition", "Reporter", "follow", "read", "silent"]

log = logging.getLogger(__name__)
FILE: Final = Path("run") / "consensus.json"
LOOK_S: Final = 1.0
ANSWER_S: Final = 2.0
"""How long CometBFT is waited for: longer, and it does not answer."""
FRESH_S: Final = 5.0
"""It is written again after so many seconds, although nothing has changed."""
OLD_S: Final = 20.0
"""A condition this old is nobody's any more."""
LONGEST_WORDS: Final = 300
LEFT_BEHIND: Final = (
    "the other members have forgotten the blocks that follow this node's, and its CometBFT, which the node does not "
    "manage, waits for them for ever"
)
"""Why a CometBFT that somebody else starts cannot be used; one that is managed is mended by the node."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What hinders consensus at this node, and since when (microseconds since the epoch); `at` is when it was written.

    `cometbft` says why CometBFT cannot be used, `refused` in which words it refuses what waits here: empty when
    neither is so. `unheard` are the active members, by name, with whose CometBFT this node's has no connection, or who
    do not answer while entries wait here. `voteless`: the validator's key here is another than the members know.
    """

    at: int
    cometbft: str = ""
    cometbft_since: int | None = None
    refused: str = ""
    refused_since: int | None = None
    unheard: Mapping[str, int] = field(default_factory=dict)
    voteless: bool = False


def read(home: Path) -> Condition | None:
    """What was told last at a home; None when nothing was, or it cannot be read."""
    try:
        return Condition(**json.loads((home / FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class Reporter:
    """Looks every second, and writes what is new. One thread.

    Parameters
    ----------
    home
        The node's CAIRN_HOME.
    rpc
        CometBFT's; closed with this.
    own
        This node's id.
    active
        The members now.
    call
        Who does not answer while something waits; closed with this. None: nobody is asked.
    """

    def __init__(
        self,
        home: Path,
        rpc: Rpc,
        own: bytes,
        active: Callable[[], Sequence[Member]],
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        call: RollCall | None = None,
    ) -> None:
        self._call = call
        self._home, self._own, self._active, self._clock = home, own, active, clock
        self._rpc = rpc
        self._looked = 0
        self._told: Condition | None = None

    def step(self, cometbft: str | None, refused: str, waits: bool = False, voteless: bool = False) -> None:
        """Tell how it stands, when it is time for that.

        `cometbft`: why a managed one cannot be used; None: it can. `waits`: an entry has waited for its block longer
        than it takes where nothing hinders. `voteless`: as of `Condition`.
        """
        now = self._clock()
        if now - self._looked < LOOK_S * 1e6:
            return
        self._looked = now
        reason, unheard = cometbft or "", None
        if not reason:
            try:
                active = self._active()
                unheard = sorted({*silent(active, self._own, self._rpc.peers()), *self._late(active, waits)})
            except RpcFault as error:
                reason = str(error)
        found = follow(self._told, now, reason[:LONGEST_WORDS], refused[:LONGEST_WORDS], unheard)
        found = replace(found, voteless=voteless)
        former = self._told
        if former is None or found.at - former.at >= FRESH_S * 1e6 or replace(found, at=former.at) != former:
            self._told = found
            self._write(found)

    def close(self) -> None:
        """Forget what was told: nobody tells it any more."""
        self._rpc.close()
        if self._call is not None:
            self._call.close()
        (self._home / FILE).unlink(missing_ok=True)

    def _late(self, active: Sequence[Member], waits: bool) -> list[str]:
        """The names of those who do not answer, though CometBFT does not miss them yet."""
        if self._call is None:
            return []
        if not waits:
            self._call.forget()
            return []
        others = [member for member in active if member.node != self._own]
        self._call.step(others)
        silent = self._call.silent()
        return [member.name for member in others if member.node in silent]

    def _write(self, condition: Condition) -> None:
        path = self._home / FILE
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft.write_text(json.dumps(asdict(condition)), "utf-8")
            draft.replace(path)
        except OSError as error:
            log.warning("how consensus stands cannot be told: %s", error.strerror)


def silent(active: Sequence[Member], own: bytes, peers: Mapping[str, str]) -> list[str]:
    """The names, in order, of the active members, but this one, whose CometBFT is not among the peers (by id). Pure."""
    return sorted(one.name for one in active if one.node != own and one.card.address.partition("@")[0] not in peers)


def follow(former: Condition | None, now: int, cometbft: str, refused: str, unheard: Sequence[str] | None) -> Condition:
    """What is so now, since when it is so; `unheard` None: nobody could be asked, and nobody is blamed. Pure."""
    before = former or Condition(now)

    def since(said: str, was: str, at: int | None) -> int | None:
        return None if not said else at if was and at is not None else now

    return Condition(
        now,
        cometbft,
        since(cometbft, before.cometbft, before.cometbft_since),
        refused,
        since(refused, before.refused, before.refused_since),
        {name: before.unheard.get(name, now) for name in unheard or ()},
    )
