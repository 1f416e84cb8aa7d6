"""The SQLite index keeps the contract of the Index port."""

from bridge.index.index import SqlIndex
from tests.contract.index import IndexContract


class TestSqlIndex(IndexContract):
    def make(self, home, before_commit=lambda: None):
        return SqlIndex(home / "index.db", "test", before_commit)

    def damage(self, index, stored):
        index.mark_damaged(stored)
