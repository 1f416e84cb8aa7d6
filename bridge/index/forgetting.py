"""Forgetting a tree whose keys are gone: another node's when a grant has ended, or any when its study is erased.

Its instances go, and what searches know of them alone: series, study and patient without any other instance. What this
node stored itself, or holds by another tree, stays; a study or series that stays is described by what is left of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, exists, false, insert, literal_column, null, select, true, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.content.sealed_metadata import inflate
from bridge.dicom import attributes
from bridge.errors import RequestError
from bridge.index import schema as s
from bridge.index.database import columns_but_id, sql
from bridge.index.rows import patient_row, request_rows, series_row, study_row
from bridge.index.writer import Transaction
from bridge.model import Attributes

__all__ = ["REMIND", "Forgotten", "erase", "forget"]

_t, _i, _b, _p = s.tree.c, s.instance.c, s.block.c, s.pin.c
_TREE: Final = sql(select(_t.id, _t.origin, _t.study).where(_t.tag == bindparam("of_tag")))
_INSTANCES: Final = sql(select(_i.id, _i.series, _i.sop).where(_i.tree == bindparam("row")).order_by(_i.id))
_DROP_DATA: Final = sql(delete(s.instance_data).where(s.instance_data.c.instance == bindparam("of_instance")))
_DROP_BLOCKS: Final = sql(delete(s.block).where(_b.instance == bindparam("of_instance")))
_SUPERSEDE_BLOCKS: Final = sql(
    update(s.block).where(_b.instance == bindparam("of_instance")).values(superseded=true(), instance=null())
)
_FREE_BLOCKS: Final = sql(update(s.block).where(_b.instance == bindparam("of_instance")).values(instance=null()))
_DAG_CBOR: Final = b"\x71"
_DROP_BLOCK: Final = sql(delete(s.block).where(_b.cid == bindparam("of_cid"), _b.instance.is_(None)))
_LINKS: Final = sql(select(_i.link).where(_i.tree == bindparam("row")))
_REMEMBER: Final = sql(upsert(s.forgotten).on_conflict_do_nothing())
REMIND: Final = sql(delete(s.forgotten).where(s.forgotten.c.cid == bindparam("of_cid")))
"""A block is of a tree that is held again."""
_DROP_INSTANCES: Final = sql(delete(s.instance).where(_i.tree == bindparam("row")))
_VERSIONS: Final = sql(
    select(_i.id, _i.served).where(_i.series == bindparam("in_series"), _i.sop == bindparam("of_sop")).order_by(_i.id)
)
_SERVE: Final = sql(update(s.instance).where(_i.id == bindparam("chosen")).values(served=true()))
_SETTLE: Final = sql(update(s.instance).where(_i.id == bindparam("chosen")).values(conflict=false()))
_COUNT_DOWN: Final = sql(
    update(s.series)
    .where(s.series.c.id == bindparam("row"))
    .values(instances=s.series.c.instances - literal_column("1"))
)
_first = select(_i.id, s.instance_data.c.json).select_from(
    s.instance.join(s.instance_data, s.instance_data.c.instance == _i.id)
)
_FIRST_OF_SERIES: Final = sql(_first.where(_i.series == bindparam("row")).order_by(_i.id))
_FIRST_OF_STUDY: Final = sql(_first.where(_i.study == bindparam("row")).order_by(_i.id))
_DROP_REQUESTS: Final = sql(delete(s.series_request).where(s.series_request.c.series == bindparam("row")))
_ADD_REQUEST: Final = sql(insert(s.series_request))
_DROP_CLASSES: Final = sql(delete(s.series_class).where(s.series_class.c.series == bindparam("row")))
_CLASSES: Final = sql(select(_i.sop_class).distinct().where(_i.series == bindparam("row")))
_ADD_CLASS: Final = sql(upsert(s.series_class).on_conflict_do_nothing())
_SERIES: Final = sql(select(s.series.c.uid).where(s.series.c.id == bindparam("row")))
_DROP_SERIES: Final = sql(delete(s.series).where(s.series.c.id == bindparam("row")))
_STUDY: Final = sql(select(s.study.c.uid, s.study.c.patient).where(s.study.c.id == bindparam("row")))
_NAMELESS: Final = sql(update(s.tree).where(_t.study == bindparam("of_study")).values(study=null()))
_DROP_STUDY: Final = sql(delete(s.study).where(s.study.c.id == bindparam("row")))
_FIND_PATIENT: Final = sql(select(s.patient.c.id).where(s.patient.c.identity == bindparam("identity")))
_ADD_PATIENT: Final = sql(insert(s.patient), columns_but_id(s.patient))
_DROP_PATIENT: Final = sql(
    delete(s.patient).where(s.patient.c.id == bindparam("row"), ~exists().where(s.study.c.patient == s.patient.c.id))
)
_SERIES_TOLD: Final = [name for name in columns_but_id(s.series) if name not in ("study", "uid", "instances")]
_STUDY_TOLD: Final = [name for name in columns_but_id(s.study) if name not in ("uid", "received")]
_TELL_SERIES: Final = sql(update(s.series).where(s.series.c.id == bindparam("row")), _SERIES_TOLD)
_TELL_STUDY: Final = sql(update(s.study).where(s.study.c.id == bindparam("row")), _STUDY_TOLD)
_DROP_PAGES: Final = sql(delete(s.study_page).where(s.study_page.c.tree == bindparam("row")))
_FREE_PINS: Final = sql(update(s.pin).where(_p.tree == bindparam("row")).values(tree=null()))
_DROP_TREE: Final = sql(delete(s.tree).where(_t.id == bindparam("row")))
_NOBODYS: Final = sql(update(s.tree).where(_t.id == bindparam("row")).values(study=null()), ("origin",))


class Forgotten(NamedTuple):
    """What went: how many instances, and whether the study has others left."""

    instances: int
    remains: bool


def forget(transaction: Transaction, tag: bytes, blocks: Sequence[bytes], *, keep_sealed: bool) -> Forgotten:
    """Forget the tree of a study tag; without effect when there is none.

    Parameters
    ----------
    blocks
        The CIDs of the tree, as far as they are known: those that are no instance's rows are forgotten by them.
    keep_sealed
        Keep the tree and its blocks for others, as one whose key was never held.

    Raises RequestError for a tree that this node made itself.
    """
    found = transaction.one(_TREE, {"of_tag": tag})
    if found is None:
        return Forgotten(0, remains=False)
    tree, origin, study = found
    if origin is None:
        raise RequestError("a study's own tree is not forgotten")
    cursor = transaction.cursor
    links = [link for (link,) in cursor.execute(_LINKS, {"row": tree}).fetchall()]
    instances = _drop_instances(transaction, tree, _FREE_BLOCKS if keep_sealed else _DROP_BLOCKS)
    if keep_sealed:
        cursor.execute(_NOBODYS, {"row": tree, "origin": b""})
    else:
        cursor.executemany(_REMEMBER, [{"cid": cid} for cid in sorted({*links, *filter(_is_linking, blocks)})])
        cursor.executemany(_DROP_BLOCK, [{"of_cid": cid} for cid in blocks])
        _drop_tree(transaction, tree)
    return Forgotten(instances, remains=study is not None and _settle_study(transaction, study))


def erase(transaction: Transaction, tag: bytes, *, keep_sealed: bool) -> Forgotten:
    """Forget the tree of a study tag, this node's own too; without effect when there is none.

    Its blocks stay known, as superseded: every byte of a pack belongs to something, and nobody misses them. With
    `keep_sealed` they are kept for others, as of a tree whose key was never held.
    """
    found = transaction.one(_TREE, {"of_tag": tag})
    if found is None:
        return Forgotten(0, remains=False)
    tree, _, study = found
    instances = _drop_instances(transaction, tree, _FREE_BLOCKS if keep_sealed else _SUPERSEDE_BLOCKS)
    if keep_sealed:
        transaction.cursor.execute(_NOBODYS, {"row": tree, "origin": b""})
    else:
        _drop_tree(transaction, tree)
    return Forgotten(instances, remains=study is not None and _settle_study(transaction, study))


def _drop_instances(transaction: Transaction, tree: int, let_go_of_blocks: str) -> int:
    """Drop a tree's instances, and settle what their series say; how many they were."""
    transaction.known.clear()
    cursor = transaction.cursor
    instances = cursor.execute(_INSTANCES, {"row": tree}).fetchall()
    of_each = [{"of_instance": row} for row, _, _ in instances]
    cursor.executemany(let_go_of_blocks, of_each)
    cursor.executemany(_DROP_DATA, of_each)
    cursor.execute(_DROP_INSTANCES, {"row": tree})
    for series, sop in {(series, sop): None for _, series, sop in instances}:
        _settle_versions(transaction, series, sop)
    for series in {series: None for _, series, _ in instances}:
        _settle_series(transaction, series)
    return len(instances)


