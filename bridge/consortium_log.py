"""The log of a node in a consortium: the shared one, and behind it the one that the node kept before it joined."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from bridge.audit.following import Followed
from bridge.audit.resolving import HospitalOf
from bridge.audit.trail import LedgerTrail
from bridge.config import Settings
from bridge.consensus.cosigning import EQUIVOCATION
from bridge.consortium import SharedConsortium
from bridge.crypto.keystore import Keystore
from bridge.errors import NotFound, StorageFault
from bridge.index.record_leaves import RecordLeaves
from bridge.ledger_log import Cosignatures, LedgerFiles, Opener
from bridge.ledger_reading import ledger_home, origin_of, public_key, shared_ledger_home, unreadable
from bridge.ports import Consortium
from ledger import checkpoint, keys
from ledger.alerts import Misconduct
from ledger.block_store import BlockStore
from ledger.engine.solo import DATABASE
from ledger.errors import LedgerError, NotMadeYet
from ledger.shared_policy import policy_text
from ledger.store import LedgerStore, StoredEntry
from ledger.tile_files import TileFiles


class MemberCosignatures:
    """`bridge.ledger_log.Cosignatures` of the shared log: the members', as the ledger's process has exchanged them.

    Thread-safe; opens the log's database at its first use. Each method raises StorageFault.
    """

    def __init__(self, database: Path, origin: str, consortium: Consortium) -> None:
        self._path, self._origin, self._consortium = database, origin, consortium
        self._lock = threading.Lock()
        self._store: BlockStore | None = None

    def lines(self, size: int) -> Sequence[str]:
        """The other members' cosignature lines of the checkpoint of that size; this node's own is in it."""
        own = self._consortium.own()
        held = self._held(size)
        return [line for name, line in held.items() if own is None or name != own.name]

    def newest(self, least: int) -> int | None:
        """The largest size, of at least `least`, whose checkpoint more than two thirds of the members cosigned."""
        own, state = self._consortium.own(), self._consortium.state()
        others = {member.name for member in state.active if own is None or member.node != own.node}
        needed = state.quorum - (own is not None and own.active)
        with self._lock:
            try:
                store = self._opened()
                if store is None:
                    return None
                if not needed:  # this node's own is enough
                    size = store.size()
                    return size if size >= least else None
                sizes = store.cosigned_sizes(least)
                return next((size for size, names in sizes if len(names & others) >= needed), None)
            except (LedgerError, OSError) as error:
                raise self._failed(error) from error

    def policy(self, log_key: str) -> str:
        """The trust policy of the log: its members' keys, and how many must have cosigned."""
        return policy_text(self._consortium.state(), self._origin)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = None

    def _held(self, size: int) -> dict[str, str]:
        with self._lock:
            try:
                store = self._opened()
                return {} if store is None else store.cosignatures(size)
            except (LedgerError, OSError) as error:
                raise self._failed(error) from error

    def _opened(self) -> BlockStore | None:
        if self._store is None and self._path.exists():
            with suppress(NotMadeYet):
                self._store = BlockStore(self._path, readonly=True)
        return self._store

    def _failed(self, error: Exception) -> StorageFault:
        if self._store is not None:
            self._store.close()
        self._store = None
        return unreadable("the shared log", error)


class SharedFiles(LedgerFiles):
    """`LedgerFiles` over the shared log. `node` is the id of this node, whose records are proved."""

    node: bytes = b""

    def _opened(self) -> LedgerStore:
        return BlockStore(self._database, readonly=True)

    def _over(self, store: LedgerStore, root: bytes) -> StoredEntry | None:
        # A root is chosen by whoever signs it: another member may have an entry over the same one.
        assert isinstance(store, BlockStore)
        return store.entry_over(root, self.node)

    def waits(self, id: bytes) -> bool:
        """Whether this is an entry of this node that waits for consensus."""
        with self._reading() as store:
            return isinstance(store, BlockStore) and store.waiting_at(leaf=id) is not None


