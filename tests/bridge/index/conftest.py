"""Where an index may lie: what is tested by `place` holds on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.index.database import Place, PostgresqlPlace


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An index that is not made yet, of a home of its own."""
    if request.param == "sqlite":
        return tmp_path / "index.db"
    return PostgresqlPlace(request.getfixturevalue("postgresql").fresh(), tmp_path)
