"""Which members do not answer while this node's entries wait for their block.

CometBFT keeps a peer that froze, or whose packets get lost, for a minute and a half among those that it is connected to
(its ping comes every 60 s, and is waited for 45 s; neither can be set). So while something waits, each member's
listener is asked for the state of its CometBFT. Nobody is asked while nothing waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bridge.consensus.rpc_proxy import PATH, Client
from bridge.errors import CairnError
from ledger.members import Member

__all__ = ["PATIENCE_S", "RollCall"]

log = logging.getLogger(__name__)
PATIENCE_S: Final = 2.0
"""A member whose answer is waited for this long does not answer, until it does."""
AGAIN_S: Final = 3.0
AT_ONCE: Final = 16
_NEVER: Final = float("-inf"), True


class RollCall:
    """Asks each member in a thread, `step` by step. `silent` may be asked by any thread.

    Parameters
    ----------
    clients
        A member's listener, by its node.
    clock
        Seconds of a monotonic clock.
    """

    def __init__(self, clients: Callable[[bytes], Client], clock: Callable[[], float] = time.monotonic) -> None:
        self._clients, self._clock = clients, clock
        self._lock = threading.Lock()
        self._queued: set[bytes] = set()
        self._asked: dict[bytes, float] = {}  # since when an answer is waited for
        self._told: dict[bytes, tuple[float, bool]] = {}  # when one came or failed to, and which of the two
        self._pool = ThreadPoolExecutor(AT_ONCE, "roll-call")

    def step(self, members: Sequence[Member]) -> None:
        """Ask those of whom no answer is waited for, and none came in the last seconds."""
        now = self._clock()
        with self._lock:
            due = [
                member.node
                for member in members
                if member.node not in self._queued and now - self._told.get(member.node, _NEVER)[0] >= AGAIN_S
            ]
            self._queued.update(due)
        for node in due:
            self._pool.submit(self._ask, node)

    def silent(self) -> set[bytes]:
        """The nodes of those that did not answer, or are waited for too long."""
        now = self._clock()
        with self._lock:
            late = {node for node, at in self._asked.items() if now - at >= PATIENCE_S}
            return late | {node for node, (_, answered) in self._told.items() if not answered}

    def forget(self) -> None:
        """Nothing waits any more: who did not answer before may do so now."""
        with self._lock:
            self._told.clear()
            self._asked.clear()

    def close(self) -> None:
        """Ask no more; to be called when the clients are closed, which ends requests under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, node: bytes) -> None:
        with self._lock:
            self._asked[node] = self._clock()
        answered = False
        try:
            self._clients(node).ask("GET", f"{PATH}status")
            answered = True
        except CairnError as error:
            log.debug("a member does not answer: %s", error.detail)
        finally:
            with self._lock:
                if self._asked.pop(node, None) is not None:  # else it was forgotten meanwhile
                    self._told[node] = self._clock(), answered
                self._queued.discard(node)
