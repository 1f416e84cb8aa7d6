"""The statements of the index as PostgreSQL runs them: compiled from the same constructs, each once, when first run."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg

from bridge.index.database import construct_of

__all__ = ["compiled"]


class _Compiler(PGCompiler_psycopg):
    """Takes SQLite's form of an upsert, which is PostgreSQL's without named constraints."""

    def _on_conflict_target(self, clause: Any, **options: Any) -> str:
        clause.constraint_target = None
        target: str = super()._on_conflict_target(clause, **options)  # type: ignore[no-untyped-call]
        return target


class _Dialect(PGDialect_psycopg):
    statement_compiler = _Compiler
    supports_statement_cache = True


_DIALECT: Final = _Dialect()  # type: ignore[no-untyped-call]


@cache
def compiled(text: str) -> bytes:
    """The statement that a text of `bridge.index.database.sql` names; a text that names none as it is."""
    try:
        statement, columns = construct_of(text)
    except KeyError:
        return text.encode()
    made: Any = statement.compile(dialect=_DIALECT, column_keys=None if columns is None else list(columns))
    return str(made).encode()
