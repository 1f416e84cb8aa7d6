"""How far this node has seen to what the shared log says, by whom: so that each entry is acted on, in order."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.writer import Submit, Transaction

_put = upsert(s.follow)
_ADVANCE: Final = sql(
    _put.on_conflict_do_update(index_elements=["name"], set_={"position": _put.excluded.position}),
    ("name", "position"),
)
_POSITION: Final = sql(select(s.follow.c.position).where(s.follow.c.name == bindparam("of_name")))


def advance(transaction: Transaction, name: str, position: int) -> None:
    """Within the transaction of what was done for it: the entry at this index was seen to."""
    transaction.cursor.execute(_ADVANCE, {"name": name, "position": position})


class FollowedTo:
    """The table of positions. Thread-safe. Every method may raise StorageFault; `advance` as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def position(self, name: str) -> int:
        """The index of the last entry seen to; -1 for none."""
        found = self._database.rows(_POSITION, {"of_name": name})
        return int(found[0][0]) if found else -1

    def advance(self, name: str, position: int) -> None:
        """The entry at this index was seen to; durable on return."""
        self._submit(lambda transaction: advance(transaction, name, position)).result()
