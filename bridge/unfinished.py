"""CAIRN_HOME/unfinished: a command that makes the stores anew has begun, and has not ended.

`cairn restore` and `cairn rebuild-index` fill an archive piece by piece. Whoever opened it meanwhile, or after one was
killed, would take a part for the whole: studies would be missing, and nothing would say so. The file stays until the
command was done once, to its end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bridge.content.pack_format import sync_directory
from bridge.errors import ConfigError

FILE: Final = "unfinished"


def begun(home: Path) -> tuple[str, Sequence[str]] | None:
    """The command that has not ended, and the files that it found and is to keep; None when there is none."""
    try:
        said = json.loads((home / FILE).read_bytes())
    except FileNotFoundError:
        return None
    return str(said["command"]), [str(name) for name in said["kept"]]


def refuse(home: Path) -> None:
    """Raise ConfigError when a command has not ended: what lies in `home` is a part of an archive."""
    found = begun(home)
    if found is not None:
        raise ConfigError(f"cairn {found[0]} was begun on {home} and did not end: run it again, then this")


@contextmanager
def until_done(home: Path, command: str, kept: Sequence[str] = ()) -> Iterator[None]:
    """Within, `home` is a part of an archive, and stays one when the work raises or is killed. Raises OSError."""
    file = home / FILE
    fresh = file.with_name(f"{FILE}.new")
    with fresh.open("wb") as writing:
        writing.write(json.dumps({"command": command, "kept": list(kept)}).encode())
        writing.flush()
        os.fsync(writing.fileno())
    fresh.replace(file)
    sync_directory(home)
    yield
    file.unlink()
    sync_directory(home)
