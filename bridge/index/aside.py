"""An index that is given up for a new one is set aside: it keeps everything, under another name."""

from __future__ import annotations

import time
from pathlib import Path

from bridge.index.database import Place

__all__ = ["set_aside"]


def set_aside(place: Place) -> str | None:
    """Rename index.db and its journal files, or PostgreSQL's schema; its new name, or None when there was none.

    Nobody has it open. Raises ConfigError when the database is another node's, StorageFault.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    if not isinstance(place, Path):
        from bridge.index import postgresql

        name = f"cairn_{stamp.lower()}"
        return f"the schema {name}" if postgresql.set_aside(place, name) else None
    if not place.exists():
        return None
    for suffix in ("", "-wal", "-shm"):
        part = place.with_name(place.name + suffix)
        if part.exists():
            part.replace(place.with_name(f"{place.name}.{stamp}{suffix}"))
    return str(place.with_name(f"{place.name}.{stamp}"))
