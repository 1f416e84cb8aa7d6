"""A foreign daemon as a child of this process: started, looked at, ended; what it prints goes to a file."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from bridge.errors import EngineFault

log = logging.getLogger(__name__)
PR_SET_PDEATHSIG: Final = 1
LOG_BYTES: Final = 8 << 20
WORDS_BYTES: Final = 16 << 10


class Child:
    """At most one process at a time; it dies with the thread that started it.

    `name` is how people call the daemon. `log_file` gets what it prints over all its starts; beyond 8 MiB it is set
    aside at the next start, and the one set aside before is gone.
    """

    def __init__(self, name: str, log_file: Path) -> None:
        self._name = name
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process; nothing happens while it runs. Raises EngineFault when the program cannot be run."""
        if self.alive():
            return
        with self._output() as output:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the supervisor alone
                    preexec_fn=_die_with(os.getpid()),
                )
            except OSError as error:
                raise EngineFault(f"{self._name} cannot be started: {error.strerror}") from error

    def alive(self) -> bool:
        """Whether the process runs; it may yet be starting, or answer nothing."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id while there is a process."""
        return self._process.pid if self._process is not None else None

    def stop(self, drain_s: float) -> None:
        """End the process: asked to first, killed after `drain_s` seconds."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(drain_s)
        except subprocess.TimeoutExpired:
            log.error("%s did not end in time and is killed", self._name)
            self._process.kill()
            self._process.wait()
        self._process = None

    def last_words(self) -> str:
        """The last line that it wrote and that is not empty, or why a Go program panicked; at most 300 characters."""
        try:
            with self._log_file.open("rb") as file:
                file.seek(max(0, self._log_file.stat().st_size - WORDS_BYTES))
                lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return "it wrote nothing"
        panics = [at for at, line in enumerate(lines) if line.startswith("panic: ")]
        if panics:
            return " ".join(lines[panics[-1] : panics[-1] + 2])[:300]  # what follows is where, not why
        return lines[-1][:300] if lines else "it wrote nothing"

    def _output(self) -> IO[bytes]:
        path = self._log_file
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")


def _die_with(parent: int) -> Any:
    """What the child runs before the program: the kernel kills it when the thread that made it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: nothing is to be loaded behind it

    def behind_fork() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was already gone
            os._exit(1)

    return behind_fork
