"""The engine of a consortium: CometBFT orders the members' entries, this node's wait in a durable outbox until then.

`append` puts what was sealed into the outbox, in one transaction with the cursor; `ledger.engine.outbox` hands it over
until the application itself has seen it in a block. It leaves the outbox in the transaction of that block. So nothing
is lost when consensus stands still, when CometBFT forgets its mempool, or at a kill -9 anywhere; and nothing is taken
twice, for a node's sequences are taken once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from ledger import checkpoint, entry, keys, merkle, terms
from ledger.block_store import BlockStore
from ledger.engine import Position, Sealed
from ledger.engine.outbox import RESEND_S, Broadcast, Outbox
from ledger.entry import Entry, Who
from ledger.errors import ChainBroken, LedgerError, TreeMismatch
from ledger.publication import LOG_LIMIT, Publication
from ledger.source import ClosedBatch, Cursor
from ledger.store import FOREIGN, LedgerStore
from ledger.tile_files import TileFiles

log = logging.getLogger(__name__)
JOIN: Final = "ledger.join"


class Closed(NamedTuple):
    """The log that a node kept before it joined: its origin, size and root, and how far it had read its source."""

    origin: str
    size: int
    root: bytes
    cursor: Cursor

    @classmethod
    def of(cls, store: LedgerStore) -> Closed:
        """What a solo log ends with; raises LedgerError when that has no checkpoint."""
        note, state = store.checkpoint(), store.state()
        if note is None:
            raise TreeMismatch("the log that is to be closed has no checkpoint", "checkpoint")
        head = checkpoint.parse(checkpoint.split_note(note)[0])
        if (head.size, head.root) != (state.frontier.size, state.frontier.root()):
            raise TreeMismatch("the newest checkpoint is not of the tree", "checkpoint")
        return cls(head.origin, head.size, head.root, state.cursor)


class Membership(NamedTuple):
    """This node in the consortium: the ledger's id, its node id, what signs its entries, the tag of the system."""

    ledger: bytes
    node: bytes
    signer: keys.Signer
    actor: bytes


