"""Whose a block is and which roots somebody may fetch from, told by the index alone: no key, no block is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import and_, bindparam, or_, select, union, union_all

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.placement import positions_of
from bridge.index.replica_schema import replica_beside, replica_in, replica_out
from bridge.model import BlockPosition

_t, _a, _b = s.tree.c, s.assignment.c, replica_beside.c
_OF_BLOCK: Final = sql(
    select(s.study.c.uid, _t.tag)
    .select_from(
        s.block.join(s.instance, s.instance.c.id == s.block.c.instance)
        .join(s.study, s.study.c.id == s.instance.c.study)
        .join(s.tree, _t.id == s.instance.c.tree)
    )
    .where(s.block.c.cid == bindparam("cid"))
)
_IS_HELD: Final = sql(select(s.study.c.id).where(s.study.c.uid == bindparam("study")))
_roots = select(s.study.c.uid, _t.root).select_from(s.tree.join(s.study, s.study.c.id == _t.study))
_OF_STUDY: Final = sql(_roots.where(s.study.c.uid == bindparam("study"), _t.root.is_not(None)).order_by(_t.id))
# A grant is of this node's own tree: what others lent it, or have it keep, only they give.
_own_assigned = _roots.join(s.assignment, _a.study == s.study.c.uid).where(
    _a.member == bindparam("to"),
    or_(_a.expires.is_(None), _a.expires > bindparam("now")),
    _t.origin.is_(None),
    _t.root.is_not(None),
)
# Who keeps a study's sealed blocks for this node may fetch them.
_keeps = _roots.join(replica_out, replica_out.c.tag == _t.tag).where(
    replica_out.c.member == bindparam("to"), replica_out.c.released.is_(None), _t.root.is_not(None)
)
_OF_MEMBER: Final = sql(union(_own_assigned, _keeps))
_MAY: Final = sql(
    union_all(
        _own_assigned.where(_t.tag == bindparam("of_tag")),
        _keeps.where(_t.tag == bindparam("of_tag")),
    )
)
_kept = select(_t.tag, _t.root).where(_t.root.is_not(None), replica_in.c.kept.is_not(None))
_KEPT_FOR: Final = sql(
    union(
        _kept.select_from(s.tree.join(replica_in, replica_in.c.tag == _t.tag)).where(
            replica_in.c.member == bindparam("to")
        ),
        _kept.select_from(
            s.tree.join(replica_in, replica_in.c.tag == _t.tag).join(
                replica_beside, and_(_b.tag == _t.tag, _b.node == replica_in.c.node)
            )
        ).where(_b.member == bindparam("to")),
    )
)


class Grants:
    """As `bridge.services.gateway.Grants`. Thread-safe; every answer is of its own moment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tree_of_block(self, cid: bytes) -> tuple[str, bytes] | None:
        """The study whose instance a block belongs to, and the tag of its tree.

        None for the blocks above instances, for those kept without a key, and for unknown ones.
        """
        found = self._database.rows(_OF_BLOCK, {"cid": cid})
        return (found[0][0], found[0][1]) if found else None

    def may(self, member: str, tag: bytes, now: int) -> bool:
        """Whether a member may fetch this very tree at `now` (microseconds): one of `roots_for`."""
        return bool(self._database.rows(_MAY, {"to": member, "of_tag": tag, "now": now}))

    def is_held(self, study: str) -> bool:
        """Whether the index has the study."""
        return bool(self._database.rows(_IS_HELD, {"study": study}))

    def roots_of(self, study: str) -> Sequence[tuple[str, bytes]]:
        """The study and root of each of its trees."""
        return [(uid, root) for uid, root in self._database.rows(_OF_STUDY, {"study": study})]

    def roots_for(self, member: str, now: int) -> Sequence[tuple[str, bytes]]:
        """The study and root of each tree that a member may fetch at `now` (microseconds)."""
        return [(uid, root) for uid, root in self._database.rows(_OF_MEMBER, {"to": member, "now": now})]

    def kept_for(self, member: str) -> Sequence[tuple[bytes, bytes]]:
        """The study tag and root of each tree kept here for a member: its own, or one that it is to keep as well."""
        return [(tag, root) for tag, root in self._database.rows(_KEPT_FOR, {"to": member})]

    def positions(self, blocks: Iterable[bytes]) -> Mapping[bytes, BlockPosition]:
        """Where those of many blocks lie that the index knows."""
        return positions_of(self._database, blocks)
