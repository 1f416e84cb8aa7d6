"""A real `cairn consortium demo`, driven by what it offers: ports, HTTP, commands in the hospitals' homes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.daemon_process import DaemonProcess
from tests.node.running_node import CAIRN, storescu

TOOLS: Final = Path(__file__).resolve().parents[2] / ".cache" / "tools"
OFFSETS: Final = (1, 2, 12, 42, 43, 56, 57)


class RunningDemo(DaemonProcess):
    """The hospitals h0, h1 ... of one folder."""

    def __init__(self, folder: Path, members: int = 4) -> None:
        super().__init__(folder.with_name(folder.name + ".log"))
        self.folder = folder
        self.members = members
        self.base_port = free_hundreds(members)
        self._before = 0

    def start(self, *flags: str) -> RunningDemo:
        """Start all; return when the table of links is printed."""
        self._before = len(self.printed())
        arguments = ["--members", str(self.members), "--home", str(self.folder), "--base-port", str(self.base_port)]
        self.spawn([CAIRN, "consortium", "demo", *arguments, *flags], self.environment())
        self.wait_until(lambda: "\nready\n" in self.said(), "ready")
        return self

    def said(self) -> str:
        """What it printed since its last start."""
        return self.printed()[self._before :]

    def environment(self, hospital: int | None = None) -> Mapping[str, str]:
        """The surroundings of a process: nothing of the caller's settings; of a command the hospital's home alone."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("CAIRN_")}
        own["CAIRN_WEB__VIEWER_DIR"] = str(TOOLS.parent / "viewer")
        own["PATH"] = os.pathsep.join([str(TOOLS / "cometbft"), str(TOOLS / "kubo"), own["PATH"]])
        return own if hospital is None else own | {"CAIRN_HOME": str(self.home(hospital))}

    def home(self, hospital: int) -> Path:
        """Its CAIRN_HOME."""
        return self.folder / f"h{hospital}"

    def url(self, hospital: int) -> str:
        """The root of its HTTP, without a slash at its end."""
        return f"http://127.0.0.1:{self.base_port + 100 * hospital + 42}"

    def links(self) -> Mapping[str, str]:
        """The console links of the table, by hospital."""
        return dict(re.findall(r"^(h\d+) +console +(\S+)$", self.said(), re.MULTILINE))

    def cairn(self, hospital: int, *arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command at a hospital, with its CAIRN_HOME alone."""
        done = subprocess.run(
            [CAIRN, *arguments],
            env=self.environment(hospital),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert code is None or done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def answer(self, hospital: int, *arguments: str | Path, code: int | None = 0) -> dict[str, Any]:
        """The JSON document that a command prints."""
        document = json.loads(self.cairn(hospital, *arguments, "--json", code=code).stdout)
        assert isinstance(document, dict)
        return document

    def storescu(self, hospital: int, *files: Path) -> subprocess.CompletedProcess[str]:
        """DCMTK's storescu towards a hospital."""
        return storescu(self.base_port + 100 * hospital + 12, "CAIRN", *files)

    def hospital_said(self, hospital: int) -> str:
        """What a hospital printed over all its starts."""
        return (self.folder / f"h{hospital}.log").read_text("utf-8", "replace")


def free_hundreds(members: int) -> int:
    """A base below the ports that `free_ports` gives, whose hospitals' ports nothing listens on.

    Each worker of a run has its own part of them: what another has chosen is taken only when its hospitals have begun.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    part = 8000 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) // 100 * 100
    lowest = 2000 + worker * part
    bases = list(range(lowest, lowest + part - 100 * members + 1, 100))
    random.shuffle(bases)
    return next(base for base in bases if all(_is_free(base + 100 * i + o) for i in range(members) for o in OFFSETS))


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
