"""Keeping a managed daemon running: started, asked from time to time whether it works, started again when it does not.

One thread calls `step` about once a second, and it is the thread that starts the daemon, which dies with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple, Protocol

from bridge.errors import CairnError, EngineFault

__all__ = ["Daemon", "Manner", "NotYet", "Watch"]

log = logging.getLogger(__name__)
PING_S: Final = 5.0
SILENCES: Final = 3
"""So many pings without an answer in a row, and it is started again."""
LONGEST_REST_S: Final = 60.0
STABLE_S: Final = 300.0
HUNG_DRAIN_S: Final = 3.0
WAIT_S: Final = 5.0


class NotYet(Exception):
    """It is not time to start the daemon: what it waits for, in words. Nothing has failed."""


class Daemon(Protocol):
    """As `bridge.content.kubo.daemon.ManagedKubo` and `bridge.consensus.daemon.ManagedCometBFT`."""

    def prepare(self) -> None:
        """Make or renew its home. Raises ConfigError, EngineFault, NotYet."""

    def start(self) -> None:
        """Start the process. Raises EngineFault."""

    def alive(self) -> bool:
        """Whether the process runs."""

    def ready(self) -> bool:
        """Whether it accepts requests. Raises EngineFault when it has ended."""

    def ping(self) -> bool:
        """Whether it works, which is more than that it answers."""

    def stop(self, drain_s: float = ...) -> None:
        """End the process."""


class _State(Enum):
    ENDED = "ended"
    STARTING = "starting"
    SERVING = "serving"


class Manner(NamedTuple):
    """How a daemon is called, what it does not do when its ping fails ("does not ...", "did not ..."), and how many
    seconds it may take to serve."""

    name: str
    silent: str
    fell_silent: str
    ready_s: float


class Watch:
    """Decides by what the daemon says and by the time; `now` is in monotonic seconds."""

    def __init__(self, daemon: Daemon, manner: Manner, now: Callable[[], float] = time.monotonic) -> None:
        self._daemon = daemon
        self._manner = manner
        self._now = now
        self._state = _State.ENDED
        self._since = self._pinged = self._not_before = 0.0
        self._failures = self._silences = 0
        self.reason: str | None = f"{manner.name} is being started"
        """Why the daemon cannot be used now; None while it serves."""

    def step(self) -> None:
        """Look at the daemon once, and start, end or leave it."""
        now = self._now()
        try:
            if self._state is _State.ENDED:
                if now >= self._not_before:
                    self._start(now)
            elif self._state is _State.STARTING:
                self._await_ready(now)
            else:
                self._ask(now)
        except NotYet as waiting:
            if self.reason != str(waiting):
                log.info("%s waits: %s", self._manner.name, waiting)
            self.reason, self._not_before = str(waiting), now + WAIT_S
        except CairnError as error:
            self._failed(error.detail, now)

    def renew(self, why: str, drain_s: float) -> None:
        """Have it started again by the next step, since what it was started with is no longer so."""
        log.info("%s is started again: %s", self._manner.name, why)
        self._daemon.stop(drain_s)
        self._state, self._not_before, self.reason = _State.ENDED, self._now(), why

    def end(self, drain_s: float) -> None:
        """Let the daemon end what it does, for so many seconds."""
        self._daemon.stop(drain_s)
        self._state, self.reason = _State.ENDED, f"{self._manner.name} was ended"

    def _start(self, now: float) -> None:
        self._daemon.prepare()
        self._daemon.start()
        self._state, self._since = _State.STARTING, now
        log.info("%s is started", self._manner.name)

    def _await_ready(self, now: float) -> None:
        if self._daemon.ready():
            self._state, self._since, self._pinged, self._silences, self.reason = _State.SERVING, now, now, 0, None
            log.info("%s serves", self._manner.name)
        elif now - self._since > self._manner.ready_s:
            raise EngineFault(f"{self._manner.name} does not serve {self._manner.ready_s:.0f} seconds after its start")

    def _ask(self, now: float) -> None:
        if not self._daemon.alive():
            raise EngineFault(f"{self._manner.name} ended")
        if now - self._since > STABLE_S:
            self._failures = 0
        if now - self._pinged < PING_S:
            return
        self._silences = 0 if self._daemon.ping() else self._silences + 1
        self._pinged = self._now()
        if self._silences:
            self.reason = f"{self._manner.name} {self._manner.silent} (asked {self._silences} times)"
        else:
            self.reason = None
        if self._silences >= SILENCES:
            raise EngineFault(f"{self._manner.name} {self._manner.fell_silent}")

    def _failed(self, why: str, now: float) -> None:
        """End what is left of it; the next start comes later each time."""
        self._daemon.stop(HUNG_DRAIN_S)
        rest = min(2.0**self._failures, LONGEST_REST_S)
        self._failures += 1
        self._not_before = now + rest
        self._state, self.reason = _State.ENDED, f"{why}; it is started again"
        log.error("%s: %s; it is started again", self._manner.name, why, extra={"in_seconds": rest})
