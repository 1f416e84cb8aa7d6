"""Looking up: instances, their metadata, the study's manifest, block positions. Each call reads the newest commit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, exists, func, literal_column, select

from bridge.errors import ContentCorrupt, NotFound
from bridge.index import schema as s
from bridge.index.database import Database, sql
from bridge.model import BlockPosition, InstanceKey, SealedObject, StoredInstance

_i, _d = s.instance, s.instance_data
# By way of the series alone: offered instance.study as well, SQLite reads all of a study to find one instance of it.
_BELOW: Final = s.study.join(s.series, s.series.c.study == s.study.c.id).join(_i, _i.c.series == s.series.c.id)
_KEY: Final = (s.study.c.uid, s.series.c.uid.label("series_uid"), _i.c.sop)
_ORDER: Final[tuple[ColumnElement[Any], ...]] = (
    s.series.c.series_number.is_(None),
    s.series.c.series_number,
    s.series.c.uid,
    _i.c.instance_number.is_(None),
    _i.c.instance_number,
    _i.c.sop,
)
_STORED: Final = (
    *(_i.c.id, *_KEY, _i.c.sop_class, _i.c.transfer_syntax, _i.c.digest, s.tree.c.tag.label("study_tag"), _i.c.tag),
    _i.c.generation,
    *(_i.c.root, _i.c.header, _i.c.length, _i.c.data_set, _d.c.frames, _d.c.bulk, _i.c.damaged, _i.c.served),
)


def _levels(statement: Select[Any]) -> tuple[str, str, str]:
    """The statement below a study, below a series, and for one instance."""
    study = statement.where(s.study.c.uid == bindparam("study"))
    series = study.where(s.series.c.uid == bindparam("series"))
    return sql(study), sql(series), sql(series.where(_i.c.sop == bindparam("sop")))


# An outer join, so that SQLite cannot begin with the trees; every instance has one.
_stored = select(*_STORED).select_from(
    _BELOW.join(_d, _d.c.instance == _i.c.id).outerjoin(s.tree, s.tree.c.id == _i.c.tree)
)
_LOCATE: Final = _levels(_stored.where(_i.c.served).order_by(*_ORDER))
# A copy that came with another member's grant goes with it: who sends the instance here is to have it kept.
_LENT: Final = exists().where(s.share_in.c.tag == s.tree.c.tag, s.tree.c.id == _i.c.tree)
_SERVED: Final = _levels(select(_i.c.digest).select_from(_BELOW).where(_i.c.served, ~_i.c.damaged, ~_LENT))[2]
_KEYS: Final = _levels(select(_i.c.id, *_KEY).select_from(_BELOW).where(_i.c.served).order_by(*_ORDER))
_JSON: Final = sql(select(_d.c.json).where(_d.c.instance == bindparam("instance")))
_BLOCK: Final = sql(select(s.block.c.pack, s.block.c.offset, s.block.c.length).where(s.block.c.cid == bindparam("cid")))
_END: Final = sql(
    select(s.block.c.offset + s.block.c.length)
    .where(s.block.c.pack == bindparam("pack"))
    .order_by(s.block.c.offset.desc())
    .limit(literal_column("1"))
    .offset(literal_column("0"))
)
_POSITIONS: Final = sql(
    select(s.block.c.cid, s.block.c.pack, s.block.c.offset, s.block.c.length)
    .where(
        s.block.c.pack == bindparam("pack"),
        s.block.c.offset > bindparam("after"),
    )
    .order_by(s.block.c.offset)
    .limit(literal_column("1000"))
    .offset(literal_column("0"))
)
_SUPERSEDED: Final = sql(select(s.block.c.offset).where(s.block.c.pack == bindparam("pack"), s.block.c.superseded))
_PACKS: Final = sql(select(s.block.c.pack).distinct().order_by(s.block.c.pack))
_LAST_PACK: Final = sql(select(func.max(s.block.c.pack)))
_EVERY: Final = sql(
    _stored.add_columns(_i.c.link)
    .where(_i.c.id > bindparam("after"))
    .order_by(_i.c.id)
    .limit(literal_column("200"))
    .offset(literal_column("0"))
)
_ONE: Final = sql(_stored.where(_i.c.id == bindparam("instance")))
_COUNTS: Final = tuple(
    (name, sql(select(func.count()).select_from(table).where(*conditions)))
    for name, table, conditions in (
        ("patients", s.patient, ()),
        ("studies", s.study, ()),
        ("series", s.series, ()),
        ("instances", _i, ()),
        ("conflicts", _i, (_i.c.conflict,)),
        ("damaged", _i, (_i.c.damaged,)),
        ("blocks", s.block, ()),
        ("open_batches", s.batch, (s.batch.c.closed_seq.is_(None),)),
        ("closed_batches", s.batch, (s.batch.c.closed_seq.is_not(None),)),
        ("records", s.record, ()),
    )
)


def _choose(statements: tuple[str, str, str], series: str | None, sop: str | None) -> str:
    if series is None:
        return statements[0]
    return statements[1] if sop is None else statements[2]


def _instance(row: Sequence[Any]) -> StoredInstance:
    identity, study, series, sop, sop_class, syntax, digest, study_tag, tag, generation, *rest = row
    root, header, length, data_set, frames, bulk, damaged, served = rest
    return StoredInstance(
        id=identity,
        key=InstanceKey(study, series, sop),
        sop_class=sop_class,
        transfer_syntax=syntax,
        digest=digest,
        study_tag=study_tag or b"",  # of a damaged row, which fsck finds
        tag=tag,
        generation=generation,
        object=SealedObject(root, header, length),
        data_set=data_set,
        frames=frames,
        bulk=bulk,
        damaged=bool(damaged),
        served=bool(served),
    )


class Reader:
    """The lookups of one database. Thread-safe. Every method may raise StorageFault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def served_digest(self, key: InstanceKey) -> bytes | None:
        """As `bridge.ports.Index.served_digest`."""
        rows = self._database.rows(_SERVED, key._asdict())
        return bytes(rows[0][0]) if rows else None

    def locate(self, study: str, series: str | None = None, sop: str | None = None) -> Sequence[StoredInstance]:
        """As `bridge.ports.Index.locate`: by series number and UID, then instance number and UID."""
        rows = self._database.rows(_choose(_LOCATE, series, sop), {"study": study, "series": series, "sop": sop})
        if not rows:
            raise NotFound("nothing is held under these UIDs")
        return [_instance(row) for row in rows]

    def metadata(self, study: str, series: str | None, sop: str | None) -> Iterator[tuple[InstanceKey, bytes]]:
        """As `bridge.ports.Index.metadata`, in the order of `locate`; an instance erased meanwhile is left out."""
        rows = self._database.rows(_choose(_KEYS, series, sop), {"study": study, "series": series, "sop": sop})
        if not rows:
            raise NotFound("nothing is held under these UIDs")
        return self._each_json(rows)

    def _each_json(self, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[InstanceKey, bytes]]:
        for identity, *key in rows:
            for (packed,) in self._database.rows(_JSON, {"instance": identity}):
                yield InstanceKey(*key), zlib.decompress(packed)

    def locate_block(self, cid: bytes) -> BlockPosition | None:
        """Where a block lies, if the index knows."""
        rows = self._database.rows(_BLOCK, {"cid": cid})
        return BlockPosition(cid, *rows[0]) if rows else None

    def committed_end(self, pack: int) -> int:
        """The offset behind the last byte of the pack that a committed row refers to; 0 when none does."""
        rows = self._database.rows(_END, {"pack": pack})
        return int(rows[0][0]) if rows else 0

    def positions(self, pack: int) -> Iterator[BlockPosition]:
        """Every known block of a pack by ascending offset, read a thousand at a time."""
        after = -1
        while rows := self._database.rows(_POSITIONS, {"pack": pack, "after": after}):
            for row in rows:
                yield BlockPosition(*row)
            after = rows[-1][2]

    def packs(self) -> list[int]:
        """The numbers of the packs that the index names, ascending."""
        return [int(pack) for (pack,) in self._database.rows(_PACKS, {})]

    def last_pack(self) -> int:
        """The highest number of a pack that the index names; -1 when it names none."""
        found = self._database.rows(_LAST_PACK, {})[0][0]
        return -1 if found is None else int(found)

    def instances(self) -> Iterator[tuple[StoredInstance, bytes]]:
        """Every instance in the order of arrival with its instance block's CID, read two hundred at a time."""
        after = 0
        while rows := self._database.rows(_EVERY, {"after": after}):
            for *row, link in rows:
                yield _instance(row), link
            after = rows[-1][0]

    def instance(self, row: int) -> StoredInstance:
        """One version of an instance by its row. Raises NotFound."""
        rows = self._database.rows(_ONE, {"instance": row})
        if not rows:
            raise NotFound("no such instance")
        return _instance(rows[0])

    def json(self, instance: int) -> bytes:
        """The DICOM JSON of one version of an instance. Raises ContentCorrupt when it cannot be inflated, NotFound."""
        rows = self._database.rows(_JSON, {"instance": instance})
        if not rows:
            raise NotFound("the instance has no JSON")
        try:
            return zlib.decompress(rows[0][0])
        except zlib.error as error:
            raise ContentCorrupt("the index's JSON cannot be inflated") from error

    def superseded(self, pack: int) -> set[int]:
        """The offsets in a pack of blocks whose instance was healed since: damage there loses nothing."""
        return {offset for (offset,) in self._database.rows(_SUPERSEDED, {"pack": pack})}

    def counts(self) -> dict[str, int]:
        """How much there is, by name, for the overview and metrics; counts rows, so not for every request."""
        return {name: int(self._database.rows(text, {})[0][0]) for name, text in _COUNTS}