def _drop_tree(transaction: Transaction, tree: int) -> None:
    for statement in (_DROP_PAGES, _FREE_PINS, _DROP_TREE):
        transaction.cursor.execute(statement, {"row": tree})


def _is_linking(cid: bytes) -> bool:
    """Whether a block of this CID may be an instance block, page or root."""
    return cid[1:2] == _DAG_CBOR


def _settle_versions(transaction: Transaction, series: int, sop: str) -> None:
    """Of the versions that are left one is served, and a single one is in no conflict."""
    left = transaction.cursor.execute(_VERSIONS, {"in_series": series, "of_sop": sop}).fetchall()
    if not left:
        transaction.cursor.execute(_COUNT_DOWN, {"row": series})
        return
    if not any(served for _, served in left):
        transaction.cursor.execute(_SERVE, {"chosen": left[0][0]})
    if len(left) == 1:
        transaction.cursor.execute(_SETTLE, {"chosen": left[0][0]})


def _settle_series(transaction: Transaction, series: int) -> None:
    """A series is described by the first of what is left of it, or goes."""
    cursor, row = transaction.cursor, {"row": series}
    first = transaction.one(_FIRST_OF_SERIES, row)
    cursor.execute(_DROP_REQUESTS, row)
    cursor.execute(_DROP_CLASSES, row)
    if first is None:
        cursor.execute(_DROP_SERIES, row)
        return
    told = _told(first)
    (uid,) = transaction.one(_SERIES, row)
    values = series_row(uid, told)
    cursor.execute(_TELL_SERIES, {**{name: values[name] for name in _SERIES_TOLD}, **row})
    cursor.executemany(_ADD_REQUEST, [{**request, "series": series} for request in request_rows(told)])
    classes = cursor.execute(_CLASSES, row).fetchall()
    cursor.executemany(_ADD_CLASS, [{"series": series, "sop_class": sop_class} for (sop_class,) in classes])


def _settle_study(transaction: Transaction, study: int) -> bool:
    """A study and its patient likewise; whether it stays."""
    cursor, row = transaction.cursor, {"row": study}
    uid, former = transaction.one(_STUDY, row)
    first = transaction.one(_FIRST_OF_STUDY, row)
    if first is None:
        cursor.execute(_NAMELESS, {"of_study": study})
        cursor.execute(_DROP_STUDY, row)
    else:
        told = _told(first)
        patient = patient_row(told)
        held = transaction.one(_FIND_PATIENT, {"identity": patient["identity"]})
        values: dict[str, Any] = study_row(uid, told)
        values["patient"] = held[0] if held else transaction.insert(_ADD_PATIENT, patient)
        cursor.execute(_TELL_STUDY, {**{name: values[name] for name in _STUDY_TOLD}, **row})
    cursor.execute(_DROP_PATIENT, {"row": former})
    return first is not None


def _told(first: Sequence[Any]) -> Attributes:
    """What an instance's JSON says of all levels. Raises ContentCorrupt."""
    return attributes.extract(json.loads(inflate(first[1])))
