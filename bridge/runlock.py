"""CAIRN_HOME/run/lock: who holds it owns the stores of a home.

A running node holds it; a command takes it when none runs.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.errors import ConfigError, InUse

PATIENCE_S = 3.0


class RunLock:
    """An exclusive flock, released when the process ends however it ends.

    Entering raises InUse when another process holds it for more than `patience_s` seconds (a node that was just killed
    takes a moment to be gone).
    """

    def __init__(self, home: Path, patience_s: float = PATIENCE_S) -> None:
        self._path = home / "run" / "lock"
        self._patience_s = patience_s
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"CAIRN_HOME cannot be written: {self._path}: {error.strerror}") from error
        until = time.monotonic() + self._patience_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    os.close(self._fd)
                    raise InUse(f"another process holds {self._path}: a node runs on this CAIRN_HOME") from error
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
