"""What scrub and fsck keep in the index: how far a pass is, what becomes of blocks that cannot be left alone."""

from __future__ import annotations

import json
from typing import Final

from sqlalchemy import bindparam, false, func, literal_column, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.writer import Submit, Transaction, run_one
from bridge.model import BlockPosition

_NAME, _LOST, _USELESS = "scrub", "scrub lost", "useless bytes"
_t, _m, _b = s.tree.c, s.meta.c, s.block.c
_LOAD: Final = sql(select(_m.value).where(_m.name == bindparam("of_name")))
_put = upsert(s.meta)
_SAVE: Final = sql(_put.on_conflict_do_update(index_elements=["name"], set_={"value": _put.excluded.value}))
_NEXT: Final = sql(
    select(_t.id)
    .where(_t.id > bindparam("after"), _t.root.is_not(None))
    .order_by(_t.id)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_LEFT: Final = sql(
    select(func.coalesce(func.sum(_t.covered + literal_column("1")), literal_column("0"))).where(
        _t.id > bindparam("after"), _t.root.is_not(None)
    )
)
_MOVE: Final = sql(update(s.block).where(_b.cid == bindparam("of_cid")), ("pack", "offset", "length"))
_LET_GO: Final = sql(
    update(s.block)
    .where(_b.cid == bindparam("of_cid"), _b.pack == bindparam("of_pack"), _b.instance.is_(None))
    .values(superseded=true())
)
_REPLACED: Final = sql(select(_b.cid).where(_b.cid == bindparam("of_cid"), _b.superseded))
_FLAG: Final = sql(
    update(s.instance)
    .where(
        s.instance.c.id == select(_b.instance).where(_b.cid == bindparam("of_cid"), ~_b.superseded).scalar_subquery()
    )
    .values(damaged=true())
)

_UNFLAG: Final = sql(
    update(s.instance).where(s.instance.c.tree == bindparam("of_tree"), s.instance.c.damaged).values(damaged=false())
)
_ROOTS: Final = sql(
    select(s.batch.c.root)
    .where(s.batch.c.study_tag == bindparam("of_tag"), s.batch.c.root.is_not(None))
    .order_by(s.batch.c.id.desc())
)


class ScrubState:
    """A few rows, two updates and what they need to know. Thread-safe.

    Every method may raise StorageFault; those that write, as a commit.
    """

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def load(self) -> dict[str, int]:
        """The numbers of the pass, as they were saved; {} when there are none."""
        rows = self._database.rows(_LOAD, {"of_name": _NAME})
        return dict(json.loads(rows[0][0])) if rows else {}

    def save(self, numbers: dict[str, int]) -> None:
        """Keep the numbers of the pass, durably."""
        run_one(self._submit, _SAVE, {"name": _NAME, "value": json.dumps(numbers).encode()})

    def next_tree(self, after: int) -> int | None:
        """The least id beyond `after` of a tree that has a root."""
        rows = self._database.rows(_NEXT, {"after": after})
        return int(rows[0][0]) if rows else None

    def left(self, after: int) -> int:
        """The weight (`bridge.services.scrub_plan.weight`) of all trees with a root and an id beyond `after`."""
        return int(self._database.rows(_LEFT, {"after": after})[0][0])

    def lost(self) -> list[int]:
        """The trees that were not whole when they were last read back, and could not be mended; by id."""
        rows = self._database.rows(_LOAD, {"of_name": _LOST})
        return list(json.loads(rows[0][0])) if rows else []

    def note(self, tree: int, *, lost: bool) -> None:
        """Write down whether a tree that was just read back is whole.

        Of one that was lost and is whole again, as when a disk or Kubo is back, no instance is damaged any more.
        """
        if (tree in self.lost()) is lost:
            return

        def change(transaction: Transaction) -> None:
            found = transaction.one(_LOAD, {"of_name": _LOST})
            held = {*json.loads(found[0] if found else b"[]")} - {tree}
            value = json.dumps(sorted(held | {tree} if lost else held)).encode()
            transaction.cursor.execute(_SAVE, {"name": _LOST, "value": value})
            if not lost:
                transaction.cursor.execute(_UNFLAG, {"of_tree": tree})

        self._submit(change).result()

    def former_roots(self, tag: bytes) -> list[bytes]:
        """The roots that closed batches of a study tag made, newest first. Reads all batches: for repairs alone."""
        return [root for (root,) in self._database.rows(_ROOTS, {"of_tag": tag})]

    def move(self, position: BlockPosition) -> None:
        """The block lies elsewhere in the packs now; whose it is does not change."""
        where = {"pack": position.pack, "offset": position.offset, "length": position.length}
        run_one(self._submit, _MOVE, {"of_cid": position.cid, **where})

    def let_go(self, position: BlockPosition) -> None:
        """A block that is no instance's is not missed when it is damaged, or its pack gone."""
        run_one(self._submit, _LET_GO, {"of_cid": position.cid, "of_pack": position.pack})

    def useless(self, pack: int) -> set[tuple[int, int]]:
        """Stretches of a pack that are known to hold no block of anybody's: offset and length, in bytes."""
        rows = self._database.rows(_LOAD, {"of_name": _USELESS})
        return {(at, length) for number, at, length in json.loads(rows[0][0] if rows else b"[]") if number == pack}

    def note_useless(self, place: BlockPosition) -> None:
        """Write down that a stretch holds no block that is named anywhere: nothing is missed that lay there."""

        def change(transaction: Transaction) -> None:
            found = transaction.one(_LOAD, {"of_name": _USELESS})
            held = json.loads(found[0] if found else b"[]")
            value = json.dumps([*held, [place.pack, place.offset, place.length]]).encode()
            transaction.cursor.execute(_SAVE, {"name": _USELESS, "value": value})

        self._submit(change).result()

    def replaced(self, cid: bytes) -> bool:
        """Whether another copy took the place of the one that a block belongs to: its tree's next root names it not."""
        return bool(self._database.rows(_REPLACED, {"of_cid": cid}))

    def flag(self, cid: bytes) -> None:
        """Flag the instance that a lost block belongs to: the same bytes sent again then heal it."""
        run_one(self._submit, _FLAG, {"of_cid": cid})
