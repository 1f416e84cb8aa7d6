"""Replication in the index: what members are asked to keep of this node's studies, and how those members are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.replica_schema import replica_out, replica_peer
from bridge.index.writer import Submit, Transaction, run_one

__all__ = ["OutRow", "PeerRow", "ReplicasOut"]


_r, _p, _t = replica_out.c, replica_peer.c, s.tree.c
_COLUMNS: Final = tuple(replica_out.columns)
_ROW: Final = select(*_COLUMNS)
_none: Final[ColumnElement[Any]] = literal_column("0")
_live = _r.released.is_(None)
_own = and_(_t.origin.is_(None), _t.root.is_not(None))
# Beyond every change so far; microseconds, so that it is beyond those of rows that are gone, too.
_next = select(
    case(
        (func.coalesce(func.max(_r.changed), _none) >= bindparam("now"), func.max(_r.changed) + literal_column("1")),
        else_=bindparam("now"),
    )
).scalar_subquery()
# Own trees that have another number of live copies than is wanted, or one at a member that is lost or refused.
_UNSETTLED: Final = sql(
    select(_t.id, _t.tag)
    .select_from(
        s.tree.outerjoin(replica_out, and_(_r.tag == _t.tag, _live)).outerjoin(replica_peer, _p.node == _r.node)
    )
    .where(_own, _t.id > bindparam("after"))
    .group_by(_t.id, _t.tag)
    .having(
        or_(
            func.count(_r.node) != bindparam("copies"),
            func.coalesce(func.sum(case((_p.lost, literal_column("1")), else_=_none)), _none) > _none,
            func.count(_r.refused) > _none,
        )
    )
    .order_by(_t.id)
    .limit(bindparam("most"))
    .offset(_none)
)
_HELD: Final = sql(_ROW.where(_r.tag == bindparam("of_tag"), _live).order_by(_r.node))
_OF_TAG: Final = sql(_ROW.where(_r.tag == bindparam("of_tag")).order_by(_r.node))
_NODES: Final = sql(select(_r.node).where(_live).distinct())
_ALL: Final = sql(_ROW.order_by(_r.assigned, _r.tag, _r.node))
_BY_ENTRY: Final = sql(_ROW.where(_r.entry == bindparam("of_entry")))
_LISTED: Final = sql(
    _ROW.where(_r.node == bindparam("of_node"), _live, _r.entry.is_not(None), _r.changed > bindparam("after"))
    .order_by(_r.changed)
    .limit(bindparam("most"))
    .offset(_none)
)
_GONE: Final = sql(
    _ROW.where(_live, ~exists().where(_t.tag == _r.tag)).order_by(_r.tag).limit(bindparam("most")).offset(_none)
)
_LET_GO: Final = sql(
    _ROW.where(_r.released.is_not(None), _r.entry.is_not(None))
    .order_by(_r.released)
    .limit(bindparam("most"))
    .offset(_none)
)
_UNSEALED: Final = sql(_ROW.where(_r.entry.is_(None)).order_by(_r.assigned).limit(bindparam("most")).offset(_none))
_BEHIND: Final = sql(
    select(*_COLUMNS, _t.root)
    .select_from(replica_out.join(s.tree, _t.tag == _r.tag))
    .where(_live, _t.root.is_not(None), _r.root != _t.root)
    .order_by(_r.changed)
    .limit(bindparam("most"))
    .offset(_none)
)
# The blocks of a tree's instances; pages and root, some hundred bytes for each thousand instances, are not counted.
_OCTETS: Final = sql(
    select(func.coalesce(func.sum(s.block.c.length), _none))
    .select_from(
        s.block.join(s.instance, s.instance.c.id == s.block.c.instance).join(s.tree, _t.id == s.instance.c.tree)
    )
    .where(_t.tag == bindparam("of_tag"))
)
_ADD: Final = sql(
    insert(replica_out).from_select(
        [column.name for column in replica_out.columns],
        select(
            *(
                _next if column.name == "changed" else bindparam(column.name, type_=column.type)
                for column in replica_out.columns
            )
        ),
    )
)
_which = and_(_r.tag == bindparam("of_tag"), _r.node == bindparam("of_node"))
_RENEW: Final = sql(update(replica_out).where(_which).values(changed=_next), ("root", "octets", "changed"))
_SEALED: Final = sql(
    update(replica_out).where(_r.statement == bindparam("of_statement"), _r.entry.is_(None)).values(changed=_next),
    ("entry", "changed"),
)
_CONFIRM: Final = sql(
    update(replica_out).where(_r.entry == bindparam("of_entry")), ("kept", "confirmed", "refused", "why")
)
_REFUSE: Final = sql(
    update(replica_out).where(
        _r.entry == bindparam("of_entry"), _r.node == bindparam("of_node"), _r.refused.is_(None), _r.kept.is_(None)
    ),
    ("refused", "why"),
)
_RELEASE: Final = sql(update(replica_out).where(_which, _live), ("released",))
_DROP: Final = sql(delete(replica_out).where(_which))
_PEERS: Final = sql(select(_p.node, _p.silent, _p.lost, _p.accepts, _p.position))
_put = upsert(replica_peer)
_PUT_PEER: Final = sql(
    _put.on_conflict_do_update(
        index_elements=["node"],
        set_={name: _put.excluded[name] for name in ("silent", "lost", "accepts", "position")},
    )
)


class OutRow(NamedTuple):
    """A member that is asked to keep a study of this node; columns as `bridge.index.replica_schema.replica_out`."""

    tag: bytes
    node: bytes
    member: str
    changed: int
    assigned: int
    statement: bytes
    entry: bytes | None
    salt: bytes
    root: bytes
    octets: int
    kept: bytes | None = None
    confirmed: int | None = None
    refused: int | None = None
    why: str | None = None
    released: int | None = None


class PeerRow(NamedTuple):
    """Another member when it was asked last; columns as `bridge.index.replica_schema.replica_peer`."""

    node: bytes
    silent: int | None = None
    lost: bool = False
    accepts: bool = True
    position: int = 0


class ReplicasOut:
    """Two tables. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    # what there is

    def unsettled(self, copies: int, after: int, most: int) -> list[tuple[int, bytes]]:
        """Row and tag of own trees, by ascending row above `after`, that may need something done for their copies."""
        return self._rows(_UNSETTLED, {"copies": copies, "after": after, "most": most})

    def held(self, tag: bytes) -> list[OutRow]:
        """The assignments of a study that were not let go."""
        return [OutRow(*row) for row in self._rows(_HELD, {"of_tag": tag})]

    def of_tag(self, tag: bytes) -> list[OutRow]:
        """All assignments of a study."""
        return [OutRow(*row) for row in self._rows(_OF_TAG, {"of_tag": tag})]

    def nodes(self) -> set[bytes]:
        """The members that are asked to keep anything."""
        return {node for (node,) in self._rows(_NODES, {})}

    def all(self) -> list[OutRow]:
        """Every assignment, the oldest first."""
        return [OutRow(*row) for row in self._rows(_ALL, {})]

    def by_entry(self, entry: bytes) -> OutRow | None:
        """The assignment that an entry states."""
        found = self._rows(_BY_ENTRY, {"of_entry": entry})
        return OutRow(*found[0]) if found else None

    def listed(self, node: bytes, after: int, most: int) -> list[OutRow]:
        """What a member is to keep, final on the ledger, that changed after a position; in the order of changes."""
        return [OutRow(*row) for row in self._rows(_LISTED, {"of_node": node, "after": after, "most": most})]

    def gone(self, most: int) -> list[OutRow]:
        """Assignments of studies that are held no longer."""
        return [OutRow(*row) for row in self._rows(_GONE, {"most": most})]

    def let_go(self, most: int) -> list[OutRow]:
        """Assignments that were let go, which the ledger does not say yet."""
        return [OutRow(*row) for row in self._rows(_LET_GO, {"most": most})]

    def unsealed(self, most: int) -> list[OutRow]:
        """Assignments that are not final on the ledger yet, the oldest first."""
        return [OutRow(*row) for row in self._rows(_UNSEALED, {"most": most})]

    def behind(self, most: int) -> list[tuple[OutRow, bytes]]:
        """Assignments whose study has grown since, each with the newest root."""
        return [(OutRow(*row[:-1]), row[-1]) for row in self._rows(_BEHIND, {"most": most})]

    def octets(self, tag: bytes) -> int:
        """How many bytes the sealed blocks of an own study's instances have."""
        return int(self._rows(_OCTETS, {"of_tag": tag})[0][0])

    # what becomes of it

    def assign(self, row: OutRow) -> None:
        """A member is asked; `changed` is given by the table. Durable on return, as all that follows."""
        run_one(self._submit, _ADD, {**row._asdict(), "now": row.assigned})

    def renew(self, row: OutRow, root: bytes, octets: int, now: int) -> None:
        """A newer root is to be kept."""
        values = {"of_tag": row.tag, "of_node": row.node, "root": root, "octets": octets}
        run_one(self._submit, _RENEW, {**values, "now": now})

    def sealed(self, statement: bytes, entry: bytes, now: int) -> None:
        """The statement with this records root is final, as this entry; without effect for another's."""
        run_one(self._submit, _SEALED, {"of_statement": statement, "entry": entry, "now": now})

    def confirm(self, entry: bytes, root: bytes, at: int) -> None:
        """A receipt of a root stands on the ledger."""
        values = {"of_entry": entry, "kept": root, "confirmed": at, "refused": None, "why": None}
        run_one(self._submit, _CONFIRM, values)

    def refuse(self, node: bytes, entry: bytes, why: str, at: int) -> None:
        """A member says that it does not keep what it was asked to; without effect once it has said that it does."""
        run_one(self._submit, _REFUSE, {"of_entry": entry, "of_node": node, "refused": at, "why": why})

    def release(self, tag: bytes, node: bytes, at: int) -> None:
        """A member need not keep it any longer; it is given no block of it from now on."""
        run_one(self._submit, _RELEASE, {"of_tag": tag, "of_node": node, "released": at})

    def drop(self, tag: bytes, node: bytes) -> None:
        """The ledger says so: forget the assignment."""
        run_one(self._submit, _DROP, {"of_tag": tag, "of_node": node})

    # members

    def peers(self) -> dict[bytes, PeerRow]:
        """The members that were ever asked, by node."""
        rows = (PeerRow(*row) for row in self._rows(_PEERS, {}))
        return {row.node: row._replace(lost=bool(row.lost), accepts=bool(row.accepts)) for row in rows}

    def note_peers(self, peers: Iterable[PeerRow]) -> None:
        """Write down how members are."""
        rows: Sequence[dict[str, Any]] = [peer._asdict() for peer in peers]

        def note(transaction: Transaction) -> None:
            transaction.cursor.executemany(_PUT_PEER, rows)

        self._submit(note).result()

    def _rows(self, statement: str, values: dict[str, Any]) -> list[Any]:
        return list(self._database.rows(statement, values))
