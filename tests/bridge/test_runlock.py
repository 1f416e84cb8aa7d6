"""The run lock: one owner of a home at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import InUse
from bridge.runlock import RunLock

HOLD = """
import sys
from pathlib import Path
from bridge.runlock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_owner_is_refused_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUse, match="a node runs"), RunLock(tmp_path, patience_s=0.1):
            pass
        holder.kill()
        holder.wait()
    with RunLock(tmp_path, patience_s=0.1):
        pass
