"""Batches of records: opened by their first record, closed once, read by the ledger in the order of closing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, false, func, insert, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.errors import StorageFault
from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.index.records import leaves_of
from bridge.index.rows import Row, block_rows, record_rows
from bridge.index.trees import set_root
from bridge.index.writer import Transaction
from bridge.model import Actor, ActorKind, Batch, BatchClosing, Role, SealedRecord
from ledger.terms import REF_SIZE

_FIND: Final = sql(
    select(s.batch.c.id, s.batch.c.closed_seq, s.batch.c.records_root).where(s.batch.c.batch == bindparam("batch"))
)
_OPENED: Final = (
    *("batch", "owner", "type", "actor_kind", "actor_name", "actor_role", "actor_address", "actor_how"),
    *("study", "study_tag", "purpose", "opened", "outcome", "body", "refs"),
)
_OPEN: Final = sql(insert(s.batch), _OPENED)
_COUNT: Final = sql(select(func.count()).select_from(s.record).where(s.record.c.batch == bindparam("of_batch")))
_ADD_RECORD: Final = sql(insert(s.record))
_NEXT_CLOSED: Final = sql(
    select(func.coalesce(func.max(s.batch.c.closed_seq), literal_column("0")) + literal_column("1"))
)
_CLOSED: Final = (*("closed_seq", "closed", "records", "records_root", "root", "instances", "salt", "commitment"),)
_CLOSE: Final = sql(update(s.batch).where(s.batch.c.id == bindparam("row")), _CLOSED)
_put_block = upsert(s.block)
ADD_BLOCK: Final = sql(
    _put_block.on_conflict_do_update(
        index_elements=["cid"],
        set_={
            **{name: _put_block.excluded[name] for name in ("pack", "offset", "length")},
            "instance": func.coalesce(_put_block.excluded.instance, s.block.c.instance),
            "superseded": false(),
        },
    ),
    ("cid", "pack", "offset", "length", "instance"),
)
"""A block's position; the newest wins, so that a copy put again takes the place of one that was damaged, and is
missed when it goes, whatever was said of the one before. Whose block it is stays known."""

_OPEN_BATCHES: Final = sql(
    select(*(s.batch.c[name] for name in ("id", *_OPENED)))
    .where(s.batch.c.owner == bindparam("of_owner"), s.batch.c.closed_seq.is_(None))
    .order_by(s.batch.c.id)
)
_NEXT: Final = sql(
    select(s.batch.c.closed_seq, s.batch.c.id, s.batch.c.records_root)
    .where(s.batch.c.closed_seq > bindparam("after"))
    .order_by(s.batch.c.closed_seq)
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)


def add_records(transaction: Transaction, batch: Batch, records: Sequence[SealedRecord]) -> int:
    """Append records to an open batch, made by its first; the position of the first of them.

    Raises StorageFault when the batch is closed, Busy for a new one about a study that was erased meanwhile.
    """
    row, position = _open(transaction, batch)
    transaction.cursor.executemany(_ADD_RECORD, record_rows(row, position, records))
    transaction.known.batches[batch.id] = (row, position + len(records))
    return position


def _open(transaction: Transaction, batch: Batch) -> tuple[int, int]:
    known = transaction.known.batches.get(batch.id)
    if known is not None:
        return known
    found = transaction.one(_FIND, {"batch": batch.id})
    if found is None:
        if batch.study is not None and batch.study_tag is not None:
            transaction.refuse_gone(batch.study_tag, batch.study)
        return transaction.insert(_OPEN, _opened(batch)), 0
    row, closed, _ = found
    if closed is not None:
        raise StorageFault("the batch of records is closed already")
    return row, transaction.one(_COUNT, {"of_batch": row})[0]


def _opened(batch: Batch) -> Row:
    actor = batch.actor
    return {
        "batch": batch.id,
        "owner": batch.owner,
        "type": batch.type,
        "actor_kind": actor.kind.value,
        "actor_name": actor.name,
        "actor_role": None if actor.role is None else actor.role.value,
        "actor_address": actor.address,
        "actor_how": actor.how,
        "study": batch.study,
        "study_tag": batch.study_tag,
        "purpose": batch.purpose,
        "opened": batch.opened,
        "outcome": batch.outcome,
        "body": batch.body,
        "refs": b"".join(batch.refs) or None,
    }


def close_batch(transaction: Transaction, batch: Batch, closing: BatchClosing) -> None:
    """Close a batch and name the study's new root. Closing again in the same way changes nothing.

    Raises StorageFault when the batch is unknown or empty, was closed otherwise, or holds another number of records.
    """
    found = transaction.one(_FIND, {"batch": batch.id})
    if found is None:
        raise StorageFault("no such batch of records")
    row, closed, records_root = found
    if closed is not None:
        if records_root == closing.records_root:
            return
        raise StorageFault("the batch of records was closed otherwise")
    if transaction.one(_COUNT, {"of_batch": row})[0] != closing.records:
        raise StorageFault("the batch holds another number of records than its closing covers")
    transaction.cursor.execute(
        _CLOSE,
        {
            "row": row,
            "closed_seq": transaction.one(_NEXT_CLOSED, {})[0],
            "closed": closing.closed,
            "records": closing.records,
            "records_root": closing.records_root,
            "root": closing.root,
            "instances": closing.instances,
            "salt": closing.salt,
            "commitment": closing.commitment,
        },
    )
    transaction.known.batches.pop(batch.id, None)
    transaction.cursor.executemany(ADD_BLOCK, block_rows(closing.blocks, None))
    if closing.root is not None and batch.study_tag is not None:
        set_root(transaction, batch.study_tag, closing.root, closing.pages, closing.instances)


def open_batches(database: Database, owner: str) -> list[tuple[Batch, list[bytes]]]:
    """The batches open under a process's name, oldest first, each with its leaves in order. Raises StorageFault."""
    found = []
    for row, *opened in database.rows(_OPEN_BATCHES, {"of_owner": owner}):
        found.append((_batch(dict(zip(_OPENED, opened, strict=True))), leaves_of(database, row)))
    return found


def closed_records(database: Database) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Every closed batch in the order of closing: number, root, leaves in order. Raises StorageFault."""
    number = 0
    while found := database.rows(_NEXT, {"after": number}):
        number, row, root = found[0]
        yield number, root, leaves_of(database, row)


def split_refs(column: bytes | None) -> tuple[bytes, ...]:
    """The ids of entries (32 bytes each) that a column of them holds in a row."""
    return () if column is None else tuple(column[at : at + REF_SIZE] for at in range(0, len(column), REF_SIZE))


def _batch(row: dict[str, Any]) -> Batch:
    role = row["actor_role"]
    actor = Actor(
        ActorKind(row["actor_kind"]),
        row["actor_name"],
        None if role is None else Role(role),
        row["actor_address"],
        row["actor_how"],
    )
    return Batch(
        id=row["batch"],
        owner=row["owner"],
        type=row["type"],
        actor=actor,
        study=row["study"],
        study_tag=row["study_tag"],
        purpose=row["purpose"],
        opened=row["opened"],
        outcome=row["outcome"],
        body=row["body"],
        refs=split_refs(row["refs"]),
    )
