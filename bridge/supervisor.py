"""`cairn serve`: binds the listeners, forks one process per door, one for the content and one for the ledger, restarts
and drains them.

The parent holds the run lock and no data; everything is imported before the fork so that the pages are shared. A child
whose parent dies dies with it (prctl PR_SET_PDEATHSIG), so that a killed node leaves nothing half alive.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.errors import CairnError, ConfigError
from bridge.status_board import StatusBoard

log = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1
DRAIN_S = 25.0
RENEW = signal.SIGUSR1
"""What a child sends its parent when all are to be started afresh, as with another key."""
HUNG_S = 60.0
Main = Callable[[], None]


@dataclass(slots=True)
class Child:
    """One process to keep running."""

    name: str
    main: Main
    pid: int = 0
    started: float = 0.0
    failures: int = 0


def listen(host: str, port: int, what: str) -> socket.socket:
    """A listening TCP socket, bound before anything is forked. Raises ConfigError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"the {what} listener cannot bind {host}:{port}: {error.strerror}") from error
    listener.listen(512)
    return listener


class Supervisor:
    """Keeps children alive until a signal, then drains them: doors first, then the content, the ledger last.

    SIGUSR1 has them drained in the same way, to be followed by others (`renews`).
    """

    def __init__(self, children: list[Child], board: StatusBoard) -> None:
        self._children = children
        self._board = board
        self._stopping = self._renewing = self._ended = False

    @property
    def renews(self) -> bool:
        """Whether children are to follow those that were drained: no signal has said that the node is to end."""
        return self._renewing and not self._ended

    def run(self, when_ready: Callable[[], None]) -> int:
        """Start all, call `when_ready` once when every child accepts, and return the exit code after a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(RENEW, self._renew)
        gc.collect()
        gc.freeze()  # keeps the collector from touching, and so copying, the pages shared with the children
        for child in self._children:
            self._start(child)
        announced = False
        while not self._stopping:
            self._reap()
            if not announced and not self._board.reasons():
                announced = True
                when_ready()
            time.sleep(0.05 if not announced else 0.5)
        return self._drain()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = self._ended = True

    def _renew(self, number: int, frame: object) -> None:
        self._stopping = self._renewing = True

    def _start(self, child: Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._board.clear(child.name)
        pid = os.fork()
        if pid == 0:
            become(child.main)
        child.pid, child.started = pid, time.monotonic()

    def _reap(self) -> None:
        for child in self._children:
            ended, status = os.waitpid(child.pid, os.WNOHANG) if child.pid else (0, 0)
            if ended:
                log.error("a process ended and is started again", extra={"worker": child.name, "status": status})
                child.pid = 0
                lived = time.monotonic() - child.started
                child.failures = child.failures + 1 if lived < 10 else 0
            if not child.pid and not self._stopping and self._due(child):
                self._start(child)

    @staticmethod
    def _due(child: Child) -> bool:
        return time.monotonic() - child.started > min(0.2 * 2.0**child.failures, 30.0)

    def _drain(self) -> int:
        """End the doors together, then what they read from, then the ledger, so that it seals what was closed last."""
        last = {"members": 1, "content": 1, "ledger": 2}
        order = {child.name: last.get(child.name.partition("-")[0], 0) for child in self._children}
        clean = True
        for place in sorted(set(order.values())):
            group = [child for child in self._children if order[child.name] == place]
            for child in group:
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
            for child in group:
                clean &= self._await(child)
        return 0 if clean else 1

    @staticmethod
    def _await(child: Child) -> bool:
        until = time.monotonic() + DRAIN_S
        while child.pid:
            ended, status = os.waitpid(child.pid, os.WNOHANG)
            if ended:
                return bool(status == 0)
            if time.monotonic() > until:
                log.error("a process did not drain in time and is killed", extra={"worker": child.name})
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                return False
            time.sleep(0.02)
        return True


def become(main: Main) -> None:
    """What a fork runs: default signals, death with the parent, and never a return into the parent's code."""
    code = 1
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except CairnError as error:
        log.error("a process cannot go on", extra={"slug": error.slug, "reason": error.detail})
    except BaseException:
        log.exception("a process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
