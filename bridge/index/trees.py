"""The manifests of studies in the index: whose each is, its root and pages, and which instances came with it.

A node's own tree of a study grows with what is stored; one adopted from another node stays as it is, so that its CIDs
are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from bridge.content.manifest import PAGE_LINKS
from bridge.errors import NotFound, StorageFault
from bridge.index import schema as s
from bridge.index.database import Database, columns_but_id, sql
from bridge.index.rows import Row
from bridge.index.writer import Transaction
from bridge.model import AdoptedTree, StudyTree, Tree

_t, _i = s.tree.c, s.instance.c
_FIND: Final = sql(select(_t.id, _t.study).where(_t.tag == bindparam("of_tag")))
_ADD: Final = sql(insert(s.tree), columns_but_id(s.tree))
_ORIGIN: Final = sql(select(_t.origin, _t.root).where(_t.id == bindparam("row")))
_NAME: Final = sql(update(s.tree).where(_t.id == bindparam("row")), ("study", "origin"))
_COVERED: Final = sql(select(_t.id, _t.covered).where(_t.tag == bindparam("of_tag")))
_SET_ROOT: Final = sql(update(s.tree).where(_t.id == bindparam("row")), ("root", "covered"))
_OWN_PIN: Final = sql(update(s.pin).where(s.pin.c.root == bindparam("of_root"), s.pin.c.tree.is_(None)), ("tree",))
_HELD_PAGES: Final = sql(
    select(s.study_page.c.position, s.study_page.c.cid).where(s.study_page.c.tree == bindparam("row"))
)
_put_page = upsert(s.study_page)
_PUT_PAGE: Final = sql(
    _put_page.on_conflict_do_update(index_elements=["tree", "position"], set_={"cid": _put_page.excluded.cid})
)
_CUT_PAGES: Final = sql(
    delete(s.study_page).where(s.study_page.c.tree == bindparam("row"), s.study_page.c.position >= bindparam("count"))
)
_ARRIVED_BEFORE: Final = sql(
    select(func.count()).select_from(s.instance).where(_i.tree == bindparam("row"), _i.id < bindparam("healed"))
)
_UNCOVER: Final = sql(
    update(s.tree).where(_t.id == bindparam("row"), _t.covered > bindparam("from_here"), _t.origin.is_(None)),
    ("covered",),
)
_MANIFEST: Final = sql(select(_t.id, _t.origin, _t.root, _t.covered).where(_t.tag == bindparam("of_tag")))
_PAGES: Final = sql(
    select(s.study_page.c.cid).where(s.study_page.c.tree == bindparam("row")).order_by(s.study_page.c.position)
)
_GENERATIONS: Final = sql(
    select(_i.generation)
    .distinct()
    .select_from(s.instance.join(s.tree, _t.id == _i.tree))
    .where(_t.tag == bindparam("of_tag"))
    .order_by(_i.generation)
)
_LINKS: Final = sql(select(_i.link).where(_i.tree == bindparam("row")).order_by(_i.id))
_tree = select(_t.id, s.study.c.uid, _t.origin, _t.tag, _t.root, _t.covered).select_from(
    s.tree.outerjoin(s.study, s.study.c.id == _t.study)
)
# This node's own first, then in the order in which they came.
_OF_STUDY: Final = sql(_tree.where(s.study.c.uid == bindparam("study")).order_by(_t.origin.is_not(None), _t.id))
_BY_TAG: Final = sql(_tree.where(_t.tag == bindparam("of_tag")))
_BY_ROOT: Final = sql(_tree.where(_t.root == bindparam("of_root")))
_BY_ID: Final = sql(_tree.where(_t.id == bindparam("row")))
_EVERY: Final = sql(
    _tree.where(_t.id > bindparam("after")).order_by(_t.id).limit(literal_column("500")).offset(literal_column("0"))
)


def of(transaction: Transaction, row: Row) -> int:
    """The tree of `row["tag"]`, made of the row when there is none; one that was nobody's becomes the study's.

    Raises Busy for a new one of a study that was erased meanwhile.
    """
    tag = row["tag"]
    known = transaction.known.trees.get(tag)
    if known is None:
        found = transaction.one(_FIND, {"of_tag": tag})
        if found is None and row["study"] is not None:
            transaction.refuse_gone(tag)
        known = found[0] if found else transaction.insert(_ADD, row)
        if row["study"] is None:
            return known
        if found and found[1] is None:
            transaction.cursor.execute(_NAME, {"row": known, "study": row["study"], "origin": row["origin"]})
        transaction.known.trees[tag] = known
    return known


def set_root(transaction: Transaction, tag: bytes, root: bytes, pages: Sequence[bytes], covered: int) -> None:
    """Name a tree's new root and pages, unless another process meanwhile closed one that covers more.

    Raises StorageFault when there is no such tree.
    """
    found = transaction.one(_COVERED, {"of_tag": tag})
    if found is None:
        raise StorageFault("a batch names the root of a study that is not there")
    row, before = found
    if covered < before:
        return
    transaction.cursor.execute(_SET_ROOT, {"row": row, "root": root, "covered": covered})
    transaction.cursor.execute(_OWN_PIN, {"of_root": root, "tree": row})
    held: dict[int, bytes] = dict(transaction.cursor.execute(_HELD_PAGES, {"row": row}).fetchall())
    changed = [
        {"tree": row, "position": position, "cid": cid}
        for position, cid in enumerate(pages)
        if held.get(position) != cid
    ]
    transaction.cursor.executemany(_PUT_PAGE, changed)
    if len(held) > len(pages):
        transaction.cursor.execute(_CUT_PAGES, {"row": row, "count": len(pages)})


def adopt(transaction: Transaction, tree: AdoptedTree, study: int | None) -> int:
    """Keep a tree with its root and pages as they are, once its instances are placed; its row.

    `study` is the study's row, None when it is not known. This node's own tree goes on growing: a root is taken only
    where none is known, and pages from the first on that names other instances than are held are made anew.
    """
    row = of(transaction, {"study": study, "origin": tree.origin, "tag": tree.tag, "root": None, "covered": 0})
    origin, root = transaction.one(_ORIGIN, {"row": row})
    pages, covered = tree.pages, len(tree.links)
    if origin is None:
        if root is not None:
            return row
        held = [link for (link,) in transaction.cursor.execute(_LINKS, {"row": row}).fetchall()]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(held, tree.links, strict=False)))
        if same < covered:
            pages, covered = pages[: same // PAGE_LINKS], same // PAGE_LINKS * PAGE_LINKS
    set_root(transaction, tree.tag, tree.root, pages, covered)
    return row


def uncover(transaction: Transaction, tree: int, instance: int) -> None:
    """Have the next closing write anew the page that names an instance, and those behind it; of an own tree only."""
    before: int = transaction.one(_ARRIVED_BEFORE, {"row": tree, "healed": instance})[0]
    full_pages = before // PAGE_LINKS
    uncovered = {"row": tree, "covered": full_pages * PAGE_LINKS, "from_here": before}
    transaction.cursor.execute(_UNCOVER, uncovered)
    if transaction.cursor.rowcount:
        transaction.cursor.execute(_CUT_PAGES, {"row": tree, "count": full_pages})


class Trees:
    """Look-ups of trees. Thread-safe. Every method may raise StorageFault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def manifest(self, tag: bytes) -> StudyTree:
        """As `bridge.ports.Index.study_tree`; the parts are of one moment."""
        with self._database.moment() as rows:
            found = rows(_MANIFEST, {"of_tag": tag})
            pages = rows(_PAGES, {"row": found[0][0]}) if found else []
            links = rows(_LINKS, {"row": found[0][0]}) if found else []
        if not found:
            raise NotFound("no such study")
        _, origin, root, covered = found[0]
        instances = tuple(link for (link,) in links)
        return StudyTree(tag, root, tuple(page for (page,) in pages), covered, instances, origin is None)

    def generations(self, tag: bytes) -> list[int]:
        """The generations of keys that the instances of a study tag's tree are sealed under, ascending."""
        return [generation for (generation,) in self._database.rows(_GENERATIONS, {"of_tag": tag})]

    def of_study(self, study: str) -> list[Tree]:
        """The trees of a study, this node's own first; [] when it is not held."""
        return self._trees(_OF_STUDY, {"study": study})

    def by_tag(self, tag: bytes) -> Tree | None:
        """The tree of a study tag."""
        return self._first(_BY_TAG, {"of_tag": tag})

    def by_root(self, root: bytes) -> Tree | None:
        """The tree whose root this is now."""
        return self._first(_BY_ROOT, {"of_root": root})

    def by_id(self, row: int) -> Tree | None:
        """The tree of a row, as a `bridge.model.Pin` names it."""
        return self._first(_BY_ID, {"row": row})

    def every(self) -> Iterator[Tree]:
        """All trees by ascending id, read five hundred at a time."""
        after = 0
        while found := self._trees(_EVERY, {"after": after}):
            yield from found
            after = found[-1].id

    def _trees(self, statement: str, values: dict[str, Any]) -> list[Tree]:
        return [Tree(*row) for row in self._database.rows(statement, values)]

    def _first(self, statement: str, values: dict[str, Any]) -> Tree | None:
        found = self._trees(statement, values)
        return found[0] if found else None
