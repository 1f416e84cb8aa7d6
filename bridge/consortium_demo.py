"""`cairn consortium demo`: several hospitals on this machine, each a whole node with home, keys and ports of its own.

Hospital i (named `h0`, `h1` ...) lives in DIR/h{i} and has the hundred ports from base + 100 * i. One process imports
everything once and forks a supervisor for each hospital, as `cairn serve` forks its processes, so that their code is
in memory once. What a home needs is written when the home is new: started again, all take up where they left.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from bridge import control
from bridge.config import Settings
from bridge.consensus import condition
from bridge.consortium_demo_homes import Hospital, Kind, hospitals, prepare
from bridge.errors import CairnError
from bridge.supervisor import become

__all__ = ["demo"]

log = logging.getLogger(__name__)
READY_S: Final = 180.0
DRAIN_S: Final = 60.0
AGREED_S: Final = 30.0
"""How long one that is ready is waited for until its CometBFT serves; some of that is mended by hand, while all run."""
ASK_S: Final = 0.3
WEB_APP: Final = "dicomweb.app"
SHARED: Final = ("bridge.serve", "bridge.dimse.acceptor", "uvicorn", WEB_APP)
"""Imported before the fork; the web application by its name alone, as `cairn serve` does."""
Say = Callable[[str], None]


@dataclass(slots=True)
class _Running:
    """One hospital's supervisor as a child of this process; pid 0 when it has ended."""

    hospital: Hospital
    settings: Settings
    pid: int = 0


def demo(folder: Path, members: int, base_port: int, kind: Kind, environment: Mapping[str, str], say: Say) -> int:
    """Run `members` hospitals until SIGTERM or SIGINT; the exit code: 0 when all ended well.

    Raises ConfigError for a number of members or ports that cannot be, a home that belongs to another demonstration, or
    a program that is not there.
    """
    plan = hospitals(folder.absolute(), members, base_port)
    prepare(plan, kind, environment, time.time_ns() // 1000)
    return _Demo([_Running(one, one.settings(environment)) for one in plan], say).run()


class _Demo:
    def __init__(self, running: Sequence[_Running], say: Say) -> None:
        self._running = running
        self._say = say
        self._stopping = False

    def run(self) -> int:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads, which a fork must not meet
        for name in SHARED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        for one in self._running:
            one.pid = _forked(one)
        if self._wait_ready():
            self._say(table(self._running_links()))
            self._watch()
        return self._drain()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _wait_ready(self) -> bool:
        """Until every hospital is ready; False when it is told to stop before, or one ends or is not ready in time."""
        self._say(
            f"starting {len(self._running)} hospitals; what they say is in {self._running[0].hospital.log.parent}"
        )
        waiting, until = list(self._running), time.monotonic() + READY_S
        patience, began_us = time.monotonic() + AGREED_S, time.time_ns() // 1000
        while waiting and not self._stopping:
            if ended := self._ended():
                for one in ended:
                    self._say(
                        f"{one.hospital.name} ended before it was ready; its last words are in {one.hospital.log}"
                    )
                return False
            if time.monotonic() > until:
                for one in waiting:
                    self._say(f"{one.hospital.name} is not ready after {READY_S:.0f} s; see {one.hospital.log}")
                return False
            late = time.monotonic() > patience
            waiting = [
                one for one in waiting if not (_is_ready(one.settings) and (late or _agrees(one.settings, began_us)))
            ]
            time.sleep(ASK_S if waiting else 0.0)
        return not self._stopping

    def _running_links(self) -> list[tuple[Hospital, str]]:
        return [(one.hospital, _login_link(one.settings)) for one in self._running]

    def _watch(self) -> None:
        """Until it is told to stop; a hospital that ends is named, the others go on without it."""
        while not self._stopping and any(one.pid for one in self._running):
            for one in self._ended():
                home = one.hospital.home
                self._say(f"{one.hospital.name} has ended; to start it again: CAIRN_HOME={home} cairn serve")
            time.sleep(ASK_S)

    def _ended(self) -> list[_Running]:
        """Those that have ended since this was asked last."""
        found = [one for one in self._running if one.pid and os.waitpid(one.pid, os.WNOHANG)[0]]
        for one in found:
            one.pid = 0
        return found

    def _drain(self) -> int:
        """End all at once, each as `cairn serve` ends; 1 when one had to be killed, or failed."""
        left = [one for one in self._running if one.pid]
        clean = len(left) == len(self._running)
        for one in left:
            os.kill(one.pid, signal.SIGTERM)
        until = time.monotonic() + DRAIN_S
        while left:
            late = time.monotonic() > until
            for one in list(left):
                ended, status = os.waitpid(one.pid, os.WNOHANG)
                if ended:
                    clean &= status == 0
                    left.remove(one)
                elif late:
                    self._say(f"{one.hospital.name} did not end in time and is killed")
                    os.kill(one.pid, signal.SIGKILL)
            until = math.inf if late else until  # each is killed, and told of, once
            time.sleep(0.05 if left else 0.0)
        self._say("stopped")
        return 0 if clean else 1


def _forked(one: _Running) -> int:
    """A process that runs the hospital as `cairn serve` would; its output goes to the hospital's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        become(partial(_serve, one))
    return pid


def _serve(one: _Running) -> None:
    fd = os.open(one.hospital.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for output in (1, 2):
        os.dup2(fd, output)
    from bridge.serve import serve

    try:
        code = serve(one.settings, sample=False, say=click.echo)
    except CairnError as error:
        click.echo(f"{one.hospital.name}: {error.detail}\n{error.advice}", err=True)
        code = 2
    raise SystemExit(code)


def _is_ready(settings: Settings) -> bool:
    answer = _asked(settings, "status", {})
    return answer is not None and answer.get("not_ready") == []


def _agrees(settings: Settings, since_us: int) -> bool:
    """Whether its CometBFT serves by now, so that what it says becomes final."""
    told = condition.read(settings.home)
    return told is not None and told.at > since_us and not told.cometbft


def _login_link(settings: Settings) -> str:
    answer = _asked(settings, "login-link", {"name": "demo", "role": "admin"})
    return f"{answer['url']}&next=/console/" if answer is not None else "-"


def _asked(settings: Settings, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a hospital's web process answers; None while it does not."""
    with contextlib.suppress(OSError, control.Failed):
        answer = control.ask(settings.home / "run" / "cairn.sock", command, arguments, lambda text: None)
        return answer if isinstance(answer, Mapping) else None
    return None


def table(rows: Sequence[tuple[Hospital, str]]) -> str:
    """What is printed when all are ready: where each hospital is to be found. Pure."""
    lines = []
    for hospital, link in rows:
        ports = hospital.ports
        lines += [
            f"{hospital.name:<5} console    {link}",
            f"      viewer     http://127.0.0.1:{ports.web}/ohif/",
            f"      DICOMweb   http://127.0.0.1:{ports.web}/dicom-web",
            f"      DICOM      CAIRN on 127.0.0.1:{ports.dimse}",
            f"      members    https://127.0.0.1:{ports.members}",
            f"      commands   CAIRN_HOME={hospital.home} cairn ...",
        ]
    count = len(rows)
    names = ", ".join(hospital.name for hospital, _ in rows)
    first = f"{count} hospitals are ready: {names}. A console link works once, within 10 minutes."
    return "\n".join([first, *lines, "ready"])
