"""The supervisor: starts, restarts and drains real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.supervisor import RENEW, listen

PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, threading
    from functools import partial
    from pathlib import Path
    from bridge.status_board import StatusBoard
    from bridge.supervisor import Child, Supervisor

    folder = Path(sys.argv[1])
    board = StatusBoard(("door-0", "ledger-0"), spared=("content-0",))

    def child(name):
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        with (folder / f"{name}.pids").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        board.beat(name, True)
        ended.wait()
        with (folder / "ended").open("a") as file:
            file.write(f"{name}\\n")

    children = [Child(name, partial(child, name)) for name in board.names]
    supervisor = Supervisor(children, board)
    code = supervisor.run(lambda: print("ready", flush=True))
    print("others follow" if supervisor.renews else "the end", flush=True)
    sys.exit(code)
    """
)


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def pids(folder: Path, name: str) -> list[int]:
    return [int(line) for line in (folder / f"{name}.pids").read_text().split()]


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z"


def test_a_killed_child_is_started_again_and_all_drain_with_the_ledger_last(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        os.kill(pids(tmp_path, "door-0")[0], signal.SIGKILL)
        until(lambda: len(pids(tmp_path, "door-0")) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert (tmp_path / "ended").read_text().split() == ["door-0", "content-0", "ledger-0"]


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        process.kill()
        process.wait(60)
    until(lambda: all(gone(pid) for name in ("door-0", "ledger-0", "content-0") for pid in pids(tmp_path, name)))


def test_a_taken_address_is_a_configuration_error_that_names_it() -> None:
    with listen("127.0.0.1", 0, "DICOM") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"DICOM listener cannot bind 127.0.0.1:{port}"):
            listen("127.0.0.1", port, "DICOM")


@pytest.mark.parametrize(
    ("signals", "said"),
    [((signal.SIGTERM,), "the end"), ((RENEW,), "others follow"), ((RENEW, signal.SIGTERM), "the end")],
)
def test_a_child_may_ask_that_all_are_drained_to_be_followed_by_others(
    tmp_path: Path, signals: tuple[signal.Signals, ...], said: str
) -> None:
    process = start(tmp_path)
    for number in signals:
        process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out.strip()) == (0, said)
    assert (tmp_path / "ended").read_text().split() == ["door-0", "content-0", "ledger-0"]
