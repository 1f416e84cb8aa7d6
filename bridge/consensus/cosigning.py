"""Members exchange their cosignatures of the shared log's checkpoints, in a thread of the ledger's process.

    (1) the newest checkpoint that this node committed, signed and cosigned by it with the commit
    (2) which members' lines are not held of it yet; each is asked for its own checkpoint of that size
    (3) what a member gives is verified: its log signature, its cosignature, the size, and that its root is the one here
    (4) its line is kept, for proofs
    (5) with lines of more than two thirds of the members, the checkpoint is published

At most once a second, and nothing while all lines are held and nothing is committed. A member that is a block behind
has nothing yet and is asked again. A member that signed another root for the same size signed another history: that is
kept as evidence against it, and nothing else of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from bridge.config import Settings
from bridge.consortium import own_consortium, read_genesis
from bridge.crypto.keystore import Keystore
from bridge.errors import CairnError, EngineFault
from bridge.member_sources import MemberGateways
from ledger import checkpoint
from ledger.block_store import BlockStore, Proved
from ledger.errors import LedgerError
from ledger.members import Member, State
from ledger.shared_policy import cosignature_of

log = logging.getLogger(__name__)
PATH: Final = "/consortium/cosignature/"
PAUSE_S: Final = 1.0
PATIENCE_S: Final = 5.0
"""How long a checkpoint without a quorum is asked for while newer ones come."""
AT_ONCE: Final = 8
EQUIVOCATION: Final = "equivocation"


class Clients(Protocol):
    """Active members' listeners."""

    def __call__(self, node: bytes) -> Client:
        """The one of a member. Raises EngineFault."""

    def close(self) -> None:
        """Close what is open."""


class Client(Protocol):
    """A member's listener (`bridge.content.gateway_client.GatewayClient`)."""

    def ask(self, method: str, path: str) -> Any:
        """The JSON that it answers. Raises EngineFault, ContentMissing, RequestError."""


