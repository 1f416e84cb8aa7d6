"""Work with members, each in a lane of its own: one that takes its time, or does not answer, keeps no other waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from bridge.errors import CairnError

__all__ = ["MOST", "MemberLanes"]

log = logging.getLogger(__name__)
AFTER_FAULT_S: Final = 2.0
MOST: Final = 8
"""Members that are worked with at once; of more, the others wait until one is done with."""


class MemberLanes:
    """Runs work in a thread for each member that has none under way. Thread-safe.

    Parameters
    ----------
    name
        Of the work, for its threads and logs.
    broken
        Called when work fails for a reason of ours, which is logged.
    """

    def __init__(self, name: str, broken: Callable[[], None]) -> None:
        self._name, self._broken = name, broken
        self._lock = threading.Lock()
        self._busy: set[bytes] = set()

    def __call__(self, node: bytes, work: Callable[[], object]) -> int:
        """Begin work with a member (node id), unless some is under way; 0: when it is done is not waited for."""
        with self._lock:
            if node in self._busy or len(self._busy) >= MOST:
                return 0  # it is due still, and begun at a later look
            self._busy.add(node)
        threading.Thread(target=self._run, args=(node, work), name=self._name, daemon=True).start()
        return 0

    def _run(self, node: bytes, work: Callable[[], object]) -> None:
        try:
            work()
        except CairnError as error:
            log.error("work with a member is tried again", extra={"slug": error.slug, "worker": self._name})
            time.sleep(AFTER_FAULT_S)  # nobody waits for this thread
        except Exception:
            log.exception("work with a member failed")
            self._broken()
        finally:
            with self._lock:
                self._busy.discard(node)
