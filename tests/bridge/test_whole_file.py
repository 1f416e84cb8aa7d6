"""A file takes its place whole or not at all."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.whole_file import WholeFile

KILLED = """
import os, signal, sys
from pathlib import Path
from bridge.whole_file import WholeFile

def pieces():
    yield bytes(3 << 20)
    os.kill(os.getpid(), signal.SIGKILL)

with WholeFile(Path(sys.argv[1])) as file:
    file.write(pieces())
"""


@pytest.fixture(params=["unnamed", "beside"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file goes, on a system that knows files without a name, and on one that does not."""
    if request.param == "beside":
        monkeypatch.delattr(os, "O_TMPFILE")
    return tmp_path / "study.car"


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_it_is_there_when_it_is_placed_and_not_before(place: Path) -> None:
    place.write_bytes(b"what was there")
    with WholeFile(place) as file:
        assert file.write([b"one ", b"two"]) == 7
        assert place.read_bytes() == b"what was there"
        file.place()
    assert place.read_bytes() == b"one two"
    assert place.stat().st_mode & 0o777 == 0o600
    assert names(place.parent) == ["study.car"]


def test_nothing_stays_of_one_that_is_not_placed(place: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("no more")

    with pytest.raises(KeyError), WholeFile(place) as file:
        file.write(pieces())
    assert names(place.parent) == []


def test_nothing_stays_when_its_process_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "study.car"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == []
