"""Keeping a managed CometBFT in step with the consortium: what it starts from, and when it is started afresh.

1. a node without a state takes one over from two members, or executes every block           StateSyncSource
2. one that was away until the others forgot the blocks that follow takes over a state, too   LeftBehind
3. a member's CometBFT moved: CometBFT dials who it was started with, so it is started again
4. where the validators changed, light blocks are kept before CometBFT forgets them           LightBlocks
5. a validator that lost the record of its votes signs again where it cannot have signed      forgotten_votes
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from bridge.child_watch import NotYet, Watch
from bridge.config import Settings
from bridge.consensus import configuration, home
from bridge.consensus.condition import LEFT_BEHIND
from bridge.consensus.configuration import StateSync
from bridge.consensus.daemon import BLOCKS, MANNER, ManagedCometBFT, Plan
from bridge.consensus.forgotten_votes import signed_at_most
from bridge.consensus.left_behind import LeftBehind
from bridge.consensus.light_blocks import FOLDER, LightBlocks
from bridge.consensus.rpc import Rpc, RpcFault
from bridge.consensus.rpc_proxy import Client, StateSyncSource, where_to_start
from bridge.errors import ConfigError, StorageFault
from bridge.member_sources import MemberGateways
from ledger.genesis import Genesis
from ledger.members import Member

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)
MOVE_S: Final = 3.0
"""Members start their CometBFTs one after another when one has moved, so many seconds apart."""
DRAIN_S: Final = 10.0
ANSWER_S: Final = 2.0


class Upkeep:
    """One CometBFT of this node. `step` is called by the thread that opened it, about once a second.

    Parameters
    ----------
    who
        This member: its name, and whether the genesis names it, so that it may begin with nobody's help.
    members
        The active members now.
    height
        The newest height that left something here.
    """

    def __init__(
        self,
        settings: Settings,
        genesis: Genesis,
        who: tuple[str, bool],
        members: Callable[[], Sequence[Member]],
        height: Callable[[], int],
        others: MemberGateways,
    ) -> None:
        self._settings, self._genesis, self._members, self._height = settings, genesis, members, height
        self._name, self._first = who
        self._others = others
        self._home = home.home_of(settings)
        self._source = StateSyncSource()
        self._dialled: Mapping[str, str] = {}
        self._moved_at: float | None = None
        self._rpc = Rpc(settings.ledger.cometbft.rpc, ANSWER_S)
        self._light = LightBlocks(settings.home / FOLDER)
        managed = settings.ledger.cometbft.managed
        self._behind = LeftBehind(settings.ledger.cometbft.rpc, self._clients, again=not managed)
        self._watch = Watch(ManagedCometBFT(settings, self._plan), MANNER) if managed else None
        self._behind.start()

    @property
    def reason(self) -> str | None:
        """Why CometBFT cannot be used now: a managed one while it does not serve, another when it was left behind."""
        if self._watch is not None:
            return self._watch.reason
        return LEFT_BEHIND if self._behind.found.is_set() else None

    @property
    def validator(self) -> bytes | None:
        """The key that a managed CometBFT signs blocks with (32 bytes); None when it is not known."""
        with suppress(ConfigError):
            return home.identity(self._home).consensus if self._watch is not None else None
        return None

    def keep_from(self) -> int:
        """The height from which CometBFT is to keep its blocks; 0: it keeps all."""
        kept = self._settings.ledger.cometbft.keep_blocks
        return min(self._height() - kept, self._light.upto) if kept else 0

    def step(self) -> None:
        """Look after it once."""
        if self._watch is not None:
            if self._behind.found.is_set() and self.reason is None:  # (2)
                self._watch.renew("the others have forgotten the blocks that follow: a state is taken over", DRAIN_S)
            elif self._has_moved():  # (3)
                self._watch.renew("a member's CometBFT has another address", DRAIN_S)
            self._watch.step()
        if self.reason is None and self._has_blocks():
            if self._source.open:
                home.took_over(self._home)
                self._source.close()
            self._keep_light()  # (4)

    def close(self) -> None:
        """End it, then what it asked."""
        self._behind.close()
        if self._watch is not None:
            self._watch.end(DRAIN_S)
        self._source.close()
        self._rpc.close()

    def _clients(self) -> Sequence[Client]:
        return [self._others.of(member.node) for member in self._others.others() if member.active]

    def _plan(self) -> Plan:
        peers = [member.card.address for member in self._members()]
        start = self._state_sync()
        self._sign_again()
        self._dialled, self._moved_at = _places(self._members()), None
        return Plan(self._genesis, self._name, peers, start, self._height())

    def _state_sync(self) -> StateSync | None:
        """(1), (2) From where to take over a state; None when there is one, or every block is to be executed.

        Raises NotYet while no member answers that could give one, or their newest block is too old to be trusted.
        """
        behind = self._behind.found.is_set() or home.takes_over(self._home)
        if self._height() and (self._home / BLOCKS).exists() and not behind:
            return None
        start = where_to_start(self._clients())
        if not start.answered and not self._first:
            raise NotYet("no member answers this node yet: it takes part when they have voted it in")
        if behind:
            if not start.height:
                raise NotYet(
                    "the others have forgotten the blocks that follow, and two of them must answer, with a block of "
                    "the last days, for a state to be taken over: it is tried again"
                )
            self._behind.found.clear()
        if start.height and self._height():
            home.forget_blocks(self._home)
        return self._source.from_(start) if start.height else None

    def _sign_again(self) -> None:
        """(5) Without the record of what it signed last the validator waits, until it is known what that can be."""
        own = home.forgot_votes(self._home)
        if own is None:
            return
        others = [(one.card.validator, self._others.of(one.node)) for one in self._others.others() if one.active]
        trusted = {member.card.consensus: member.power for member in self._members() if member.power}
        height = signed_at_most(own, others, trusted, self._genesis.chain_id)
        if height is not None:
            home.write(self._home / home.VALIDATOR_STATE, configuration.validator_state(height))
            log.warning("what this validator signed last was lost: it signs again behind the blocks that may be of it")

    def _has_moved(self) -> bool:
        """Whether it is time to start CometBFT again, since one that it was started with has another address."""
        now = _places(self._members())
        if all(now.get(id, place) == place for id, place in self._dialled.items()):
            return False
        if self._moved_at is None:
            names = sorted(member.name for member in self._members())
            self._moved_at = time.monotonic() + MOVE_S * (names.index(self._name) if self._name in names else 0)
        return time.monotonic() >= self._moved_at

    def _has_blocks(self) -> bool:
        """Whether CometBFT has a block: while it takes over a state it has none, though this node may have a state."""
        if not self._source.open:
            return self._height() > 0
        try:
            return self._rpc.status().height > 0
        except RpcFault:
            return False

    def _keep_light(self) -> None:
        if not self._settings.ledger.cometbft.keep_blocks:
            return
        try:
            self._light.follow(self._rpc, self._height())
        except RpcFault as error:
            log.debug("light blocks are looked at later: %s", error)
        except StorageFault as error:
            log.warning("%s", error.detail)


def _places(members: Sequence[Member]) -> Mapping[str, str]:
    """Where CometBFT finds each member's, by its id among peers."""
    parted = [member.card.address.partition("@") for member in members]
    return {id: place for id, _, place in parted}
