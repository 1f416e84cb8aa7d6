"""Whether this node was away for so long that the others have forgotten the blocks that follow its own.

CometBFT then waits for ever for a block that nobody has. The members are asked one at a time, now and then, from which
height on they have blocks; when one has not what comes next here, all are asked, and the word of those who answer
counts.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from bridge.consensus.rpc import Rpc, RpcFault
from bridge.consensus.rpc_proxy import PATH, Client
from bridge.errors import CairnError

__all__ = ["LeftBehind"]

log = logging.getLogger(__name__)
LOOK_S: Final = 15.0


class LeftBehind:
    """Looks in a thread of its own from `start` to `close`; `found` is set when it is so, until somebody clears it.

    Parameters
    ----------
    rpc
        The address of this node's CometBFT.
    others
        The active other members' listeners, at each time.
    again
        Whether it is looked again when it is so, and `found` cleared when it is over: where nobody here mends it.
    """

    def __init__(
        self, rpc: str, others: Callable[[], Sequence[Client]], look_s: float = LOOK_S, again: bool = False
    ) -> None:
        self._again = again
        self.found = threading.Event()
        self._rpc, self._others, self._look_s = Rpc(rpc), others, look_s
        self._turn = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="left-behind", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End; a request under way is not waited for."""
        self._ended.set()

    def look(self) -> bool:
        """Whether it is so now. Raises nothing: what cannot be asked says nothing."""
        return bool(self._looked())

    def step(self) -> None:
        """Look once, unless it is known."""
        if self.found.is_set() and not self._again:
            return
        so = self._looked()
        if so and not self.found.is_set():
            log.warning("the other members have no longer the blocks that follow this node's")
            self.found.set()
        elif so is False:
            self.found.clear()

    def _looked(self) -> bool | None:
        """None when nobody who is asked can say."""
        try:
            height = self._rpc.status().height
            others = self._others()
        except (RpcFault, CairnError):
            return None
        finally:
            self._rpc.close()
        if not others or not height:  # none: a state is being taken over, or nothing has begun
            return False
        following = height + 1
        self._turn = (self._turn + 1) % len(others)
        first = _earliest(others[self._turn])
        if first is None:
            return None
        if first <= following:
            return False
        return all(height is None or height > following for height in map(_earliest, others))

    def _run(self) -> None:
        while not self._ended.wait(self._look_s):
            self.step()


def _earliest(client: Client) -> int | None:
    """The first block that a member's CometBFT still has; None when it does not say."""
    with contextlib.suppress(CairnError, KeyError, TypeError, ValueError):
        return int(client.ask("GET", f"{PATH}status")["sync_info"]["earliest_block_height"])
    return None
