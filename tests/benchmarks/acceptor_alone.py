"""Cairn's acceptor with nothing behind it: instances are taken over the network and dropped.

`python -m tests.benchmarks.acceptor_alone PORT` listens as `cairn serve` does, with one process a processor.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge.dimse.acceptor import Acceptor, AcceptorSettings, listen
from bridge.model import Actor, ActorKind, Role
from bridge.serve import MOST_DOORS, processors
from tests.benchmarks.servers import Server


class AcceptorAlone(Server):
    """The acceptor in processes of its own; it speaks no HTTP."""

    name = "acceptor alone"
    ae_title = "CAIRN"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.benchmarks.acceptor_alone", str(self.dicom_port)]
        self.process = self.spawn(command, {"PYTHONPATH": str(Path(__file__).parents[2])})
        until = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.dicom_port)) == 0:
                    return self.process
            time.sleep(0.05)
        raise RuntimeError("the acceptor did not start")

    def version(self) -> str:
        return self.name


class _Dropped:
    def write(self, data: bytes) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class _Reception:
    def begin_data_set(self, *_: str) -> _Dropped:
        return _Dropped()


class _Door:
    @contextmanager
    def reception(self, actor: Actor) -> Iterator[_Reception]:
        yield _Reception()


def _device(ae_title: str, address: str) -> Actor:
    return Actor(ActorKind.DEVICE, ae_title, Role.DEVICE, address, "dimse")


def main() -> None:
    door: Any = _Door()
    listener = listen("127.0.0.1", int(sys.argv[1]), 128)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    for _ in range(min(processors(), MOST_DOORS) - 1):
        if not os.fork():
            break
    acceptor = Acceptor(AcceptorSettings(port=int(sys.argv[1])), door, _device, listener=listener)
    acceptor.start()
    signal.pause()


if __name__ == "__main__":
    main()
