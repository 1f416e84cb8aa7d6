"""The tables of replication: what members are asked to keep, what is kept for them, how they were when asked last;
and of break-glass accesses across hospitals."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table

from bridge.index.dialect import Text
from bridge.index.schema import metadata as metadata

# Members that are asked to keep the sealed blocks of a study of this node.
replica_out: Final = Table(
    "replica_out",
    metadata,
    # The study's tag here; the member's node id, and its name, by which its requests are known.
    Column("tag", LargeBinary, primary_key=True),
    Column("node", LargeBinary, primary_key=True),
    Column("member", Text, nullable=False),
    # 1, 2, 3 ... in the order of changes, by which a member learns what is new since it asked last.
    Column("changed", BigInteger, nullable=False, unique=True),
    Column("assigned", BigInteger, nullable=False),
    # The records root of the statement that assigns, and the entry that it became; NULL until that is final.
    Column("statement", LargeBinary, nullable=False, unique=True),
    Column("entry", LargeBinary, unique=True),
    Column("salt", LargeBinary, nullable=False),
    # What is to be kept: the newest root, and the bytes of its blocks.
    Column("root", LargeBinary, nullable=False),
    Column("octets", BigInteger, nullable=False),
    # Of which root a receipt stands on the ledger, and since when (block time).
    Column("kept", LargeBinary),
    Column("confirmed", BigInteger),
    # When the member said that it does not keep it, and why.
    Column("refused", BigInteger),
    Column("why", Text),
    # When it was let go; the row goes when the ledger says so.
    Column("released", BigInteger),
    Index("replica_out_by_node", "node", "changed"),
    Index("replica_out_by_member", "member"),
    sqlite_with_rowid=False,
)

# Sealed blocks that are kept here for another member.
replica_in: Final = Table(
    "replica_in",
    metadata,
    Column("node", LargeBinary, primary_key=True),
    Column("tag", LargeBinary, primary_key=True),
    Column("member", Text, nullable=False),
    Column("entry", LargeBinary, nullable=False, unique=True),
    Column("salt", LargeBinary, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("octets", BigInteger, nullable=False),
    Column("asked", BigInteger, nullable=False),
    # The root that is held and pinned, since when, and of which root a receipt was stated.
    Column("kept", LargeBinary),
    Column("since", BigInteger),
    Column("stated", LargeBinary),
    # Why it is not kept, or not yet; refused: it is said to the member; not to be tried before `again`.
    Column("trouble", Text),
    Column("refused", Boolean, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("again", BigInteger, nullable=False),
    Index("replica_in_by_member", "member"),
    Index("replica_in_by_tag", "tag"),
    sqlite_with_rowid=False,
)

# Other members that are to keep the same as this one, so that each gets from the others what the origin cannot give.
replica_beside: Final = Table(
    "replica_beside",
    metadata,
    # The entry that asks the other member to keep it; whose study it is (node id), its tag there.
    Column("entry", LargeBinary, primary_key=True),
    Column("node", LargeBinary, nullable=False),
    Column("tag", LargeBinary, nullable=False),
    # The other member's node id and name; whether it has signed that it keeps it.
    Column("holder", LargeBinary, nullable=False),
    Column("member", Text, nullable=False),
    Column("kept", Boolean, nullable=False),
    Index("replica_beside_by_tag", "tag"),
    Index("replica_beside_by_member", "member"),
    sqlite_with_rowid=False,
)

# The other members, as they were when they were asked last.
replica_peer: Final = Table(
    "replica_peer",
    metadata,
    Column("node", LargeBinary, primary_key=True),
    # Since when it has not answered; NULL: it did. Lost: for so long that others take its place.
    Column("silent", BigInteger),
    Column("lost", Boolean, nullable=False),
    Column("accepts", Boolean, nullable=False),
    # Up to where its list of what is to be kept here was read.
    Column("position", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Break-glass accesses across hospitals, of this node to a member's study or of a member to one of this node's.
emergency: Final = Table(
    "emergency",
    metadata,
    # The id of the entry emergency.start.
    Column("entry", LargeBinary, primary_key=True),
    # Whether this node broke the glass; the other member's node and name.
    Column("own", Boolean, nullable=False),
    Column("node", LargeBinary, nullable=False),
    Column("member", Text, nullable=False),
    # Its Study Instance UID, and its tag where it was asked for by that; neither before the member has said which.
    Column("study", Text),
    Column("tag", LargeBinary),
    Column("reason", Text, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    # When the member took the request, or this node did; why not, and when to try again.
    Column("told", BigInteger),
    Column("trouble", Text),
    Column("refused", Boolean, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("again", BigInteger, nullable=False),
    # When it ended before its time, and whether the ledger says so; when it was reviewed at this node.
    Column("ended", BigInteger),
    Column("stated", Boolean, nullable=False),
    Column("reviewed", BigInteger),
    sqlite_with_rowid=False,
)
