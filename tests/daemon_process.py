"""A foreign daemon as a process: started, waited for, paused, ended or killed; what it prints goes to a file."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

READY_S = 60.0
ENDED_S = 60.0


class DaemonProcess:
    """What every daemon has in common; `log` gets everything printed, over all starts."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._process is not None, "the daemon does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def spawn(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start the process, in a group of its own."""
        assert self._process is None, "the daemon runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds; fails with the log when the process ends or the time is over."""
        until = time.monotonic() + READY_S
        while not condition():
            assert self._process is not None, "the daemon does not run"
            assert self._process.poll() is None, f"the daemon ended, not {what}:\n{self.printed()}"
            assert time.monotonic() < until, f"not {what} in time:\n{self.printed()}"
            time.sleep(0.05)

    def stop(self) -> int:
        """End it by SIGTERM, also when it is paused; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        self.resume()
        return self._wait()

    def kill(self) -> None:
        """SIGKILL, as a power cut would; does nothing when it does not run."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._wait()

    def pause(self) -> None:
        """SIGSTOP: its sockets accept, and nothing is ever answered."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Paused within the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def _wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(ENDED_S)
        self._process = None
        return code

    def printed(self) -> str:
        """Everything printed so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""
