"""From one version of the schema to the next, within the transaction that opens the database.

Version 1 kept one manifest in the row of its study; version 2 keeps trees apart, so that one adopted from another node
has its place beside this node's own. Version 3 has what a consortium needs: a batch's body and references, how far the
shared log was followed, what was shared with whom, and which sealed blocks are kept by whom. Version 4 knows why a
member did not take in what it was given, and who else keeps what is kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Table

from bridge.index import replica_schema as _  # noqa: F401  (its tables are in the metadata then)
from bridge.index import schema as s

# In version 1 a study had one tree at most: its row gets the study's number, and pages and instances keep theirs.
_TREES_FROM_STUDIES: Final = (
    "INSERT INTO tree (id, study, origin, tag, root, covered)"
    " SELECT id, id, NULL, tag, root, covered FROM study WHERE tag IS NOT NULL",
    "INSERT INTO study_page (tree, position, cid) SELECT study, position, cid FROM former_page",
    "DROP TABLE former_page",
    "ALTER TABLE instance ADD COLUMN tree INTEGER REFERENCES tree(id)",
    "UPDATE instance SET tree = study",
    "DROP INDEX ix_instance_study",
    "CREATE INDEX ix_instance_tree ON instance (tree)",
    "ALTER TABLE study DROP COLUMN tag",
    "ALTER TABLE study DROP COLUMN root",
    "ALTER TABLE study DROP COLUMN covered",
    "ALTER TABLE token ADD COLUMN study TEXT",
)
_NEW_TABLES: Final[tuple[Table, ...]] = (s.tree, s.study_page, s.pin, s.trimmed, s.content_fault, s.assignment)


def _from_1(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE study_page RENAME TO former_page")
    s.metadata.create_all(connection, tables=_NEW_TABLES, checkfirst=False)
    for statement in _TREES_FROM_STUDIES:
        connection.exec_driver_sql(statement)


_BATCH_STATES: Final = (
    "ALTER TABLE batch ADD COLUMN body BLOB",
    "ALTER TABLE batch ADD COLUMN refs BLOB",
)


def _from_2(connection: Connection) -> None:
    for statement in _BATCH_STATES:
        connection.exec_driver_sql(statement)
    s.metadata.create_all(connection)  # the tables that are new


_SHARES_TELL: Final = (("share_out", "refused", "TEXT"), ("share_in", "told", "INTEGER"))


def _from_3(connection: Connection) -> None:
    for table, name, kind in _SHARES_TELL:
        held = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})")}
        if name not in held:  # a table that the step before made is as it is today
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    s.metadata.create_all(connection)  # the tables that are new


STEPS: Final[dict[int, Callable[[Connection], None]]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""What makes each former version the next one. A step changes rows and tables, and begins or ends no transaction."""
