"""Whether an index is sound: what its database finds, and what no constraint can say."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, case, func, literal_column, select

from bridge.errors import CairnError
from bridge.index import schema as s
from bridge.index.database import Database, sql

_i = s.instance.c
_one: Final[ColumnElement[int]] = literal_column("1")
_HOMELESS: Final = sql(select(func.count()).select_from(s.instance).where(_i.tree.is_(None)))
_is_served = func.sum(case((_i.served, _one), else_=literal_column("0")))
_several = select(_one).select_from(s.instance).group_by(_i.series, _i.sop).having(_is_served != _one)
_UNSERVED: Final = sql(select(func.count()).select_from(_several.subquery("several")))


def check(database: Database) -> list[str]:
    """Every problem in words; empty for a sound database. Reads all of it."""
    try:
        found = database.problems()
        homeless, unserved = (database.rows(text, {})[0][0] for text in (_HOMELESS, _UNSERVED))
    except CairnError as error:
        return [error.detail]
    if homeless:
        found.append(f"{homeless} instances belong to no tree")
    if unserved:
        found.append(f"{unserved} instances have not exactly one version that is served")
    return found
