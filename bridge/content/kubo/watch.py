"""What Cairn asks of a managed Kubo while it runs: that it reads a block which it is known to hold."""

from __future__ import annotations

from typing import Final

from bridge.child_watch import Manner

MANNER: Final = Manner(
    name="Kubo",
    silent="does not read a block that it holds",
    fell_silent="did not read a block that it holds",
    ready_s=120.0,  # a large datastore is looked through first
)
