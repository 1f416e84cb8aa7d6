"""A key database that is gone while the index knows studies: no node goes on with an empty one as if it were whole.

It would take new instances under new keys, and nothing that was held before would ever open again.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from bridge.config import Settings
from bridge.crypto.key_database import faults
from bridge.errors import DatabaseDamaged, StorageFault
from bridge.index import overview
from bridge.index.database import open_database
from bridge.ledger_reading import index_place

__all__ = ["refuse"]

_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"


def refuse(settings: Settings, *, of_readable_index: bool = False) -> None:
    """Return when the keys are there, or nothing is held whose key could be missed.

    Opens no file that is not there, but for the index; `of_readable_index`: returns also when that cannot be read.
    Raises DatabaseDamaged when every key is gone, StorageFault when a database cannot be read.
    """
    if _is_empty(settings.home / "keys" / "keys.db") and _has_studies(settings, of_readable_index=of_readable_index):
        raise DatabaseDamaged(
            "the key database keys/keys.db is gone or empty, and the index knows studies that nothing else opens: put"
            " the file back, or set this CAIRN_HOME aside and run `cairn restore` into an empty one"
        )


def _has_studies(settings: Settings, *, of_readable_index: bool) -> bool:
    try:
        with closing(open_database(index_place(settings))) as index:
            return overview.holds_instances(index)
    except StorageFault:
        if of_readable_index:
            return False
        raise


def _is_empty(path: Path) -> bool:
    """Whether no table of the database has a row: no key, and none that was given up or erased."""
    if not path.exists():
        return True
    with faults(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
        tables = [name for (name,) in database.execute(_TABLES).fetchall()]
        return not any(database.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for name in tables)
