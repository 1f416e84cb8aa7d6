"""Studies given to members and received from them, each by the entry of the ledger that grants it.

Both tables are small: rows are changed one at a time, by what was read of them, so that a command and the process that
works behind it never undo each other's step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.assignments import ASSIGN, UNASSIGN
from bridge.index.database import Database, sql
from bridge.index.forgetting import Forgotten, forget
from bridge.index.writer import Submit, Transaction
from bridge.share_model import EMERGENCY, GRANT, Given, GivenState, Received, ReceivedState
from ledger.terms import MAX_REFS

__all__ = ["EMERGENCY", "GRANT", "Given", "GivenState", "Received", "ReceivedState", "Shares"]


class _Rows(NamedTuple):
    """The statements of one table, whose columns are in the order of its values."""

    add: str
    one: str
    every: str
    of_study: str
    due: str
    lapsed: str
    change: Callable[[Sequence[str]], str]
    note: Callable[[Sequence[str]], str]


def _rows(table: Table) -> _Rows:
    c = table.c
    base = select(table)

    def change(names: Sequence[str]) -> str:
        return sql(update(table).where(c.grant == bindparam("of_grant"), c.state == bindparam("of_state")), names)

    def note(names: Sequence[str]) -> str:
        return sql(update(table).where(c.grant == bindparam("of_grant")), names)

    return _Rows(
        sql(upsert(table).on_conflict_do_nothing()),
        sql(base.where(c.grant == bindparam("of_grant"))),
        sql(base.order_by(c.at.desc(), c.grant)),
        sql(base.where(c.study == bindparam("of_study")).order_by(c.at, c.grant)),
        sql(base.where(c.state == bindparam("of_state"), c.again <= bindparam("now")).order_by(c.again, c.at)),
        sql(base.where(c.expires <= bindparam("now"), c.ended.is_(None)).order_by(c.expires)),
        change,
        note,
    )


_GIVEN, _RECEIVED = _rows(s.share_out), _rows(s.share_in)
_LIVE_GIVEN: Final = sql(
    select(s.share_out)
    .where(
        s.share_out.c.study == bindparam("of_study"),
        s.share_out.c.node == bindparam("to"),
        s.share_out.c.state.in_([bindparam("granted"), bindparam("delivered")]),
    )
    .order_by(s.share_out.c.at)
)
_OUTDATED: Final = sql(
    select(s.share_out)
    .select_from(s.share_out.join(s.tree, s.tree.c.tag == s.share_out.c.tag))
    .where(
        s.share_out.c.state == bindparam("of_state"),
        s.share_out.c.again <= bindparam("now"),
        s.tree.c.root.is_not(None),
        s.tree.c.root != s.share_out.c.root,
    )
    .order_by(s.share_out.c.at)
)
_HELD: Final = sql(
    select(s.share_in.c.grant, s.share_in.c.tag)
    .where(s.share_in.c.study == bindparam("of_study"), s.share_in.c.state == bindparam("held"))
    .order_by(s.share_in.c.at)
)
_HAS_OWN: Final = sql(
    select(s.tree.c.id)
    .select_from(s.tree.join(s.study, s.study.c.id == s.tree.c.study))
    .where(s.study.c.uid == bindparam("of_study"), s.tree.c.origin.is_(None))
)
_WAS_FORGOTTEN: Final = sql(select(s.forgotten.c.cid).where(s.forgotten.c.cid == bindparam("of_cid")))
_OF_TAG: Final = sql(select(s.share_in).where(s.share_in.c.tag == bindparam("of_tag")).order_by(s.share_in.c.at))


class Shares:
    """The two tables. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def give(self, given: Given) -> bool:
        """Write down a grant to a member; False when it is known already."""
        return self._add(_GIVEN, given)

    def expect(self, received: Received) -> bool:
        """Write down a grant to this node; False when it is known already."""
        return self._add(_RECEIVED, received)

    def given(self, grant: bytes) -> Given | None:
        """The row of a grant to a member."""
        return next((Given(*row) for row in self._database.rows(_GIVEN.one, {"of_grant": grant})), None)

    def received(self, grant: bytes) -> Received | None:
        """The row of a grant to this node."""
        return next((Received(*row) for row in self._database.rows(_RECEIVED.one, {"of_grant": grant})), None)

    def all_given(self, study: str | None = None) -> list[Given]:
        """All grants to members, the newest first; of a study, the oldest first."""
        statement, values = (_GIVEN.every, {}) if study is None else (_GIVEN.of_study, {"of_study": study})
        return [Given(*row) for row in self._database.rows(statement, values)]

    def all_received(self, study: str | None = None) -> list[Received]:
        """All grants to this node, likewise."""
        statement, values = (_RECEIVED.every, {}) if study is None else (_RECEIVED.of_study, {"of_study": study})
        return [Received(*row) for row in self._database.rows(statement, values)]

    def received_of(self, tag: bytes) -> list[Received]:
        """All grants to this node of one tree, the oldest first."""
        return [Received(*row) for row in self._database.rows(_OF_TAG, {"of_tag": tag})]

    def rests_on(self, study: str) -> tuple[bytes | None, tuple[bytes, ...]]:
        """The grants (entry ids) that a study is held by; and its tag there, unless this node has images of its own.

        (None, ()) for a study that nobody gave.
        """
        with self._database.moment() as rows:
            held = rows(_HELD, {"of_study": study, "held": ReceivedState.HELD.value})
            own = bool(held) and bool(rows(_HAS_OWN, {"of_study": study}))
        if not held:
            return None, ()
        return None if own else held[0][1], tuple(grant for grant, _ in held[:MAX_REFS])

    def due_given(self, state: GivenState, now: int) -> list[Given]:
        """The grants to members in a state that may be tried now."""
        return [Given(*row) for row in self._database.rows(_GIVEN.due, {"of_state": state.value, "now": now})]

    def due_received(self, state: ReceivedState, now: int) -> list[Received]:
        """The grants to this node in a state that may be tried now."""
        return [Received(*row) for row in self._database.rows(_RECEIVED.due, {"of_state": state.value, "now": now})]

    def lapsed_given(self, now: int) -> list[Given]:
        """The grants to members whose time is over and that were not ended."""
        return [Given(*row) for row in self._database.rows(_GIVEN.lapsed, {"now": now})]

    def lapsed_received(self, now: int) -> list[Received]:
        """The grants to this node likewise."""
        return [Received(*row) for row in self._database.rows(_RECEIVED.lapsed, {"now": now})]

    def outdated(self, now: int) -> list[Given]:
        """What was delivered of studies that have grown since, and may be tried now."""
        values = {"of_state": GivenState.DELIVERED.value, "now": now}
        return [Given(*row) for row in self._database.rows(_OUTDATED, values)]

    def change_given(self, before: Given, **values: object) -> bool:
        """Change a row that is still in the state of `before`; False when it is not."""
        return self._change(_GIVEN, before.grant, before.state, values)

    def note(self, grant: bytes, **values: object) -> bool:
        """Write down what was learned of a grant to a member, whatever its state; False when it is not known."""
        return self._change(_GIVEN, grant, None, values)

    def change_received(self, before: Received, **values: object) -> bool:
        """Change a row that is still in the state of `before`; False when it is not."""
        return self._change(_RECEIVED, before.grant, before.state, values)

    def let(self, given: Given, **values: object) -> bool:
        """Change a row as `change_given`, and in the same transaction what the member may fetch.

        That follows from the grants of the study that live: until the last of them ends, or nothing.
        """

        def work(transaction: Transaction) -> bool:
            if not _changed(transaction, _GIVEN, given.grant, given.state, values):
                return False
            _assign(transaction, given)
            return True

        return bool(self._submit(work).result())

    def was_forgotten(self, cid: bytes) -> bool:
        """Whether an instance block, page or root is of a received tree that was given up."""
        return bool(self._database.rows(_WAS_FORGOTTEN, {"of_cid": cid}))

    def forget(self, tag: bytes, blocks: Sequence[bytes], *, keep_sealed: bool) -> Forgotten:
        """Forget a received tree: as `bridge.index.forgetting.forget`; durable on return."""

        def work(transaction: Transaction) -> Forgotten:
            return forget(transaction, tag, blocks, keep_sealed=keep_sealed)

        forgotten: Forgotten = self._submit(work).result()
        return forgotten

    def _add(self, rows: _Rows, row: Given | Received) -> bool:
        def work(transaction: Transaction) -> bool:
            return transaction.cursor.execute(rows.add, row._asdict()).rowcount == 1

        return bool(self._submit(work).result())

    def _change(self, rows: _Rows, grant: bytes, state: str | None, values: dict[str, object]) -> bool:
        return bool(self._submit(lambda transaction: _changed(transaction, rows, grant, state, values)).result())


def _changed(transaction: Transaction, rows: _Rows, grant: bytes, state: str | None, values: dict[str, object]) -> bool:
    named = {**values, "of_grant": grant}
    if state is None:
        return bool(transaction.cursor.execute(rows.note(sorted(values)), named).rowcount == 1)
    return bool(transaction.cursor.execute(rows.change(sorted(values)), {**named, "of_state": state}).rowcount == 1)


def _assign(transaction: Transaction, given: Given) -> None:
    values = {
        **{"of_study": given.study, "to": given.node},
        **{"granted": GivenState.GRANTED.value, "delivered": GivenState.DELIVERED.value},
    }
    live = [Given(*row) for row in transaction.cursor.execute(_LIVE_GIVEN, values).fetchall()]
    if not live:
        transaction.cursor.execute(UNASSIGN, {"to": given.member, "of_study": given.study})
        return
    ends = [one.expires for one in live if one.expires is not None]
    expires = max(ends) if len(ends) == len(live) else None
    transaction.cursor.execute(ASSIGN, {"member": given.member, "study": given.study, "expires": expires})
