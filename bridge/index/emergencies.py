"""Break-glass accesses across hospitals in the index: those of this node, and those to its studies."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, bindparam, false, literal_column, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index.database import Database, sql
from bridge.index.replica_schema import emergency
from bridge.index.writer import Submit, Transaction

__all__ = ["Emergencies", "EmergencyRow"]

_e = emergency.c
_none: Final[ColumnElement[Any]] = literal_column("0")
_ROW: Final = select(*emergency.columns)
_ADD: Final = sql(upsert(emergency).on_conflict_do_nothing())
_OF: Final = sql(_ROW.where(_e.entry == bindparam("of_entry")))
_ALL: Final = sql(_ROW.order_by(_e.started.desc(), _e.entry))
# Lasting, or not reviewed yet: what a banner shows.
_OPEN: Final = sql(
    _ROW.where(or_(_e.reviewed.is_(None), and_(_e.until > bindparam("now"), _e.ended.is_(None)))).order_by(
        _e.started.desc(), _e.entry
    )
)
_live = and_(_e.ended.is_(None), _e.until > bindparam("now"))
_TO_TELL: Final = sql(
    _ROW.where(
        _e.own == true(), _e.told.is_(None), _e.refused == false(), _live, _e.again <= bindparam("now")
    ).order_by(_e.again)
)
_TO_STATE: Final = sql(
    _ROW.where(_e.own == true(), _e.stated == false(), or_(_e.ended.is_not(None), _e.until <= bindparam("now")))
    .order_by(_e.until)
    .limit(literal_column("50"))
    .offset(_none)
)


class EmergencyRow(NamedTuple):
    """One access; columns as `bridge.index.replica_schema.emergency`."""

    entry: bytes
    own: bool
    node: bytes
    member: str
    study: str | None
    tag: bytes | None
    reason: str
    started: int
    until: int
    told: int | None = None
    trouble: str | None = None
    refused: bool = False
    tries: int = 0
    again: int = 0
    ended: int | None = None
    stated: bool = False
    reviewed: int | None = None


class Emergencies:
    """The table. Thread-safe. Every method may raise StorageFault; those that write, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def add(self, row: EmergencyRow) -> bool:
        """Write one down; False when it is known already."""

        def work(transaction: Transaction) -> bool:
            return transaction.cursor.execute(_ADD, row._asdict()).rowcount == 1

        return bool(self._submit(work).result())

    def of(self, entry: bytes) -> EmergencyRow | None:
        """The access that an entry started."""
        found = self._rows(_OF, {"of_entry": entry})
        return found[0] if found else None

    def all(self) -> list[EmergencyRow]:
        """All, the newest first."""
        return self._rows(_ALL, {})

    def open(self, now: int) -> list[EmergencyRow]:
        """Those that last or are not reviewed, the newest first."""
        return self._rows(_OPEN, {"now": now})

    def to_tell(self, now: int) -> list[EmergencyRow]:
        """This node's own of which the member is to be told now."""
        return self._rows(_TO_TELL, {"now": now})

    def to_state(self, now: int) -> list[EmergencyRow]:
        """This node's own that are over, which the ledger does not say yet."""
        return self._rows(_TO_STATE, {"now": now})

    def change(self, entry: bytes, **values: object) -> None:
        """Change columns of a row; durable on return."""
        statement = sql(update(emergency).where(_e.entry == bindparam("of_entry")), sorted(values))

        def work(transaction: Transaction) -> None:
            transaction.cursor.execute(statement, {**values, "of_entry": entry})

        self._submit(work).result()

    def _rows(self, statement: str, values: dict[str, Any]) -> list[EmergencyRow]:
        rows = (EmergencyRow(*row) for row in self._database.rows(statement, values))
        return [row._replace(own=bool(row.own), refused=bool(row.refused), stated=bool(row.stated)) for row in rows]
