"""Which member may fetch the sealed blocks of which study, and until when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Text, bindparam, delete, or_, select, union_all
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.replica_schema import replica_in, replica_out
from bridge.index.writer import Transaction

Submit = Callable[[Callable[[Transaction], Any]], "Future[Any]"]

_a = s.assignment.c
_put = upsert(s.assignment)
ASSIGN: Final = sql(
    _put.on_conflict_do_update(index_elements=["member", "study"], set_={"expires": _put.excluded.expires})
)
UNASSIGN: Final = sql(delete(s.assignment).where(_a.member == bindparam("to"), _a.study == bindparam("of_study")))
_EVERY: Final = sql(select(_a.member, _a.study, _a.expires).order_by(_a.member, _a.study))
_to: Final[ColumnElement[str]] = bindparam("to", type_=Text)
_of: Final[ColumnElement[str]] = bindparam("of_study", type_=Text)
_assigned = select(_a.member).where(
    _a.member == _to, _a.study == _of, or_(_a.expires.is_(None), _a.expires > bindparam("now"))
)
# Who keeps a study's sealed blocks for this node may fetch them; and whose study is kept here may have them back.
_study_of_tag = s.tree.join(s.study, s.study.c.id == s.tree.c.study)
_keeps = (
    select(replica_out.c.member)
    .select_from(_study_of_tag.join(replica_out, replica_out.c.tag == s.tree.c.tag))
    .where(replica_out.c.member == _to, replica_out.c.released.is_(None), s.study.c.uid == _of)
)
_kept = (
    select(replica_in.c.member)
    .select_from(_study_of_tag.join(replica_in, replica_in.c.tag == s.tree.c.tag))
    .where(replica_in.c.member == _to, s.study.c.uid == _of)
)
_MAY: Final = sql(union_all(_assigned, _keeps, _kept))


class Assignment(NamedTuple):
    """A member, a Study Instance UID, and until when (microseconds since the epoch; None for ever)."""

    member: str
    study: str
    expires: int | None


class Assignments:
    """The table of assignments. Thread-safe. Every method may raise StorageFault; writing ones as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def assign(self, assignment: Assignment) -> None:
        """Let a member fetch a study, or change until when; durable on return."""

        def assign(transaction: Transaction) -> None:
            transaction.cursor.execute(ASSIGN, assignment._asdict())

        self._submit(assign).result()

    def unassign(self, member: str, study: str) -> bool:
        """Take it back; False when there was no such assignment."""

        def unassign(transaction: Transaction) -> bool:
            return transaction.cursor.execute(UNASSIGN, {"to": member, "of_study": study}).rowcount == 1

        return bool(self._submit(unassign).result())

    def all(self) -> list[Assignment]:
        """All assignments by member and study, expired ones too."""
        return [Assignment(*row) for row in self._database.rows(_EVERY, {})]

    def allows(self, member: str, study: str, now: int) -> bool:
        """Whether a member may fetch a study at `now` (microseconds): assigned to it, kept by it, or kept for it."""
        return bool(self._database.rows(_MAY, {"to": member, "of_study": study, "now": now}))
