"""The tables of the index. Columns that searches match are made from `bridge.dicom.attributes`, the one table.

Matching columns hold normal text (`bridge.dicom.comparison.texts`), "" for none, so that what is absent is never NULL
in a comparison; numbers are NULL for none. A person name has four columns: alphabetic, ideographic, phonetic, folded.
Only types that both databases have; what is one's alone (WITHOUT ROWID, SP-GiST) is in dialect options.
"""

from __future__ import annotations

import os
import re
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    false,
)

from bridge.dicom.attributes import TABLE, Attribute, Level, Matching
from bridge.index.dialect import ROW_ID, Text

VERSION: Final = 4
SCHEMA_VERSION: Final = "schema version"
EPOCH: Final = "epoch"
"""Names in `meta`."""
metadata: Final = MetaData()

_KEYS_WITH_OWN_COLUMN: Final = {"0020000D": "uid", "0020000E": "uid", "00080018": "sop", "00080016": "sop_class"}
_NAME_FORMS: Final = ("", "_ideographic", "_phonetic", "_folded")


def column_name(attribute: Attribute) -> str:
    """The column of a matching key: its keyword in snake case, or the key's own column."""
    own = _KEYS_WITH_OWN_COLUMN.get(attribute.tag)
    return own or re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", attribute.keyword).lower()


def column_names(attribute: Attribute) -> tuple[str, ...]:
    """All columns of a matching key: four for a person name, one for any other."""
    name = column_name(attribute)
    return tuple(name + form for form in _NAME_FORMS) if attribute.matching is Matching.NAME else (name,)


def matched(level: Level) -> tuple[Attribute, ...]:
    """The attributes that have matching columns in the level's table."""
    return tuple(
        row for row in TABLE if row.level is level and row.matching and not row.computed and "." not in row.tag
    )


def _matching_columns(level: Level) -> list[Column[str] | Column[int]]:
    columns: list[Column[str] | Column[int]] = []
    for attribute in matched(level):
        if attribute.tag in _KEYS_WITH_OWN_COLUMN:
            continue
        for name in column_names(attribute):
            if attribute.matching is Matching.NUMBER:
                columns.append(Column(name, BigInteger))
            else:
                columns.append(Column(name, Text, nullable=False))
    return columns


patient: Final = Table(
    "patient",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    # SHA-256 (first 16 bytes) of all patient-level values: two patients under one ID are never merged.
    Column("identity", LargeBinary, nullable=False, unique=True),
    *_matching_columns(Level.PATIENT),
    Column("attributes", Text, nullable=False),
    # A B-tree of PostgreSQL refuses values beyond 2,704 bytes, and headers may hold such.
    Index("patient_by_id", "patient_id", postgresql_using="spgist"),
    Index("patient_by_name", "patient_name", postgresql_using="spgist"),
    sqlite_autoincrement=True,
)

study: Final = Table(
    "study",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
    Column("patient", ForeignKey("patient.id"), nullable=False, index=True),
    Column("received", BigInteger, nullable=False),
    *_matching_columns(Level.STUDY),
    Column("attributes", Text, nullable=False),
    Index("study_by_date", "study_date", "id"),
    Index("study_by_accession", "accession_number", postgresql_using="spgist"),
    sqlite_autoincrement=True,
)

# A study's manifest: one for each node that made one of it. Only this node's own ones grow.
tree: Final = Table(
    "tree",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    # None while the key is not held: the blocks are kept for others, and nobody here knows whose study it is.
    Column("study", ForeignKey("study.id"), index=True),
    # The node id of the member that made it; NULL for this node's own, empty when nobody said.
    Column("origin", LargeBinary),
    # The study's random tag at that node, by which its keys are found.
    Column("tag", LargeBinary, nullable=False, unique=True),
    Column("root", LargeBinary),
    Column("covered", Integer, nullable=False),
    Index("tree_by_root", "root"),
    sqlite_autoincrement=True,
)

