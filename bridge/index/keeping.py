"""What the index knows of how far the archive is in its content engine: `bridge.services.keep_content.Kept`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import and_, bindparam, case, func, literal_column, or_, select, union_all

from bridge.content.upkeep import Standing, TreeState
from bridge.index import schema as s
from bridge.index.content_state import ContentState
from bridge.index.database import Database, sql
from bridge.index.pins import Pins

_t, _i, _b, _page = s.tree.c, s.instance.c, s.block.c, s.study_page.c
_now, _former = s.pin.alias("now"), s.pin.alias("former")
_to_former = and_(_former.c.tree == _t.id, _former.c.root != _t.root)
_STATE: Final = (_t.id, _t.root, _former.c.root, _former.c.verified.is_not(None))
# A root with fewer copies than its former one had does not take that one's place yet.
_copies_suffice = or_(_now.c.replicas >= _now.c.wanted, _now.c.replicas >= _former.c.replicas)
_WAITING: Final = sql(
    select(*_STATE)
    .select_from(s.tree.outerjoin(_now, _now.c.root == _t.root).outerjoin(_former, _to_former))
    .where(_t.root.is_not(None), _now.c.root.is_(None))
    .order_by(_t.id, _former.c.verified.nulls_first(), _former.c.pinned)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_UNVERIFIED: Final = sql(
    select(*_STATE)
    .select_from(s.tree.join(_now, _now.c.root == _t.root).outerjoin(_former, _to_former))
    .where(_now.c.verified.is_(None))
    .order_by(_t.id, _former.c.verified.nulls_first(), _former.c.pinned)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_STALE: Final = sql(
    select(_former.c.root)
    .select_from(s.tree.join(_now, _now.c.root == _t.root).join(_former, _to_former))
    .where(_now.c.verified.is_not(None), _copies_suffice)
    .order_by(_former.c.pinned)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_SHORT: Final = sql(
    select(s.pin.c.root)
    .where(s.pin.c.replicas < s.pin.c.wanted)
    .order_by(s.pin.c.pinned)
    .limit(bindparam("most"))
    .offset(literal_column("0"))
)
_COUNT_WAITING: Final = sql(
    select(func.count())
    .select_from(s.tree.outerjoin(_now, _now.c.root == _t.root))
    .where(_t.root.is_not(None), _now.c.root.is_(None))
)
_COUNT_PINS: Final = sql(
    select(
        func.count(),
        func.count(s.pin.c.verified),
        func.count().filter(s.pin.c.replicas < s.pin.c.wanted),
        func.min(s.pin.c.verified),
    )
)
# Read back, and with as many copies as are wanted: only then may the spool's be removed.
_is_safe = and_(_now.c.verified.is_not(None), _now.c.replicas >= _now.c.wanted)
# The trees whose instances lie in the pack, of each its root if that is verified and covers all that there is of it.
_in_pack = (
    select(_i.tree.label("tree"))
    .distinct()
    .select_from(s.block.join(s.instance, _i.id == _b.instance))
    .where(_b.pack == bindparam("of_pack"), ~_b.superseded)
    .subquery("in_pack")
)
_instances = select(func.count()).select_from(s.instance).where(_i.tree == _t.id).scalar_subquery()
_ROOTS: Final = sql(
    select(_t.root, and_(_is_safe, _instances <= _t.covered))
    .select_from(_in_pack)
    .join(s.tree, _t.id == _in_pack.c.tree)
    .outerjoin(_now, _now.c.root == _t.root)
)
# Whose blocks lie in a pack is known by their instances alone: of trees that are kept for others there are none.
_FOREIGN: Final = sql(
    select(_t.root, _is_safe)
    .select_from(s.tree.outerjoin(_now, _now.c.root == _t.root))
    .where(_t.study.is_(None), _t.root.is_not(None))
)
_BLOCKS: Final = sql(
    select(
        _b.cid,
        or_(
            _b.instance.is_not(None),
            func.substr(_b.cid, literal_column("2"), literal_column("1")) != bindparam("dag_cbor"),
        ),
        _b.offset,
    )
    .where(_b.pack == bindparam("of_pack"), _b.offset > bindparam("after"), ~_b.superseded)
    .order_by(_b.offset)
    .limit(literal_column("1000"))
    .offset(literal_column("0"))
)
# A section: varint of CID and block together, the CID of 36 bytes, the block (CARv1; unsigned-varint).
_in_section = _b.length + literal_column("36")
_EXTENT: Final = sql(
    select(
        func.sum(
            _in_section
            + case(
                (_in_section < literal_column("128"), literal_column("1")),
                (_in_section < literal_column("16384"), literal_column("2")),
                (_in_section < literal_column("2097152"), literal_column("3")),
                else_=literal_column("4"),
            )
        )
    ).where(_b.pack == bindparam("of_pack"))
)
_ANY_FOREIGN: Final = sql(
    select(_b.cid)
    .where(_b.pack == bindparam("of_pack"), _b.instance.is_(None), ~_b.superseded)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_NAMES: Final = sql(
    union_all(
        select(_t.id).where(_t.root == bindparam("of_cid")), select(_page.tree).where(_page.cid == bindparam("of_cid"))
    )
)
_DAG_CBOR: Final = b"\x71"


class Keeping:
    """As `bridge.services.keep_content.Kept`, and counts for those who ask. Thread-safe."""

    def __init__(self, database: Database, pins: Pins, state: ContentState) -> None:
        self._database, self._pins, self._state = database, pins, state

    def standing(self, most: int) -> Standing:
        """As Kept; the lists are of one moment."""
        with self._database.moment() as rows:
            waiting, unverified = rows(_WAITING, {"most": most}), rows(_UNVERIFIED, {"most": most})
            stale, short = rows(_STALE, {"most": most}), rows(_SHORT, {"most": most})
        return Standing(_states(waiting), _states(unverified), [root for (root,) in stale], [root for (root,) in short])

    def verified(self, root: bytes, at: int | None) -> None:
        """As Kept."""
        self._pins.verified(root, at)

    def roots_of(self, pack: int) -> Sequence[bytes] | None:
        """As Kept."""
        rows = self._database.rows(_ROOTS, {"of_pack": pack})
        if self._database.rows(_ANY_FOREIGN, {"of_pack": pack}):
            rows += self._database.rows(_FOREIGN, {})
        return [root for root, _ in rows] if all(settled for _, settled in rows) else None

    def blocks(self, pack: int) -> Iterator[tuple[bytes, bool]]:
        """As Kept; read a thousand at a time. Of dag-cbor blocks of no instance it is not known whether they are."""
        after = -1
        values: dict[str, Any] = {"of_pack": pack, "dag_cbor": _DAG_CBOR}
        while rows := self._database.rows(_BLOCKS, {**values, "after": after}):
            for cid, owned, _ in rows:
                yield cid, bool(owned)
            after = rows[-1][2]

    def extent(self, pack: int) -> int:
        """As Kept."""
        return int(self._database.rows(_EXTENT, {"of_pack": pack})[0][0] or 0)

    def names(self, cid: bytes) -> bool:
        """As Kept."""
        return bool(self._database.rows(_NAMES, {"of_cid": cid}))

    def trim(self, pack: int, at: int) -> None:
        """As Kept."""
        self._state.trim(pack, at)

    def trimmed(self) -> Collection[int]:
        """As Kept."""
        return self._state.trimmed()

    def untrim(self, pack: int) -> None:
        """As Kept."""
        self._state.untrim(pack)

    def counts(self) -> dict[str, int | None]:
        """How many roots wait, are pinned, were verified, have too few copies; when the longest unread one was read."""
        waiting = self._database.rows(_COUNT_WAITING, {})[0][0]
        pinned, verified, short, oldest = self._database.rows(_COUNT_PINS, {})[0]
        return {
            "waiting": waiting,
            "pinned": pinned,
            "verified": verified,
            "short": short,
            "verified_before": oldest,
        }


def _states(rows: Sequence[Any]) -> list[TreeState]:
    """One state a tree: of several former roots the last, which is a verified one if there is any."""
    states = {tree: TreeState(tree, root, former, bool(verified)) for tree, root, former, verified in rows}
    return list(states.values())
