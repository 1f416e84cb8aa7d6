"""How far the audit repository has been told, kept on disk: the spool.

The messages themselves are not copied: the log holds every event already, so what waits for the repository is the log
from this position on, however long the repository is away.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from bridge.errors import StorageFault


class Position(NamedTuple):
    """The index of the next entry to be sent, and the id of the entry before it (empty at the log's beginning).

    The id tells whether the log is still the one that the position was taken in.
    """

    next: int = 0
    last: bytes = b""


class PositionFile:
    """A position in `folder`, replaced as a whole; durable when `save` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "position.json"

    def load(self) -> Position:
        """The position kept; the log's beginning when there is none. Raises StorageFault when it cannot be read."""
        try:
            document = json.loads(self.path.read_text("ascii"))
            position = Position(int(document["next"]), bytes.fromhex(document["last"]))
        except FileNotFoundError:
            return Position()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageFault("the position of the audit repository cannot be read") from error
        if position.next < 0 or len(position.last) != (32 if position.next else 0):
            raise StorageFault("the position of the audit repository is not one")
        return position

    def save(self, position: Position) -> None:
        """Keep a position. Raises StorageFault; the one before it is then kept still."""
        fresh = self.path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with fresh.open("w", encoding="ascii") as file:
                json.dump({"next": position.next, "last": position.last.hex()}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
            self._sync_folder()
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise StorageFault("the position of the audit repository cannot be kept") from error

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
