"""What the content engine keeps, as it said: one row for each pinned root, for `bridge.content.pins.PinTable`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.content.pins import Pin
from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.writer import Submit, Transaction, run_one
from bridge.model import PinReceipt

_p, _t, _b = s.pin.c, s.tree.c, s.batch.c
_ROW: Final = select(_p.root, _p.pinned, _p.verified, _p.replicas, _p.wanted)
_put = upsert(s.pin)
_RECORD: Final = sql(
    _put.on_conflict_do_update(
        index_elements=["root"],
        set_={name: _put.excluded[name] for name in ("pinned", "replicas", "wanted")},
    ),
    ("root", "tree", "pinned", "replicas", "wanted"),
)
_TREE: Final = sql(select(_t.id).where(_t.root == bindparam("of_root")))
# Of a root that a newer one has followed meanwhile: rare, so that no index is kept for it.
_FORMER_TREE: Final = sql(
    select(_t.id).select_from(s.tree.join(s.batch, _b.study_tag == _t.tag)).where(_b.root == bindparam("of_root"))
)
_VERIFIED: Final = sql(update(s.pin).where(_p.root == bindparam("of_root")), ("verified",))
_DROP: Final = sql(delete(s.pin).where(_p.root == bindparam("of_root")))
_OF: Final = sql(_ROW.where(_p.root == bindparam("of_root")))
_OF_TREE: Final = sql(_ROW.where(_p.tree == bindparam("of_tree")).order_by(_p.pinned))
_ALL: Final = sql(_ROW.order_by(_p.pinned, _p.root))


class Pins:
    """The table of pins. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def record(self, root: bytes, receipt: PinReceipt, wanted: int) -> None:
        """Write down that a root is kept, as the receipt says, with `wanted` copies asked for; durable on return."""

        def record(transaction: Transaction) -> None:
            found = transaction.one(_TREE, {"of_root": root}) or transaction.one(_FORMER_TREE, {"of_root": root})
            tree = found[0] if found else None
            row = {"root": root, "tree": tree, "pinned": receipt.at, "replicas": receipt.replicas, "wanted": wanted}
            transaction.cursor.execute(_RECORD, row)

        self._submit(record).result()

    def verified(self, root: bytes, at: int | None) -> None:
        """Write down that everything below a root was read back whole at `at` (microseconds); None: it is not whole."""
        run_one(self._submit, _VERIFIED, {"of_root": root, "verified": at})

    def drop(self, root: bytes) -> None:
        """Forget a pin; without effect when there is none."""
        run_one(self._submit, _DROP, {"of_root": root})

    def of(self, root: bytes) -> Pin | None:
        """The pin of a root, if it is kept."""
        found = self._database.rows(_OF, {"of_root": root})
        return Pin(*found[0]) if found else None

    def of_tree(self, tree: int) -> list[Pin]:
        """The pins of a tree's roots, of its last one and of former ones not yet let go, oldest first."""
        return [Pin(*row) for row in self._database.rows(_OF_TREE, {"of_tree": tree})]

    def all(self) -> list[Pin]:
        """Every pin, the oldest first."""
        return [Pin(*row) for row in self._database.rows(_ALL, {})]
