"""A real `cairn serve` in a process of its own, driven only by what it offers to the world: ports, HTTP, commands."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

CAIRN = Path(sys.executable).parent / "cairn"
DCMTK = Path(shutil.which("dcmdump") or "/usr/bin/dcmdump").parent  # pynetdicom brings a storescu of its own
READY_S = 60.0
ENDED_S = 60.0


class RunningNode:
    """One CAIRN_HOME and the node that runs on it, or does not at the moment.

    Everything that a node prints goes to `log`, over all its starts.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.log = home.with_name(home.name + ".log")
        self.dimse_port, self.web_port = free_ports(2)
        self.settings = settings
        self.inside: Sequence[str] = ()
        """What comes before each command of it: a network namespace that it lives in."""
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}
        self._printed_before = 0

    @property
    def url(self) -> str:
        """The root of HTTP, without a slash at its end."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None, "the node does not run"
        return self._process.pid

    def environment(self, **more: str) -> dict[str, str]:
        """The surroundings of every process of this node: nothing of the caller's own settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CAIRN_")}
        own = {
            "CAIRN_HOME": str(self.home),
            "CAIRN_DIMSE__PORT": str(self.dimse_port),
            "CAIRN_WEB__PORT": str(self.web_port),
        }
        return inherited | own | self.settings | more

    def start(self, *flags: str, ready: bool = True, **more: str) -> RunningNode:
        """Start it; with `ready`, return when `/readyz` answers 200."""
        assert self._process is None, "the node runs already"
        self._printed_before = len(self.printed())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, CAIRN, "serve", *flags],
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """Until DICOM, HTTP and ledger accept; fails with the log when the process ends or the time is over."""
        until = time.monotonic() + READY_S
        while not self.is_ready():
            assert self._process is not None
            assert self._process.poll() is None, f"cairn serve ended:\n{self.printed()}"
            assert time.monotonic() < until, f"cairn serve is not ready:\n{self.printed()}"
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether `/readyz` answers 200 now."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def wait_printed(self, text: str) -> None:
        """Until a line that the node printed since its last start contains `text`."""
        until = time.monotonic() + READY_S
        while text not in self.printed()[self._printed_before :]:
            assert time.monotonic() < until, f"{text!r} was not printed:\n{self.printed()}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by SIGTERM, or by SIGINT to every process as a terminal's Ctrl-C does; the exit code."""
        assert self._process is not None, "the node does not run"
        if number == signal.SIGINT:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return self._wait()

    def kill(self) -> None:
        """SIGKILL to every process of the node at once, as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(ENDED_S)
        self._process = None
        return code

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended by us."""
        return self._process is not None

    def printed(self) -> str:
        """Everything printed so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def cairn(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command on this home; its exit code must be `code` unless that is None."""
        done = subprocess.run(
            [*self.inside, CAIRN, *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def answer(self, *arguments: str, code: int | None = 0) -> dict[str, Any]:
        """The JSON document that a command prints."""
        document = json.loads(self.cairn(*arguments, "--json", code=code).stdout)
        assert isinstance(document, dict)
        return document

    def token(self, role: str) -> str:
        """A token of a role, made once for each node."""
        if role not in self._tokens:
            self._tokens[role] = str(self.answer("token", "create", "--role", role)["token"])
        return self._tokens[role]

    @contextmanager
    def http(self, role: str | None = "admin") -> Iterator[httpx.Client]:
        """A client with the credential of a role, or with none."""
        headers = {"authorization": f"Bearer {self.token(role)}"} if role else {}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60.0) as client:
            yield client

    def storescu(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """DCMTK's storescu towards this node."""
        return storescu(self.dimse_port, "CAIRN", *arguments)

    def processes(self) -> list[int]:
        """The supervisor and all that descend from it."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found


def storescu(port: int, title: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Send files or folders by DCMTK; `-v` makes it say the answer to each."""
    return subprocess.run(
        [DCMTK / "storescu", "-v", "-aet", "TESTER", "-aec", title, "127.0.0.1", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=180,
    )


def acknowledged(storescu_said: str) -> list[Path]:
    """The files that were answered with 0x0000, from what `storescu -v` printed."""
    found: list[Path] = []
    sending: Path | None = None
    for line in storescu_said.splitlines():
        if line.startswith("I: Sending file: "):
            sending = Path(line.removeprefix("I: Sending file: "))
        elif line.startswith("I: Received Store Response (Success)") and sending is not None:
            found.append(sending)
            sending = None
    return found


def free_ports(count: int) -> Sequence[int]:
    """Ports of loopback that nothing listens on.

    They lie below those that the kernel gives to outgoing connections, one of which could otherwise take a port before
    the server that it is meant for binds it; and none is given twice in a run, nor to two of its workers: a node that
    is started again needs the port that it had.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found


def _ports() -> Iterator[int]:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = list(range(10_000, lowest))[worker :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    random.shuffle(ports)  # several runs at once seldom meet
    return itertools.cycle(ports)


_PORTS: Final = _ports()