class CometEngine:
    """`ledger.engine.Engine` over the shared log in `home`, whose database `store` the application commits to.

    Parameters
    ----------
    broadcast
        How a transaction gets to CometBFT; asked from the engine's own thread.
    closed, former
        The node's log before, which its first entry in this one states; its database, which is asked for batches that
        were sealed there. None: there was none that could be asked.
    step
        Called with the name of each step that a crash may come at, for tests.

    `committed` is to be called after each commit, `strayed` when a block did not take this node's transaction. Raises
    TreeMismatch when the newest checkpoint is not of the tree.
    """

    def __init__(
        self,
        store: BlockStore,
        home: Path,
        member: Membership,
        broadcast: Broadcast,
        closed: Closed,
        former: LedgerStore | None = None,
        resend_s: float = RESEND_S,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._store, self._member, self._former = store, member, former
        self._step, self._closed_at = step, closed.cursor
        self._published = Publication(store, TileFiles(home))
        self._outbox = Outbox(store, broadcast, resend_s, step)
        self._linked = -1, 0  # at which size of the log it was asked last how many are not linked, and how many
        with store.writing():
            self._recover()
            self._join(closed)
        self._outbox.start()

    @property
    def ledger_id(self) -> bytes:
        """The 8 bytes that every entry names."""
        return self._member.ledger

    @property
    def refused(self) -> str:
        """Why the transaction at the head of the outbox was refused when it was handed over last; empty: it was not."""
        return self._outbox.refused

    def position(self) -> Position:
        """Where this node's chain stands, with what waits."""
        with self._store.mutex:
            waiting = self._store.last_waiting()
            last = (waiting.sequence, waiting.envelope) if waiting else self._store.tip_of(self._member.node)
            cursor = self._store.state().cursor
        if not cursor.epoch:  # what waited was superseded: all batches since the node joined are looked at again
            cursor = self._closed_at
        sequence, previous = (last[0] + 1, entry.envelope_hash(last[1])) if last else (0, entry.GENESIS)
        return Position(self._member.ledger, self._member.node, sequence, previous, cursor)

    def append(self, entries: Sequence[Sealed], cursor: Cursor) -> None:
        """Put a run into the outbox and move the cursor; the submitter does the rest."""
        with self._store.writing():
            first = self.position().sequence
            if [sealed.entry.sequence for sealed in entries] != list(range(first, first + len(entries))):
                raise ChainBroken("the entries do not continue this node's sequence", f"entry {first}")
            self._step("append.1")
            self._store.put(entries, cursor)
            self._step("append.2")
        self._outbox.turn()

    def held(self, records_roots: Sequence[bytes], epoch: bytes) -> set[bytes]:
        """Those of the roots, of batches of this epoch, over whose records an entry was taken under another."""
        found: set[bytes] = set()
        if self._former is not None and not self._former.made_under(epoch):
            found |= self._former.sealed(records_roots)
        if self._store.sealed_otherwise(self._member.node, epoch):
            found |= self._store.own_sealed(records_roots, self._member.node)
        return found

    def unlinked(self) -> int:
        """As the port; none while a snapshot is being taken in."""
        with self._store.mutex:
            if not self._whole():
                return 0
            size = self._store.size()
            if size != self._linked[0]:
                self._linked = size, self._store.unlinked(self._member.node)
            return self._linked[1]

    def link(self, batches: Sequence[ClosedBatch], epoch: bytes) -> int:
        """As the port; one transaction."""
        with self._store.writing():
            linked = self._store.link(batches, epoch, self._member.node)
            self._linked = -1, 0
        return linked

    def committed(self) -> None:
        """To be called after each commit of the application, from any thread."""
        self._outbox.turn()

    def strayed(self) -> None:
        """To be called, from any thread, when a block held a transaction of this node and did not take it."""
        self._outbox.strayed()

    def publish(self) -> None:
        """Write the tiles that are new, and the newest checkpoint."""
        with self._store.writing():
            self._publish()
            if self._store.log_size() > LOG_LIMIT:
                self._published.settle()

    def publish_cosigned(self, size: int, note: str) -> None:
        """Write a checkpoint that a quorum of the members cosigned, with their lines; never an older one."""
        with self._store.writing():
            if self._whole():
                self._published.publish_cosigned(size, note)

    def settle(self) -> bool:
        """Publish, durably, and move the write-ahead log into the database; False when a reader holds it up."""
        with self._store.writing():
            return self._published.settle() if self._whole() else self._store.settle()

    def close(self) -> None:
        """End the submitter, settle, close the databases. What waits is handed over when the engine is opened again."""
        self._outbox.close()
        try:
            with suppress(LedgerError):
                self.settle()
        finally:
            self._store.close()
            if self._former is not None:
                self._former.close()

    def _whole(self) -> bool:
        """Whether the log is that of a checkpoint: not while a snapshot is being taken in."""
        return self._store.checkpoint(self._store.size()) is not None

    def _publish(self) -> None:
        if self._whole():
            self._published.publish()

    def _recover(self) -> None:
        """The checkpoint must be of this tree, and of this log; the files are made to follow it."""
        frontier = self._store.state().frontier
        note = self._store.checkpoint(frontier.size)
        if note is None:
            if frontier.size:
                raise TreeMismatch("the tree has no checkpoint", "checkpoint")
            return  # nothing is published before the first block
        head = checkpoint.parse(checkpoint.split_note(note)[0])
        if (head.size, head.root) != (frontier.size, frontier.root()):
            raise TreeMismatch("the newest checkpoint is not of the tree", "checkpoint")
        self._published.recover(note)
        self._published.settle()

    def _join(self, closed: Closed) -> None:
        """The node's first entry, unless it is made: the log that it kept alone is closed with this root."""
        waiting = self._store.outbox(1)
        if waiting and entry.read(waiting[0].envelope).node != self._member.node:
            self._store.supersede()  # made before it was known which node this is
        if self.position().sequence:
            return
        said = Entry(
            node=self._member.node,
            sequence=0,
            previous=entry.GENESIS,
            type=JOIN,
            ledger=self._member.ledger,
            time_us=time.time_ns() // 1000,
            purpose="HOPERAT",
            outcome=0,
            who=Who(0, self._member.actor),
            study=None,
            commitment=None,
            records_root=merkle.EMPTY_ROOT,
            body=terms.encode(JOIN, {"o": closed.origin, "s": closed.size, "r": closed.root}),
        )
        sign = partial(entry.sign, private_key=self._member.signer)
        self._store.put([Sealed(said, entry.encode(said), FOREIGN, 0, sign)], closed.cursor)
