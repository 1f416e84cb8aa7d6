"""This node's part in a consortium: shared log, ABCI application and server, engine, and CometBFT as a child.

1. the log that the node kept alone is settled; its end becomes the node's first entry       Closed
2. the shared log's database                                                                  BlockStore
3. what CometBFT drives, at its socket                                                        ConsortiumApplication
4. what the sealer appends to; its outbox goes to CometBFT's mempool                          CometEngine
5. CometBFT, when it is managed: started, asked, started again                                Upkeep, a step at a time
6. members' cosignatures of each other's checkpoints                                          Cosigning, in a thread
7. what hinders all that, for who looks                                                       Reporter, a step at a time

What fails in 3 ends the process (`broken`): both are started afresh, and CometBFT has the application execute what it
had not committed.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from typing import Final, NamedTuple

from bridge import crash
from bridge.config import Settings
from bridge.consensus import home
from bridge.consensus.closing import closed_log
from bridge.consensus.condition import ANSWER_S, Reporter
from bridge.consensus.cosigning import open_cosigning
from bridge.consensus.roll_call import RollCall
from bridge.consensus.rpc import Rpc
from bridge.consensus.upkeep import Upkeep
from bridge.consortium import CARD, DATABASE, folder, own_consortium, read_genesis
from bridge.consortium_rotation import awaits_restart
from bridge.crypto.keystore import Keystore
from bridge.errors import ConfigError
from bridge.ledger_reading import actor_tags
from bridge.member_sources import MemberGateways
from ledger import genesis as ledger_genesis
from ledger import keys, members
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.abci.server import AbciServer
from ledger.block_store import BlockStore
from ledger.engine.cometbft import CometEngine, Membership
from ledger.errors import LedgerError
from ledger.genesis import Card, Genesis
from ledger.members import Member, State

log = logging.getLogger(__name__)
SYSTEM: Final = "system:ledger"
WAITS_S: Final = 2.0
"""An entry that is first of those that wait for this long waits for more than its turn."""


class _Identity(NamedTuple):
    """Who this node is: its id in the ledger, its name, and the keys that sign for it."""

    node: bytes
    name: str
    signer: keys.Signer
    cosigner: keys.Signer


class Participant:
    """Opened by the thread that calls `step` from time to time, for CometBFT dies with it.

    Raises ConfigError when the home is not set up, or CometBFT's socket cannot be had; what the ledger's databases
    raise goes through.
    """

    def __init__(self, settings: Settings, keystore: Keystore) -> None:
        self.broken = threading.Event()
        self._settings = settings
        self._genesis = read_genesis(settings.home)
        path = folder(settings.home) / DATABASE
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            closed, former = closed_log(settings, keystore)  # (1)
            opened.callback(former.close)
            self._store = store = BlockStore(path)  # (2)
            opened.callback(store.close)
            self._who = who = _identity(settings, keystore, self._genesis, store)
            self.application = ConsortiumApplication(  # (3)
                store,
                self._genesis,
                Signers(who.node, who.signer, who.cosigner, who.name),
                lambda: int(time.time()),
                self._committed,
                self._strayed,
                keep_from=lambda: self._upkeep.keep_from() if self._upkeep is not None else 0,
                step=crash.step,
            )
            self._upkeep: Upkeep | None = None
            self._rpc = Rpc(settings.ledger.cometbft.rpc)
            self.engine: CometEngine | None = None
            member = Membership(self._genesis.ledger, who.node, who.signer, actor_tags(keystore)("actor", SYSTEM))
            self.engine = CometEngine(  # (4)
                store, path.parent, member, self._submit, closed, former, step=crash.step
            )
            self._cosigning = open_cosigning(  # (6)
                *(settings, keystore, store, who.node, lambda: self.application.state, self.engine.publish_cosigned)
            )
            opened.pop_all()
        self._server = AbciServer(home.abci_of(settings), self.application, self._fault)
        try:
            self._server.start()
        except (OSError, ValueError) as error:
            self._cosigning.close()
            self.engine.close()
            raise ConfigError(f"ledger.cometbft.abci: {error}") from error
        self._cosigning.start()
        others = own_consortium(settings, keystore)
        assert others is not None
        self._others = MemberGateways(others, settings.members)
        asked, active = Rpc(settings.ledger.cometbft.rpc, ANSWER_S), lambda: self.application.state.active
        self._callers = MemberGateways(others, settings.members, rests=False)
        self._reporter = Reporter(settings.home, asked, who.node, active, call=RollCall(self._callers.of))  # (7)
        self._first: tuple[bytes, float] | None = None
        self._upkeep = Upkeep(settings, self._genesis, self._known(), active, self._height, self._others)

    @property
    def reason(self) -> str | None:
        """Why a managed CometBFT cannot be used now; None while it serves."""
        return self._upkeep.reason if self._upkeep is not None else None

    def step(self) -> None:
        """(5) Look after CometBFT once; (7)."""
        if self._upkeep is not None:
            self._upkeep.step()
        refused = self.engine.refused if self.engine is not None else ""
        self._reporter.step(self.reason, refused, self._waits(), self._voteless())

    def awaits_key(self, keystore: Keystore) -> bool:
        """Whether the members have accepted another ledger key of this node than the one in use."""
        own = self.application.state.members.get(self._who.node)
        return own is not None and awaits_restart(own, keystore)

    def close(self) -> None:
        """End CometBFT first, so that it never waits for an answer; then the rest."""
        self._callers.close()
        self._reporter.close()
        if self._upkeep is not None:
            self._upkeep.close()
        self._server.close()
        self._cosigning.close()
        self._others.close()
        if self.engine is not None:
            self.engine.close()
        self._rpc.close()

    def _waits(self) -> bool:
        """Whether one entry has been the first of those that wait for long."""
        first, now = self._store.outbox(1), time.monotonic()
        if not first:
            self._first = None
        elif self._first is None or self._first[0] != first[0].leaf:
            self._first = first[0].leaf, now
        return self._first is not None and now - self._first[1] >= WAITS_S

    def _voteless(self) -> bool:
        """Whether this member has a vote, and its own CometBFT another validator's key than the members know."""
        own = self.application.state.members.get(self._who.node)
        made = self._upkeep.validator if self._upkeep is not None else None
        return own is not None and own.power > 0 and made is not None and made != own.card.consensus

    def _submit(self, tx: bytes) -> tuple[int, str]:
        told = self._rpc.submit(tx)
        return told.code, told.log

    def _committed(self) -> None:
        if self.engine is not None:
            self.engine.committed()
            self._cosigning.committed()
        known = self.application.state.of_key(keys.raw(self._who.signer.public_key()))
        if known is not None and known.node != self._who.node:
            log.warning("this node's id was that of an earlier key: it begins again")
            self.broken.set()

    def _strayed(self) -> None:
        if self.engine is not None:
            self.engine.strayed()

    def _fault(self, error: Exception) -> None:
        log.error("the ABCI application failed: %s", type(error).__name__)
        self.broken.set()

    def _height(self) -> int:
        return self.application.info().height

    def _known(self) -> tuple[str, bool]:
        """This member's name, and whether the genesis has its key."""
        own = keys.raw(self._who.signer.public_key())
        return self._who.name, own in {card.key for card in self._genesis.cards}


def _identity(settings: Settings, keystore: Keystore, genesis: Genesis, store: BlockStore) -> _Identity:
    """Who this node is, by its ledger key: in the state, else in the genesis, else by its card. Raises ConfigError."""
    signer = keys.SigningKey(keystore.signing_seed)
    key = keys.raw(signer.public_key())
    state: State = store.consensus().state() or members.initial(genesis)
    found: Member | None = state.of_key(key)
    name = found.name if found is not None else _card(settings).name
    return _Identity(
        found.node if found is not None else keys.node_id(key),
        name,
        signer,
        ledger_genesis.cosigner_key(keystore.signing_seed),
    )


def _card(settings: Settings) -> Card:
    path = folder(settings.home) / CARD
    try:
        return ledger_genesis.parse_card(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError, LedgerError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
