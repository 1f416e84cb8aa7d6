"""What the content process writes down: packs whose file is gone from the spool, and what it finds wrong now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.writer import Submit, Transaction, run_one

_TRIM: Final = sql(upsert(s.trimmed).on_conflict_do_nothing())
_TRIMMED: Final = sql(select(s.trimmed.c.pack).order_by(s.trimmed.c.pack))
_UNTRIM: Final = sql(delete(s.trimmed).where(s.trimmed.c.pack == bindparam("of_pack")))
_f = s.content_fault.c
_FAULTS: Final = sql(select(_f.name, _f.since, _f.reason).order_by(_f.since, _f.name))
_CLEAR: Final = sql(delete(s.content_fault))
_ADD: Final = sql(insert(s.content_fault))


class ContentFault(NamedTuple):
    """One thing that is wrong with the content engine now: its stable name, since when (microseconds), in words."""

    name: str
    since: int
    reason: str


class ContentState:
    """Two small tables. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def trim(self, pack: int, at: int) -> None:
        """Write down, durably, that a pack's file is about to go: the engine was read back and has its blocks.

        Say so first and remove the file then: a file that is still there is merely spool to be removed again.
        """
        run_one(self._submit, _TRIM, {"pack": pack, "at": at})

    def untrim(self, pack: int) -> None:
        """The pack's file is there again."""
        run_one(self._submit, _UNTRIM, {"of_pack": pack})

    def trimmed(self) -> set[int]:
        """The packs whose file is gone, or about to go."""
        return {int(pack) for (pack,) in self._database.rows(_TRIMMED, {})}

    def faults(self) -> list[ContentFault]:
        """What is wrong now, oldest first; [] when nothing is."""
        return [ContentFault(*row) for row in self._database.rows(_FAULTS, {})]

    def report(self, reasons: Mapping[str, str], now: int) -> None:
        """Replace what is wrong: name -> reason. What was wrong already keeps its time; writes only what changed."""
        former = {fault.name: fault for fault in self.faults()}
        rows = [
            {"name": name, "since": former[name].since if name in former else now, "reason": reason}
            for name, reason in reasons.items()
        ]
        if {fault.name: fault.reason for fault in former.values()} == dict(reasons):
            return

        def replace(transaction: Transaction) -> None:
            transaction.cursor.execute(_CLEAR)
            transaction.cursor.executemany(_ADD, rows)

        self._submit(replace).result()
