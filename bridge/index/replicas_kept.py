"""Replication in the index: the sealed blocks of other members' studies that are kept here, or are to be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, false, literal_column, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.replica_schema import replica_in
from bridge.index.writer import Submit, Transaction, run_one

__all__ = ["InRow", "ReplicasIn", "Wanted"]


_k, _t = replica_in.c, s.tree.c
_none: Final[ColumnElement[Any]] = literal_column("0")
_ROW: Final = select(*replica_in.columns)
_which = and_(_k.node == bindparam("of_node"), _k.tag == bindparam("of_tag"))
_put = upsert(replica_in)
_changed = or_(_put.excluded.root != _k.root, _put.excluded.entry != _k.entry)
# A newer root, or a new assignment, is tried at once; what is asked for again as it was is left as it stands. With
# another salt the receipt says something else: it is stated anew.
_ASK: Final = sql(
    _put.on_conflict_do_update(
        index_elements=["node", "tag"],
        set_={
            **{name: _put.excluded[name] for name in ("member", "entry", "salt", "root", "octets")},
            "again": case((_changed, _none), else_=_k.again),
            "tries": case((_changed, _none), else_=_k.tries),
            "refused": case((_changed, false()), else_=_k.refused),
            "trouble": case((_changed, None), else_=_k.trouble),
            "stated": case(
                (or_(_put.excluded.entry != _k.entry, _put.excluded.salt != _k.salt), None), else_=_k.stated
            ),
        },
    ),
    [column.name for column in replica_in.columns],
)
_DUE: Final = sql(
    _ROW.where(or_(_k.kept.is_(None), _k.kept != _k.root), _k.again <= bindparam("now"))
    .order_by(_k.again, _k.asked)
    .limit(bindparam("most"))
    .offset(_none)
)
_UNSTATED: Final = sql(
    _ROW.where(_k.kept.is_not(None), or_(_k.stated.is_(None), _k.stated != _k.kept))
    .order_by(_k.since)
    .limit(bindparam("most"))
    .offset(_none)
)
_BY_ENTRY: Final = sql(_ROW.where(_k.entry == bindparam("of_entry")))
_OF_TAG: Final = sql(_ROW.where(_k.tag == bindparam("of_tag")).order_by(_k.asked))
_NODES: Final = sql(select(_k.node).distinct())
_OF_NODE: Final = sql(_ROW.where(_k.node == bindparam("of_node")).order_by(_k.asked))
_ALL: Final = sql(_ROW.order_by(_k.asked, _k.node, _k.tag))
_REFUSED: Final = sql(
    select(_k.entry, _k.trouble).where(_k.node == bindparam("of_node"), _k.refused == true()).order_by(_k.asked)
)
# Kept, and neither the tree nor its pin is there any more, as when a grant of the same tree ended meanwhile.
_FORGOTTEN: Final = sql(
    _ROW.select_from(replica_in.outerjoin(s.tree, _t.tag == _k.tag).outerjoin(s.pin, s.pin.c.root == _k.kept))
    .where(_k.kept.is_not(None), or_(_t.id.is_(None), s.pin.c.root.is_(None)))
    .limit(bindparam("most"))
    .offset(_none)
)
_TOOK: Final = sql(
    update(replica_in).where(_which).values(tries=_none, refused=false()), ("kept", "since", "trouble", "again")
)
_FAILED: Final = sql(update(replica_in).where(_which), ("trouble", "refused", "tries", "again"))
_STATED: Final = sql(update(replica_in).where(_which), ("stated",))
_LOST: Final = sql(update(replica_in).where(_which), ("kept", "since", "again"))
_DROP: Final = sql(delete(replica_in).where(_which))


class Wanted(NamedTuple):
    """What a member asks to be kept: the study's tag there, the entry that says so, salt, root, bytes of its blocks.

    `beside`: the entries by which it asks others to keep the same, and whether they have signed.
    """

    tag: bytes
    entry: bytes
    salt: bytes
    root: bytes
    octets: int
    beside: tuple[tuple[bytes, bool], ...] = ()


class InRow(NamedTuple):
    """Sealed blocks kept here, or to be; columns as `bridge.index.replica_schema.replica_in`."""

    node: bytes
    tag: bytes
    member: str
    entry: bytes
    salt: bytes
    root: bytes
    octets: int
    asked: int
    kept: bytes | None = None
    since: int | None = None
    stated: bytes | None = None
    trouble: str | None = None
    refused: bool = False
    tries: int = 0
    again: int = 0


class ReplicasIn:
    """One table. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def ask(self, node: bytes, member: str, wanted: Iterable[Wanted], at: int) -> None:
        """A member asks for these to be kept; durable on return, as all that follows."""
        rows = [InRow(node, one.tag, member, one.entry, one.salt, one.root, one.octets, at)._asdict() for one in wanted]

        def ask(transaction: Transaction) -> None:
            transaction.cursor.executemany(_ASK, rows)

        if rows:
            self._submit(ask).result()

    def due(self, now: int, most: int) -> list[InRow]:
        """What is to be fetched now, what waits longest first."""
        return self._rows(_DUE, {"now": now, "most": most})

    def unstated(self, most: int) -> list[InRow]:
        """What is kept, and no receipt says so."""
        return self._rows(_UNSTATED, {"most": most})

    def forgotten(self, most: int) -> list[InRow]:
        """What was kept, and is a tree or pinned no longer."""
        return self._rows(_FORGOTTEN, {"most": most})

    def by_entry(self, entry: bytes) -> InRow | None:
        """What an assignment asks for."""
        found = self._rows(_BY_ENTRY, {"of_entry": entry})
        return found[0] if found else None

    def of_tag(self, tag: bytes) -> list[InRow]:
        """What is asked for under a study tag: one row, unless two members claim the same tag."""
        return self._rows(_OF_TAG, {"of_tag": tag})

    def of_node(self, node: bytes) -> list[InRow]:
        """Everything that a member asks for."""
        return self._rows(_OF_NODE, {"of_node": node})

    def nodes(self) -> set[bytes]:
        """The members that ask for anything."""
        return {node for (node,) in self._database.rows(_NODES, {})}

    def all(self) -> list[InRow]:
        """Everything, the oldest first."""
        return self._rows(_ALL, {})

    def refused(self, node: bytes) -> list[tuple[bytes, str]]:
        """The entries of a member's assignments that are refused here, and why."""
        found = self._database.rows(_REFUSED, {"of_node": node})
        return [(entry, trouble or "refused") for entry, trouble in found]

    def took(self, row: InRow, root: bytes, at: int) -> None:
        """A root is held and pinned."""
        values = {"of_node": row.node, "of_tag": row.tag, "kept": root, "since": at, "trouble": None, "again": 0}
        run_one(self._submit, _TOOK, values)

    def failed(self, row: InRow, trouble: str, again: int, *, refused: bool) -> None:
        """It could not be kept, and is tried again not before a time; `refused`: the member is told."""
        values = {"trouble": trouble, "refused": refused, "tries": row.tries + 1, "again": again}
        run_one(self._submit, _FAILED, {"of_node": row.node, "of_tag": row.tag, **values})

    def stated(self, row: InRow, root: bytes) -> None:
        """A receipt of a root was stated."""
        run_one(self._submit, _STATED, {"of_node": row.node, "of_tag": row.tag, "stated": root})

    def lost(self, row: InRow) -> None:
        """It is not kept any more, and is to be fetched again."""
        run_one(self._submit, _LOST, {"of_node": row.node, "of_tag": row.tag, "kept": None, "since": None, "again": 0})

    def drop(self, row: InRow) -> None:
        """Forget what was asked."""
        run_one(self._submit, _DROP, {"of_node": row.node, "of_tag": row.tag})

    def _rows(self, statement: str, values: dict[str, Any]) -> list[InRow]:
        rows = (InRow(*row) for row in self._database.rows(statement, values))
        return [row._replace(refused=bool(row.refused)) for row in rows]
