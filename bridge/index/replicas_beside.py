"""Replication in the index: which other members are to keep the same sealed blocks as this node."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import and_, bindparam, delete, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index.database import Database, sql
from bridge.index.replica_schema import replica_beside
from bridge.index.writer import Submit, Transaction, run_one

__all__ = ["Beside", "ReplicasBeside"]


_b = replica_beside.c
_tree = and_(_b.node == bindparam("of_node"), _b.tag == bindparam("of_tag"))
_put = upsert(replica_beside)
# Whether a member has signed is learned from several sides: once it has, that stands.
_NOTE: Final = sql(
    _put.on_conflict_do_update(index_elements=["entry"], set_={"kept": or_(_b.kept, _put.excluded.kept)}),
    [column.name for column in replica_beside.columns],
)
_SIGNED: Final = sql(update(replica_beside).where(_b.entry == bindparam("of_entry")).values(kept=true()))
_DROP: Final = sql(delete(replica_beside).where(_b.entry == bindparam("of_entry")))
_DROP_TREE: Final = sql(delete(replica_beside).where(_tree))
_OF_TREE: Final = sql(select(*replica_beside.columns).where(_tree).order_by(_b.kept.desc(), _b.member))


class Beside(NamedTuple):
    """Another member that is to keep a tree; columns as `bridge.index.replica_schema.replica_beside`."""

    entry: bytes
    node: bytes
    tag: bytes
    holder: bytes
    member: str
    kept: bool = False


class ReplicasBeside:
    """One table. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def note(self, rows: Iterable[Beside]) -> None:
        """These are to keep the same as this node; durable on return, as all that follows."""
        values = [row._asdict() for row in rows]

        def note(transaction: Transaction) -> None:
            transaction.cursor.executemany(_NOTE, values)

        if values:
            self._submit(note).result()

    def of_tree(self, node: bytes, tag: bytes) -> list[Beside]:
        """Who else is to keep a member's tree, those that have signed for it first."""
        rows = self._database.rows(_OF_TREE, {"of_node": node, "of_tag": tag})
        return [Beside(*row)._replace(kept=bool(row[5])) for row in rows]

    def signed(self, entry: bytes) -> None:
        """Who was asked by this entry has signed; without effect for what is not known."""
        run_one(self._submit, _SIGNED, {"of_entry": entry})

    def drop(self, entry: bytes) -> None:
        """Who was asked by this entry need not keep it any longer."""
        run_one(self._submit, _DROP, {"of_entry": entry})

    def drop_tree(self, node: bytes, tag: bytes) -> None:
        """This node does not keep the tree any longer."""
        run_one(self._submit, _DROP_TREE, {"of_node": node, "of_tag": tag})
