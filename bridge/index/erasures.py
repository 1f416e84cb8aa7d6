"""What an erased study leaves in the index: nothing that names it or says anything of it.

The records of its batches stay as they are, sealed under keys that are gone: their leaf hashes are what its entries
rest on. A batch of it reads "" in the place of its Study Instance UID, which says that it was about a study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import and_, bindparam, delete, null, or_, select, true, update
from sqlalchemy.sql.elements import BindParameter

from bridge.index import replica_schema as r
from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.forgetting import erase
from bridge.index.writer import Submit, Transaction
from bridge.share_model import GivenState, ReceivedState

__all__ = ["Erasures"]

_b = s.batch.c
_uid: Final[BindParameter[str]] = bindparam("of_study")
_NAMELESS: Final = (
    sql(
        update(s.batch).where(or_(_b.study == _uid, and_(_b.study.is_not(None), _b.study_tag == bindparam("of_tag")))),
        ("study",),
    ),
    sql(update(s.share_out).where(s.share_out.c.study == _uid), ("study",)),
    sql(delete(s.assignment).where(s.assignment.c.study == _uid)),
    sql(update(s.token).where(s.token.c.study == _uid), ("study",)),
)
_END_GIVEN: Final = sql(
    update(s.share_out).where(s.share_out.c.study == _uid, s.share_out.c.ended.is_(None)), ("state", "ended")
)
_END_RECEIVED: Final = sql(
    update(s.share_in).where(or_(s.share_in.c.study == _uid, s.share_in.c.tag == bindparam("of_tag"))),
    ("state", "study", "package", "fault"),
)
_ENDED_AT: Final = sql(
    update(s.share_in).where(
        or_(s.share_in.c.study == _uid, s.share_in.c.tag == bindparam("of_tag")), s.share_in.c.ended.is_(None)
    ),
    ("ended",),
)
_EMERGENCY: Final = sql(
    update(r.emergency).where(or_(r.emergency.c.study == _uid, r.emergency.c.tag == bindparam("of_tag"))), ("study",)
)
_LET_GO: Final = sql(
    update(s.block).where(s.block.c.cid == bindparam("of_cid")).values(superseded=true(), instance=null())
)
_FACT: Final = sql(
    select(_b.closed_seq, s.record.c.leaf)
    .select_from(s.batch.join(s.record, s.record.c.batch == _b.id))
    .where(_b.batch == bindparam("batch"))
)


class Erasures:
    """What a recipe does to the index. Thread-safe. May raise StorageFault; what writes, as `SqlIndex.commit`."""

    def __init__(self, database: Database, submit: Submit) -> None:
        self._database = database
        self._submit = submit

    def fact(self, batch: bytes) -> tuple[bytes, bool] | None:
        """Of a batch of one record, by its id: the record's leaf hash, and whether it is closed; None without it."""
        found = self._database.rows(_FACT, {"batch": batch})
        return (bytes(found[0][1]), found[0][0] is not None) if found else None

    def forget(self, study: str, tags: Sequence[bytes], kept_for_others: Callable[[bytes], bool], now: int) -> int:
        """Forget all trees of a study, and its name wherever else it stands; how many instances went."""
        keep = {tag: kept_for_others(tag) for tag in tags}

        def work(transaction: Transaction) -> int:
            count = sum(erase(transaction, tag, keep_sealed=keep[tag]).instances for tag in tags)
            for tag in tags:
                _forget_name(transaction, {"of_study": study, "of_tag": tag}, now)
            return count

        return int(self._submit(work).result())

    def let_go(self, blocks: Sequence[bytes]) -> None:
        """Blocks of a study that was erased are not missed any more."""
        rows = [{"of_cid": cid} for cid in blocks]

        def work(transaction: Transaction) -> None:
            transaction.cursor.executemany(_LET_GO, rows)

        self._submit(work).result()

    def empty_log(self) -> None:
        """What was deleted is not in the database's log any more, as far as it can be had. Raises Busy: do it again."""
        self._database.empty_log()


def _forget_name(transaction: Transaction, named: dict[str, object], now: int) -> None:
    cursor = transaction.cursor
    of_study = {"of_study": named["of_study"]}
    cursor.execute(_END_GIVEN, {**of_study, "state": GivenState.REVOKED.value, "ended": now})
    cursor.execute(_ENDED_AT, {**named, "ended": now})
    ended = {"state": ReceivedState.ENDED.value, "study": None, "package": None, "fault": None}
    cursor.execute(_END_RECEIVED, {**named, **ended})
    cursor.execute(_EMERGENCY, {**named, "study": None})
    for statement in _NAMELESS:
        cursor.execute(statement, {**named, "study": ""})