class ConsortiumLog:
    """`bridge.ports.LedgerLog`: the shared log; entries and records of the node's former log are proved from that.

    Parameters
    ----------
    shared, former
        The two logs.
    cosignatures
        Of the shared one; closed with it.
    """

    def __init__(self, shared: SharedFiles, former: LedgerFiles, cosignatures: MemberCosignatures) -> None:
        self._shared, self._former, self._cosignatures = shared, former, cosignatures

    def key(self, of: bytes | None = None) -> str:
        """This node's verifier key in the shared log, under which alone its own entries hold; or in the former one."""
        if of is not None:
            try:
                self._shared.envelope(of)
            except NotFound:
                return self._former.key()
        return self._shared.key()

    def policy(self) -> str:
        """What trusting the shared log asks for (C2SP tlog-policy)."""
        return self._shared.policy()

    def checkpoint(self) -> str | None:
        """The newest checkpoint of the shared log with the cosignatures that there are of it yet."""
        return self._shared.checkpoint()

    def signed(self, size: int | None = None) -> str | None:
        """A checkpoint of the shared log as this node signed and cosigned it."""
        return self._shared.signed(size)

    def file(self, path: str) -> bytes:
        """A tile or entry bundle of the shared log. Raises NotFound."""
        return self._shared.file(path)

    def envelope(self, id: bytes) -> bytes:
        """The signed envelope of an entry of either log. Raises NotFound."""
        try:
            return self._shared.envelope(id)
        except NotFound:
            return self._former.envelope(id)

    def prove(self, id: bytes) -> str:
        """The proof of an entry or record of either log, under that log's checkpoint. Raises NotFound."""
        try:
            return self._shared.prove(id)
        except NotFound as waits:
            try:
                return self._former.prove(id)
            except NotFound:
                if self._shared.waits(id):
                    raise NotFound("the entry waits for consensus; ask again in a while") from None
                raise waits from None

    def prove_at(self, id: bytes, size: int) -> str:
        """The proof of an entry or record of the shared log under its checkpoint of that size. Raises NotFound."""
        return self._shared.prove(id, size)

    def consistency(self, first: int, second: int) -> Sequence[bytes]:
        """The consistency proof between two sizes of the shared log. Raises NotFound beyond it."""
        return self._shared.consistency(first, second)

    def close(self) -> None:
        """Close both."""
        self._shared.close()
        self._former.close()
        self._cosignatures.close()


def followed(settings: Settings) -> list[Followed]:
    """The databases of a node's logs, in order: its own, and in a consortium the shared one behind it."""
    own = Followed(ledger_home(settings) / DATABASE)
    return [own] if settings.ledger.engine == "solo" else [own, Followed(shared_ledger_home(settings) / DATABASE, True)]


def open_log(
    settings: Settings,
    keystore: Keystore,
    consortium: SharedConsortium | None,
    leaves: RecordLeaves,
    open_record: Opener,
    trail: LedgerTrail,
    witnessed: Cosignatures | None,
) -> LedgerFiles | ConsortiumLog:
    """The log that a node serves and proves from. `witnessed` is what others cosigned of a log of its own."""
    home, origin, key = ledger_home(settings), origin_of(settings, keystore), public_key(keystore)
    if consortium is None:
        return LedgerFiles(home, origin, key, leaves, open_record, trail.places, witnessed)
    first = keys.raw(former_key(settings, keystore, consortium))
    former = LedgerFiles(home, origin, first, leaves, open_record, trail.places)
    place, shared_origin = shared_ledger_home(settings), consortium.genesis.origin
    cosigned = MemberCosignatures(place / DATABASE, shared_origin, consortium)
    places = partial(trail.places, log=1)
    shared = SharedFiles(place, shared_origin, key, leaves, open_record, places, cosigned)
    shared.node = own_node(consortium, keystore).id
    return ConsortiumLog(shared, former, cosigned)


class OwnNode(NamedTuple):
    """This node in the ledger: its id, and the first of its ledger keys."""

    id: bytes
    first: bytes


def own_node(consortium: Consortium, keystore: Keystore) -> OwnNode:
    """By its ledger key; as it will be when it is not taken in yet."""
    member = consortium.own()
    key = keys.raw(public_key(keystore)) if member is None else member.keys[0].key
    return OwnNode(keys.node_id(key), key)


def former_key(settings: Settings, keystore: Keystore, consortium: Consortium) -> bytes:
    """The key of the log that this node kept alone: its first ledger key, unless it lost that with its disk."""
    member = consortium.own()
    known = [keys.raw(public_key(keystore))] if member is None else [row.key for row in member.keys]
    note = TileFiles(ledger_home(settings)).checkpoint()
    for key in known if note is not None else ():
        with suppress(LedgerError):
            checkpoint.verify(note or "", origin_of(settings, keystore), key)
            return key
    return known[0]


def hospitals(consortium: Consortium | None) -> HospitalOf:
    """The names of members by the ids of their nodes; "" for all without a consortium."""

    def name(node: bytes) -> str:
        if consortium is None:
            return ""
        try:
            member = consortium.state().members.get(node)
        except StorageFault:
            member = None
        return node.hex() if member is None else member.name

    return name


def misconduct(consortium: SharedConsortium) -> list[Misconduct]:
    """What was proved against members, by blocks and by what they cosigned. Raises StorageFault."""
    found, name = [], hospitals(consortium)
    for row in consortium.evidence():
        rule: Literal["double-sign", "equivocation"] = "equivocation" if row.kind == EQUIVOCATION else "double-sign"
        place = f"{row.height:,} entries" if rule == EQUIVOCATION else f"height {row.height:,} ({row.kind})"
        found.append(Misconduct(rule, row.node, name(row.node), row.time_ns // 1000, row.height, place))
    return found