study_page: Final = Table(
    "study_page",
    metadata,
    Column("tree", ForeignKey("tree.id"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("cid", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

series: Final = Table(
    "series",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("study", ForeignKey("study.id"), nullable=False),
    Column("uid", Text, nullable=False),
    # How many SOP Instance UIDs the series holds; versions of one instance count once.
    Column("instances", Integer, nullable=False),
    *_matching_columns(Level.SERIES),
    Column("attributes", Text, nullable=False),
    UniqueConstraint("study", "uid"),
    Index("series_by_uid", "uid"),
    sqlite_autoincrement=True,
)

series_request: Final = Table(
    "series_request",
    metadata,
    Column("series", ForeignKey("series.id"), primary_key=True, autoincrement=False),
    Column("item", Integer, primary_key=True, autoincrement=False),
    Column("scheduled_procedure_step_id", Text, nullable=False),
    Column("requested_procedure_id", Text, nullable=False),
    sqlite_with_rowid=False,
)

series_class: Final = Table(
    "series_class",
    metadata,
    Column("series", ForeignKey("series.id"), primary_key=True, autoincrement=False),
    Column("sop_class", Text, primary_key=True),
    sqlite_with_rowid=False,
)

instance: Final = Table(
    "instance",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("study", ForeignKey("study.id"), nullable=False),
    Column("series", ForeignKey("series.id"), nullable=False),
    # The tree that this copy came with: its tag and `generation` name the key. Never NULL (see database.check); a
    # column that is added to a table cannot say so.
    Column("tree", ForeignKey("tree.id"), index=True),
    Column("sop", Text, nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False),
    # One of several versions is served (see storing.place); all of them are in conflict until someone decides.
    Column("served", Boolean, nullable=False),
    Column("conflict", Boolean, nullable=False),
    Column("damaged", Boolean, nullable=False),
    Column("sop_class", Text, nullable=False),
    Column("transfer_syntax", Text, nullable=False),
    Column("tag", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("header", LargeBinary, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("link", LargeBinary, nullable=False),
    Column("data_set", Integer, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    *_matching_columns(Level.INSTANCE),
    Column("attributes", Text, nullable=False),
    UniqueConstraint("series", "sop", "digest"),
    sqlite_autoincrement=True,
)

# What is read only to serve one instance, apart, so that searches do not wade through it.
instance_data: Final = Table(
    "instance_data",
    metadata,
    Column("instance", ForeignKey("instance.id"), primary_key=True, autoincrement=False),
    Column("frames", LargeBinary, nullable=False),
    Column("bulk", LargeBinary, nullable=False),
    Column("json", LargeBinary, nullable=False),
)

block: Final = Table(
    "block",
    metadata,
    Column("cid", LargeBinary, primary_key=True),
    Column("pack", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", Integer, nullable=False),
    # Whose block it is; none for pages and roots. Superseded: a healed copy's, which may be damaged and is not missed.
    Column("instance", BigInteger),
    Column("superseded", Boolean, nullable=False, server_default=false()),
    Index("block_by_place", "pack", "offset"),
    sqlite_with_rowid=False,
)

# Roots that the content engine keeps with all below them; written when it has said so.
pin: Final = Table(
    "pin",
    metadata,
    Column("root", LargeBinary, primary_key=True),
    # Whose root it is or was; NULL when the tree is gone, or not known yet.
    Column("tree", ForeignKey("tree.id"), index=True),
    Column("pinned", BigInteger, nullable=False),
    # When everything below was last read back and found whole; NULL before the first time.
    Column("verified", BigInteger),
    Column("replicas", Integer, nullable=False),
    Column("wanted", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# Packs whose file was removed, for their blocks were read back from the engine; their rows in `block` stay.
trimmed: Final = Table(
    "trimmed",
    metadata,
    Column("pack", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
)

# What the content process finds wrong now; no row: nothing.
content_fault: Final = Table(
    "content_fault",
    metadata,
    Column("name", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Studies whose sealed blocks a member may fetch.
assignment: Final = Table(
    "assignment",
    metadata,
    Column("member", Text, primary_key=True),
    Column("study", Text, primary_key=True),
    Column("expires", BigInteger),
    Index("assignment_by_study", "study"),
    sqlite_with_rowid=False,
)

# What this node grants to members, each by the entry of the ledger that says so: bridge.index.shares.
share_out: Final = Table(
    "share_out",
    metadata,
    Column("grant", LargeBinary, primary_key=True),
    # "grant", or "emergency": the member broke the glass.
    Column("kind", Text, nullable=False),
    Column("study", Text, nullable=False, index=True),
    Column("tag", LargeBinary, nullable=False),
    # The member's node id and name.
    Column("node", LargeBinary, nullable=False),
    Column("member", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("state", Text, nullable=False, index=True),
    # The StudyRoot that was delivered last, and when.
    Column("root", LargeBinary),
    Column("delivered", BigInteger),
    Column("ended", BigInteger),
    # Entries of the member: that it has the study, that its keys are gone; and of this node: that the grant is revoked.
    Column("receipt", LargeBinary),
    Column("gone", LargeBinary),
    Column("revocation", LargeBinary),
    # What went wrong last, how often in a row, and not to be tried before.
    Column("fault", Text),
    Column("tries", Integer, nullable=False),
    Column("again", BigInteger, nullable=False),
    # Why the member did not take in what was brought to it, in words, until it does.
    Column("refused", Text),
    sqlite_with_rowid=False,
)

# What members grant to this node, likewise. The package is the study key file as it came.
share_in: Final = Table(
    "share_in",
    metadata,
    Column("grant", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),
    # None until a package has told it; the tag is that of the sender's tree.
    Column("study", Text, index=True),
    Column("tag", LargeBinary, nullable=False, index=True),
    Column("node", LargeBinary, nullable=False),
    Column("member", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("state", Text, nullable=False, index=True),
    Column("why", Text),
    Column("root", LargeBinary),
    Column("package", LargeBinary),
    # When the sender made the package (its clock), and when the study was taken in.
    Column("made", BigInteger),
    Column("received", BigInteger),
    Column("ended", BigInteger),
    Column("instances", Integer),
    Column("octets", BigInteger),
    Column("fault", Text),
    Column("tries", Integer, nullable=False),
    Column("again", BigInteger, nullable=False),
    # Which refusal was stated on the ledger last.
    Column("told", Integer),
    sqlite_with_rowid=False,
)

# Instance blocks, pages and roots of received trees that were given up: packs may hold them, and nobody misses them.
forgotten: Final = Table(
    "forgotten",
    metadata,
    Column("cid", LargeBinary, primary_key=True),
    sqlite_with_rowid=False,
)

batch: Final = Table(
    "batch",
    metadata,
    Column("id", ROW_ID, primary_key=True),
    Column("batch", LargeBinary, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),
    Column("actor_name", Text, nullable=False),
    Column("actor_role", Text),
    Column("actor_address", Text, nullable=False),
    Column("actor_how", Text, nullable=False),
    Column("study", Text),
    Column("study_tag", LargeBinary),
    Column("purpose", Text, nullable=False),
    Column("opened", BigInteger, nullable=False),
    Column("outcome", Integer, nullable=False),
    # The ledger's cursor: 1, 2, 3 ... in the order of closing, given in the closing transaction.
    Column("closed_seq", BigInteger, unique=True),
    Column("closed", BigInteger),
    Column("records", Integer),
    Column("records_root", LargeBinary),
    Column("root", LargeBinary),
    Column("instances", Integer),
    Column("salt", LargeBinary),
    Column("commitment", LargeBinary),
    # What the entry states besides (`ledger.terms`), and the ids of the entries it refers to, 32 bytes each, in a row.
    Column("body", LargeBinary),
    Column("refs", LargeBinary),
)
Index(
    "batch_open",
    batch.c.owner,
    sqlite_where=batch.c.closed_seq.is_(None),
    postgresql_where=batch.c.closed_seq.is_(None),
)

record: Final = Table(
    "record",
    metadata,
    Column("batch", ForeignKey("batch.id"), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# How far somebody has followed the shared log: the index of the last entry seen to, -1 for none.
follow: Final = Table(
    "follow",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

meta: Final = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

token: Final = Table(
    "token",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("revoked", BigInteger),
    # A Study Instance UID: good for the sealed blocks of that study and for nothing else. NULL: as its role says.
    Column("study", Text),
)

login_link: Final = Table(
    "login_link",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

session: Final = Table(
    "session",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
)


def first_rows() -> list[dict[str, object]]:
    """The rows of `meta` in a new database: this version, and an epoch of its own."""
    return [{"name": SCHEMA_VERSION, "value": str(VERSION).encode()}, {"name": EPOCH, "value": os.urandom(16)}]
