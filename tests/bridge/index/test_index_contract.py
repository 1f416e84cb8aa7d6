"""The index keeps the contract of the Index port, on SQLite and on PostgreSQL."""

import pytest

from bridge.index.database import PostgresqlPlace
from bridge.index.index import SqlIndex
from tests.contract.index import IndexContract


class TestSqlIndexOnSqlite(IndexContract):
    def make(self, home, before_commit=lambda: None):
        return SqlIndex(home / "index.db", "test", before_commit)

    def damage(self, index, stored):
        index.mark_damaged(stored)


class TestSqlIndexOnPostgresql(IndexContract):
    @pytest.fixture(autouse=True)
    def server(self, postgresql):
        self.postgresql, self.urls = postgresql, {}

    def make(self, home, before_commit=lambda: None):
        url = self.urls.get(home) or self.urls.setdefault(home, self.postgresql.fresh())
        return SqlIndex(PostgresqlPlace(url, home), "test", before_commit)

    def damage(self, index, stored):
        index.mark_damaged(stored)
