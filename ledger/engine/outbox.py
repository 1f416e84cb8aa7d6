"""The outbox's way to CometBFT: what waits is handed over, and again, until the application has taken it in a block.

1. what was handed over and has left the outbox is forgotten; all is, when it was long enough on its way, or strayed
2. the head of the outbox is handed over when nothing is under way
3. so is what follows it, when that is much: members verify it while the block before it is decided
4. then there is nothing to do until something was appended or committed
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from ledger import transaction
from ledger.block_store import BlockStore
from ledger.errors import LedgerError

log = logging.getLogger(__name__)
RESEND_S: Final = 10.0
"""How long a transaction is waited for before it is handed over again."""
AFTER_REFUSAL_S: Final = 1.0
AFTER_FAULT_S: Final = 0.5
UNDER_WAY: Final = 2
WORTH: Final = 128
"""Entries for which a transaction is handed over while another one is under way."""

#: Hands a transaction to CometBFT's mempool: the application's code and words. Raises OSError when it does not answer.
Broadcast = Callable[[bytes], tuple[int, str]]


class _Handed(NamedTuple):
    """A transaction that was handed over: its first sequence, the one behind its last, until when it is waited for."""

    first: int
    behind: int
    until: float


class Outbox:
    """Hands over what waits in `store`, from a thread of its own, from `start` to `close`."""

    def __init__(
        self, store: BlockStore, broadcast: Broadcast, resend_s: float, step: Callable[[str], None] = lambda name: None
    ) -> None:
        self._store, self._broadcast, self._resend_s, self._step = store, broadcast, resend_s, step
        self.refused = ""
        """Why the transaction at the head was refused when it was handed over last; empty: it was not."""
        self._ended, self._changed = False, threading.Condition()
        self._turns = 0  # how often something was appended or committed
        self._strayed = False
        self._under_way: deque[_Handed] = deque()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def turn(self) -> None:
        """Something was appended or committed."""
        with self._changed:
            self._turns += 1
            self._changed.notify_all()

    def strayed(self) -> None:
        """A block held a transaction of this node and did not take it: it has left the mempools, and is sent again."""
        self._strayed = True
        self.turn()

    def close(self) -> None:
        """End the thread. What waits is handed over when the outbox is opened again."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            turns = self._turns
            try:
                wait_s = self._hand_over()
            except OSError as error:
                log.debug("CometBFT does not take a transaction: %s", error)
                turns, wait_s = -1, AFTER_FAULT_S
            except LedgerError:
                log.exception("the outbox cannot be read")
                turns, wait_s = -1, AFTER_FAULT_S
            if self.refused:
                turns = -1
            self._wait(turns, wait_s)

    def _hand_over(self) -> float | None:
        """Hand over one transaction; how long to wait for a turn, None for ever, before the next."""
        self._forget()  # (1)
        found = self._next()  # (2), (3)
        if found is None:
            self.refused = self.refused if self._store.outbox(1) else ""
            return self._left()  # (4)
        tx, run = found
        code, words = self._broadcast(tx)
        if not code:
            self.refused = ""
            self._under_way.append(run)
            return 0.0
        if self._under_way:  # its turn comes when the one before it was taken
            return self._left()
        if words != self.refused:
            log.warning("CometBFT refuses what waits in the outbox: %s", words, extra={"code": code})
        self.refused = words
        return AFTER_REFUSAL_S

    def _next(self) -> tuple[bytes, _Handed] | None:
        """The transaction that is to be handed over now; None when nothing is."""
        under_way = self._under_way
        if len(under_way) >= UNDER_WAY:
            return None
        rows = self._store.outbox(transaction.MAX_ENTRIES, under_way[-1].behind if under_way else 0)
        envelopes = [item.envelope for item in rows]
        count = transaction.fit(envelopes)
        if count < (WORTH if under_way else 1):
            return None
        self._step("submit")
        first = rows[0].sequence
        return transaction.encode(envelopes[:count]), _Handed(first, first + count, time.monotonic() + self._resend_s)

    def _forget(self) -> None:
        again, self._strayed = self._strayed, False
        if not self._under_way:
            return
        waiting = self._store.outbox(1)
        head = waiting[0].sequence if waiting else self._under_way[-1].behind
        while self._under_way and self._under_way[0].behind <= head:
            self._under_way.popleft()
        if self._under_way:
            first, _, until = self._under_way[0]
            if again or first != head or time.monotonic() >= until:
                self._under_way.clear()

    def _left(self) -> float | None:
        """Seconds until what is under way is handed over again; None when nothing is."""
        return max(0.0, self._under_way[0].until - time.monotonic()) if self._under_way else None

    def _wait(self, turns: int, timeout_s: float | None) -> None:
        """Until there was another turn than these (-1: none counts), or the end, or so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (turns != -1 and self._turns != turns), timeout_s)
