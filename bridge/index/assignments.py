"""Which member may fetch the sealed blocks of which study, and until when."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.writer import Submit, Transaction

_a = s.assignment.c
_put = upsert(s.assignment)
ASSIGN: Final = sql(
    _put.on_conflict_do_update(index_elements=["member", "study"], set_={"expires": _put.excluded.expires})
)
UNASSIGN: Final = sql(delete(s.assignment).where(_a.member == bindparam("to"), _a.study == bindparam("of_study")))
_EVERY: Final = sql(select(_a.member, _a.study, _a.expires).order_by(_a.member, _a.study))


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
