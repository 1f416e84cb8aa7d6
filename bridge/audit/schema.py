"""The tables of audit.db: the ledger's entries, arranged for searching. All of it can be made again from the ledger.

The trail of a node in a consortium is its own log, which was closed when it joined, and then the shared log.

What is searched and counted by (type, actor, role, purpose, outcome, node) takes few values together: a `combination`
is one such set of values, and an event names its own. So a filter over these fields is a set of combinations, found in
a table of thousands of rows, whatever the number of events. Counts are kept by combination, in all and in spans of
time.

Studies are here by their random tags alone, which say nothing once the study's key is erased; patients, what a user
gave as reason, and everything else that lies sealed in records are not here at all, so erasing needs nothing of this
file. Actors are here by name.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x43614155  # "CaAU", in the header of the file
VERSION: Final = 3
STRETCH: Final = 1024
"""Events, by index, of which the earliest and latest time are kept together."""

SCHEMA: Final = (
    # `name` is the tag in hexadecimal while nothing tells it; `tag` is that of the entry.
    """CREATE TABLE actor (
        id INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, name TEXT NOT NULL)""",
    # `events` there are, the lowest and highest index, the earliest and latest time.
    """CREATE TABLE combination (
        id INTEGER PRIMARY KEY, type TEXT NOT NULL, actor INTEGER NOT NULL REFERENCES actor, role TEXT NOT NULL,
        purpose TEXT NOT NULL, outcome INTEGER NOT NULL, node BLOB NOT NULL,
        events INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        earliest INTEGER NOT NULL, latest INTEGER NOT NULL,
        UNIQUE (type, actor, role, purpose, outcome, node))""",
    # A log that the trail has begun to follow, by its number in their order; the trail's index of its entry 0; of how
    # many of its entries it is known here that they got their batch only later.
    "CREATE TABLE log (number INTEGER PRIMARY KEY, first INTEGER NOT NULL, linked INTEGER NOT NULL)",
    # `idx` is the index in the trail; `study` a tag; (`epoch`, `batch`) the closed batch that the entry is of, empty
    # and 0 for another node's; `block_time` NULL in a log of the node's own.
    """CREATE TABLE event (
        idx INTEGER PRIMARY KEY, combination INTEGER NOT NULL REFERENCES combination, time INTEGER NOT NULL, study BLOB,
        leaf BLOB NOT NULL, sequence INTEGER NOT NULL, records INTEGER NOT NULL, address TEXT NOT NULL,
        how TEXT NOT NULL, epoch BLOB NOT NULL, batch INTEGER NOT NULL, block_time INTEGER)""",
    "CREATE INDEX event_combination ON event (combination)",
    "CREATE INDEX event_time ON event (time, combination)",
    "CREATE INDEX event_study ON event (study, idx, combination, time) WHERE study IS NOT NULL",
    # Events of a combination in [start, start + length), for each length of `spans.LEVELS`.
    """CREATE TABLE tally (
        length INTEGER NOT NULL, start INTEGER NOT NULL, combination INTEGER NOT NULL, events INTEGER NOT NULL,
        PRIMARY KEY (length, start, combination)) WITHOUT ROWID""",
    # Times follow the index nearly, not strictly: clocks are set, and members' clocks differ.
    "CREATE TABLE stretch (number INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL)",
    # The first 8 bytes of the leaf hash of an entry or a record: whoever looks one up compares the whole.
    """CREATE TABLE leaf (
        start INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (start, idx)) WITHOUT ROWID""",
)


def leaf_start(leaf: bytes) -> int:
    """The column `start` of a leaf hash: its first 8 bytes as a signed number."""
    return int.from_bytes(leaf[:8], "big", signed=True)