class Cosigning:
    """The exchange over one shared log.

    Parameters
    ----------
    store
        The log's database, open for writing in this process.
    origin
        The log's name in checkpoints.
    own
        This node's id.
    state
        The members now.
    clients
        Other members' listeners; closed with this.
    cosigned
        Given a size and its checkpoint with the lines that are held, each time that there are more of a quorum of them.
    """

    def __init__(
        self,
        store: BlockStore,
        origin: str,
        own: bytes,
        state: Callable[[], State],
        clients: Clients,
        cosigned: Callable[[int, str], None] = lambda size, note: None,
        clock: Callable[[], float] = time.monotonic,
        time_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store, self._origin, self._own, self._state = store, origin, own, state
        self._clients, self._cosigned, self._clock, self._time_ns = clients, cosigned, clock, time_ns
        self._asked: set[bytes] = set()
        self._lock = threading.Lock()
        self._wanted = 0  # the size of the checkpoint that is asked for
        self._since = 0.0
        self._published = 0, 0  # the size of the checkpoint that was published, and how many had cosigned it
        self._pool = ThreadPoolExecutor(AT_ONCE, "cosignatures")
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cosigning", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def committed(self) -> None:
        """To be called after each commit, from any thread."""
        self._wake.set()

    def close(self) -> None:
        """End; requests under way are given up."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._clients.close()  # which ends requests under way
        self._pool.shutdown(wait=False, cancel_futures=True)  # a member that is going too may take long to say nothing

    def step(self) -> bool:
        """(1), (2), (5) once: ask those whose lines are missing; whether any is. (3), (4) follow when they answer."""
        note = self._store_note()
        if note is None:
            return False
        newest = checkpoint.parse(checkpoint.split_note(note)[0]).size
        missing = self._missing(self._wanted) if self._wanted else []
        if newest > self._wanted and (not missing or self._is_settled(missing)):
            self._wanted, self._since = newest, self._clock()
            self._keep_own(newest, note)
            missing = self._missing(newest)
        self._publish(self._wanted)
        for member in missing:
            with self._lock:
                if member.node in self._asked:
                    continue
                self._asked.add(member.node)
            self._pool.submit(self._ask, member, self._wanted)
        return bool(missing) or newest > self._wanted

    def _store_note(self) -> str | None:
        with self._store.mutex:
            return self._store.checkpoint()

    def _missing(self, size: int) -> list[Member]:
        """The active members, but this one, whose line for a size is not held."""
        held = self._store.cosignatures(size)
        return [member for member in self._state().active if member.node != self._own and member.name not in held]

    def _keep_own(self, size: int, note: str) -> None:
        """This node's own line beside those of the others."""
        own = self._state().members.get(self._own)
        if own is not None and own.active and own.name not in self._store.cosignatures(size):
            self._store.add_cosignature(size, own.name, cosignature_of(note, own, self._origin)[1])

    def _publish(self, size: int) -> None:
        """(5)"""
        state = self._state()
        with self._store.mutex:
            note, held = self._store.checkpoint(size), self._store.cosignatures(size)
        lines = [held[member.name] for member in state.active if member.name in held]
        if note is not None and len(lines) >= state.quorum and self._published != (size, len(lines)):
            self._cosigned(size, note + "".join(line for line in lines if line not in note))
            self._published = size, len(lines)

    def _is_settled(self, missing: Iterable[Member]) -> bool:
        """Whether it need not be asked for any more: a quorum is held, or it was asked for long enough."""
        state = self._state()
        held = len(state.active) - len(list(missing))
        return held >= state.quorum or self._clock() - self._since >= PATIENCE_S

    def _ask(self, member: Member, size: int) -> None:
        try:
            answer = self._clients(member.node).ask("GET", f"{PATH}{size}")
            note = answer.get("checkpoint") if isinstance(answer, dict) else None
            if isinstance(note, str) and not self._ended.is_set():
                self._take(member, size, note)
        except CairnError as error:
            log.debug("no cosignature yet: %s", error.detail)
        except LedgerError as error:
            log.warning("a member gives a checkpoint that does not hold: %s", error.detail, extra={"peer": member.name})
        finally:
            with self._lock:
                self._asked.discard(member.node)

    def _take(self, member: Member, size: int, note: str) -> None:
        head, line = cosignature_of(note, member, self._origin)  # (3)
        with self._store.mutex:
            own = self._store.checkpoint(head.size)
        if own is None:
            return
        if checkpoint.parse(checkpoint.split_note(own)[0]).root != head.root:
            proved = Proved(EQUIVOCATION, member.node, head.size, self._time_ns(), note.encode())
            if self._store.add_evidence(proved):
                log.error("a member signed another history of the shared log", extra={"peer": member.name})
            return
        if head.size == size:
            self._store.add_cosignature(size, member.name, line)  # (4)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                more = self.step()
            except (LedgerError, OSError):
                log.exception("cosignatures cannot be exchanged now")
                more = True
            if not more:
                self._wake.wait()
            self._wake.clear()
            self._ended.wait(PAUSE_S)


class MemberClients:
    """The listeners of the consortium's other members, for the ledger's process."""

    def __init__(self, settings: Settings, keystore: Keystore) -> None:
        self._consortium = own_consortium(settings, keystore)
        members = settings.members
        known = self._consortium is not None and members.certificate is not None
        self._gateways = None
        if known and self._consortium is not None:
            self._gateways = MemberGateways(self._consortium, members, rests=False)  # each is asked once a second

    def __call__(self, node: bytes) -> Client:
        """A member's listener. Raises EngineFault, also where this node has no certificate to show."""
        if self._gateways is None:
            raise EngineFault("this node has no certificate to ask other members with")
        return self._gateways.of(node)

    def close(self) -> None:
        """Close connections and database."""
        for one in (self._gateways, self._consortium):
            if one is not None:
                one.close()


def open_cosigning(
    settings: Settings,
    keystore: Keystore,
    store: BlockStore,
    own: bytes,
    state: Callable[[], State],
    cosigned: Callable[[int, str], None],
) -> Cosigning:
    """The exchange of this node over the members' listeners; not started yet."""
    origin = read_genesis(settings.home).origin
    return Cosigning(store, origin, own, state, MemberClients(settings, keystore), cosigned)
