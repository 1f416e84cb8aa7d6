"""Named crash points, so that tests can kill the process between any two steps of a recipe.

`CAIRN_CRASH_AT=store.4` kills with SIGKILL at the first pass of that step, `store.4:20` at the twentieth. Unset, which
is always so outside tests, a step costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading

_lock = threading.Lock()
_name, _, _count = os.environ.get("CAIRN_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def step(name: str) -> None:
    """Die here if the environment says so."""
    global _left
    if not _name or name != _name:
        return
    with _lock:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
