"""Where the SQL of the two databases differs: types, and the wildcards of PS3.4 C.2.2.2.4.

All else is the same SQLAlchemy Core for both; what no table or query sees differs in `bridge.index.sqlite` and
`bridge.index.postgresql`.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Dialect, Integer
from sqlalchemy import Text as AnyText
from sqlalchemy import literal as bound
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Boolean, TypeDecorator

__all__ = ["ROW_ID", "Text", "matches_wildcards"]

ROW_ID: Final = BigInteger().with_variant(Integer(), "sqlite")
"""The number of a row, given by the database, ascending."""

Text: Final = AnyText().with_variant(AnyText(collation="C"), "postgresql")
"""Text compared and ordered by its UTF-8 bytes, as SQLite does; a database of PostgreSQL may have any other order."""

# PostgreSQL's LIKE: the escape character first.
_AS_LIKE: Final = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


class _Pattern(TypeDecorator[str]):
    """A pattern with "*" and "?", bound as the database's own operator wants it."""

    impl = AnyText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """SQLite's GLOB knows "[" besides, PostgreSQL's LIKE has wildcards of its own."""
        if value is None:
            return None
        return value.translate(_AS_LIKE) if dialect.name == "postgresql" else value.replace("[", "[[]")


class _Matches(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True


def matches_wildcards(column: ColumnElement[Any], pattern: str) -> ColumnElement[bool]:
    """Whether a text matches a pattern: "*" any characters, "?" one; case counts, and an index can be used."""
    return _Matches(column, bound(pattern, _Pattern()))


@compiles(_Matches, "sqlite")
def _glob(element: _Matches, compiler: Any, **options: Any) -> str:
    column, pattern = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} GLOB {pattern}"


@compiles(_Matches, "postgresql")
def _like(element: _Matches, compiler: Any, **options: Any) -> str:
    column, pattern = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} LIKE {pattern}"
