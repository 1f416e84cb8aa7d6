"""Step (6) of the way in: what one unit does to the tables, within the writer's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, false, insert, literal_column, null, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.index import schema as s
from bridge.index import trees
from bridge.index.batches import ADD_BLOCK, add_records
from bridge.index.database import columns_but_id, sql
from bridge.index.forgetting import REMIND
from bridge.index.rows import InstanceRows, Row, block_rows
from bridge.index.writer import Transaction
from bridge.model import AdoptedTree, Committed, Outcome, WriteUnit

_FIND_PATIENT: Final = sql(select(s.patient.c.id).where(s.patient.c.identity == bindparam("identity")))
_ADD_PATIENT: Final = sql(insert(s.patient), columns_but_id(s.patient))
_FIND_STUDY: Final = sql(select(s.study.c.id).where(s.study.c.uid == bindparam("uid")))
_ADD_STUDY: Final = sql(insert(s.study), columns_but_id(s.study))
_FIND_SERIES: Final = sql(
    select(s.series.c.id).where(s.series.c.study == bindparam("study"), s.series.c.uid == bindparam("uid"))
)
_ADD_SERIES: Final = sql(insert(s.series), columns_but_id(s.series))
_ADD_REQUEST: Final = sql(insert(s.series_request))
_ADD_CLASS: Final = sql(upsert(s.series_class).on_conflict_do_nothing())
_COUNT_ONE: Final = sql(
    update(s.series)
    .where(s.series.c.id == bindparam("series"))
    .values(instances=s.series.c.instances + literal_column("1"))
)
_VERSIONS: Final = sql(
    select(
        *(s.instance.c.id, s.instance.c.digest, s.instance.c.damaged, s.instance.c.served, s.instance.c.source),
        s.instance.c.tree,
    ).where(s.instance.c.series == bindparam("series"), s.instance.c.sop == bindparam("sop"))
)
_SERVE: Final = sql(
    update(s.instance)
    .where(s.instance.c.series == bindparam("in_series"), s.instance.c.sop == bindparam("of_sop"))
    .values(served=s.instance.c.id == bindparam("chosen"))
)
_ADD_INSTANCE: Final = sql(insert(s.instance), columns_but_id(s.instance))
_ADD_DATA: Final = sql(insert(s.instance_data))
_MARK_CONFLICT: Final = sql(
    update(s.instance)
    .where(s.instance.c.series == bindparam("in_series"), s.instance.c.sop == bindparam("of_sop"))
    .values(conflict=true())
)
_SUPERSEDE: Final = sql(
    update(s.block).where(s.block.c.instance == bindparam("healed")).values(superseded=true(), instance=null())
)
_LENT: Final = sql(
    select(s.tree.c.id)
    .select_from(s.tree.join(s.share_in, s.share_in.c.tag == s.tree.c.tag))
    .where(s.tree.c.id == bindparam("row"))
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_HEALED_COLUMNS: Final = (
    *("tree", "tag", "generation", "root", "header", "length", "link", "data_set", "received", "source"),
)
_HEAL: Final = sql(
    update(s.instance).where(s.instance.c.id == bindparam("healed")).values(damaged=false()), _HEALED_COLUMNS
)
_HEAL_DATA: Final = sql(
    update(s.instance_data).where(s.instance_data.c.instance == bindparam("healed")), ("frames", "bulk", "json")
)


def store(transaction: Transaction, rows: InstanceRows, unit: WriteUnit) -> Committed:
    """Place an instance and add the record of what was decided. Raises StorageFault when the batch is closed."""
    instance, outcome = place(transaction, rows)
    record = unit.recorded(outcome)
    return Committed(instance, outcome, add_records(transaction, unit.batch, (record,)), record)


def place(transaction: Transaction, rows: InstanceRows, *, replace: bool = False) -> tuple[int, Outcome]:
    """Decide new, version, again or healed under (study, series, SOP, digest), and write what follows.

    Of several versions the first is served, until its own sender sends another; another sender's is a conflict that
    an administrator decides.

    With `replace` the same bytes take the place of the copy held even when that is not flagged damaged, as a rebuild
    finds it damaged. What this node stores itself takes the place of a copy that a member's grant lent it, so that it
    stays when the grant ends; for the same reason nothing lent takes the place of what this node has, damaged or not.
    """
    study = _study(transaction, rows)
    tree = trees.of(transaction, {**rows.tree(), "study": study})
    series = _series(transaction, rows, study)
    versions = transaction.cursor.execute(_VERSIONS, {"series": series, "sop": rows.key.sop}).fetchall()
    same = next((version for version in versions if version[1] == rows.unit.digest), None)
    lent = same is not None and _is_lent(transaction, tree)
    if same is not None and rows.origin is None and _is_lent(transaction, same[5]):
        _heal(transaction, rows, tree, same)
        return same[0], Outcome.HEALED
    if same is None:
        under = {"study": study, "series": series, "tree": tree}
        row = _add_instance(transaction, rows, under, first=not versions)
        outcome = Outcome.VERSION if versions else Outcome.NEW
    elif (same[2] or replace) and not (lent and same[5] != tree):
        _heal(transaction, rows, tree, same)
        row, outcome = same[0], Outcome.HEALED
    else:
        row, outcome = same[0], Outcome.AGAIN
    if any(served and held != row and source == rows.unit.source for held, _, _, served, source, _ in versions):
        chosen = {"in_series": series, "of_sop": rows.key.sop, "chosen": row}
        transaction.cursor.execute(_SERVE, chosen)  # who sent what is served has sent something newer
    return row, outcome


def _is_lent(transaction: Transaction, tree: int) -> bool:
    return transaction.one(_LENT, {"row": tree}) is not None


def adopt(
    transaction: Transaction, tree: AdoptedTree, instances: Sequence[InstanceRows], blocks: Sequence[Row]
) -> tuple[Outcome, ...]:
    """Place the instances of a tree and keep it as it is; what was decided of each.

    An instance that is held already stays the copy it is; the tree's blocks are kept all the same.
    """
    transaction.cursor.executemany(ADD_BLOCK, blocks)
    transaction.cursor.executemany(REMIND, [{"of_cid": cid} for cid in (tree.root, *tree.pages, *tree.links)])
    outcomes = tuple(place(transaction, rows)[1] for rows in instances)
    found = transaction.one(_FIND_STUDY, {"uid": tree.study})
    trees.adopt(transaction, tree, found[0] if found else None)
    return outcomes


def _study(transaction: Transaction, rows: InstanceRows) -> int:
    uid = rows.key.study
    known = transaction.known.studies.get(uid)
    if known is None:
        found = transaction.one(_FIND_STUDY, {"uid": uid})
        known = (
            found[0]
            if found
            else transaction.insert(_ADD_STUDY, {**rows.study(), "patient": _patient(transaction, rows)})
        )
        transaction.known.studies[uid] = known
    return known


def _patient(transaction: Transaction, rows: InstanceRows) -> int:
    row = rows.patient()
    identity = row["identity"]
    known = transaction.known.patients.get(identity)
    if known is None:
        found = transaction.one(_FIND_PATIENT, {"identity": identity})
        known = found[0] if found else transaction.insert(_ADD_PATIENT, row)
        transaction.known.patients[identity] = known
    return known


def _series(transaction: Transaction, rows: InstanceRows, study: int) -> int:
    uid = rows.key.series
    known = transaction.known.series.get((study, uid))
    if known is None:
        found = transaction.one(_FIND_SERIES, {"study": study, "uid": uid})
        known = found[0] if found else _add_series(transaction, rows, study)
        transaction.known.series[study, uid] = known
    return known


def _add_series(transaction: Transaction, rows: InstanceRows, study: int) -> int:
    series = transaction.insert(_ADD_SERIES, {**rows.series(), "study": study})
    requests = [{**row, "series": series} for row in rows.requests()]
    if requests:
        transaction.cursor.executemany(_ADD_REQUEST, requests)
    return series


def _add_instance(transaction: Transaction, rows: InstanceRows, under: dict[str, int], *, first: bool) -> int:
    series = under["series"]
    row: Row = {**rows.instance, **under, "served": first, "conflict": not first}
    instance = transaction.insert(_ADD_INSTANCE, row)
    transaction.cursor.execute(_ADD_DATA, {**rows.data, "instance": instance})
    transaction.cursor.executemany(ADD_BLOCK, block_rows(rows.unit.blocks, instance))
    if first:
        transaction.cursor.execute(_COUNT_ONE, {"series": series})
        sop_class = (series, rows.unit.sop_class)
        if sop_class not in transaction.known.classes:
            transaction.cursor.execute(_ADD_CLASS, {"series": series, "sop_class": rows.unit.sop_class})
            transaction.known.classes.add(sop_class)
    else:
        transaction.cursor.execute(_MARK_CONFLICT, {"in_series": series, "of_sop": rows.key.sop})
    return instance


def _heal(transaction: Transaction, rows: InstanceRows, tree: int, held: Sequence[Any]) -> None:
    """Point the row at this copy, and have the next closing write the page that names it anew.

    When the copy came with another tree than the one held, both have other instances now.
    """
    instance, former = held[0], held[5]
    healed = {**rows.instance, "tree": tree}
    trees.uncover(transaction, former, instance)
    transaction.cursor.execute(_HEAL, {**{name: healed[name] for name in _HEALED_COLUMNS}, "healed": instance})
    if tree != former:
        trees.uncover(transaction, tree, instance)
    transaction.cursor.execute(_HEAL_DATA, {**rows.data, "healed": instance})
    transaction.cursor.execute(_SUPERSEDE, {"healed": instance})
    transaction.cursor.executemany(ADD_BLOCK, block_rows(rows.unit.blocks, instance))
