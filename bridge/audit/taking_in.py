"""Entries of the ledger into audit.db: rows for some at a time, with what is counted about them, in one transaction."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.audit.schema import STRETCH, leaf_start
from bridge.audit.spans import LEVELS
from ledger.event import Participant
from ledger.store import StoredEntry

_ADD_ACTOR: Final = "INSERT INTO actor (tag, kind, name) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_NAME_ACTOR: Final = "UPDATE actor SET kind = ?, name = ? WHERE tag = ?"
_FIND_ACTOR: Final = "SELECT id, name FROM actor WHERE tag = ?"
_FIND_COMBINATION: Final = (
    "SELECT id FROM combination WHERE type = ? AND actor = ? AND role = ? AND purpose = ? AND outcome = ? AND node = ?"
)
_ADD_COMBINATION: Final = (
    "INSERT INTO combination (type, actor, role, purpose, outcome, node, events, first, last, earliest, latest)"
    " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)"
)
_COUNT_COMBINATION: Final = (
    "UPDATE combination SET events = events + ?, last = max(last, ?), earliest = min(earliest, ?),"
    " latest = max(latest, ?) WHERE id = ?"
)
_ADD_EVENT: Final = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_LINK_EVENT: Final = (
    "UPDATE event SET address = ?, how = ?, epoch = ?, batch = ?, records = ? WHERE idx = ? AND leaf = ?"
)
_ADD_TALLY: Final = (
    "INSERT INTO tally VALUES (?, ?, ?, ?)"
    " ON CONFLICT (length, start, combination) DO UPDATE SET events = events + excluded.events"
)
_ADD_STRETCH: Final = (
    "INSERT INTO stretch VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE"
    " SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)"
)
_ADD_LEAF: Final = "INSERT OR IGNORE INTO leaf VALUES (?, ?)"


@dataclass(frozen=True, slots=True)
class Known:
    """An entry, its actor (whose name may be "": not known), and the leaves of its records as far as they are held.

    `block_time_us` is the time of the block that it is in, None in a log without blocks.
    """

    entry: StoredEntry
    actor: Participant
    leaves: Sequence[bytes] = ()
    block_time_us: int | None = None


@dataclass(slots=True)
class _Counted:
    """What the entries of one transaction add to a combination."""

    events: int = 0
    last: int = 0
    times: list[int] = field(default_factory=list)


def take_in(connection: sqlite3.Connection, known: Iterable[Known], first: int = 0) -> None:
    """Add entries in the order of their log, each once, within the caller's transaction. Raises sqlite3.Error.

    `first` is the trail's index of that log's entry 0.
    """
    actors: dict[bytes, int] = {}
    combinations: dict[tuple[object, ...], int] = {}
    counted: dict[int, _Counted] = {}
    tallies: Counter[tuple[int, int, int]] = Counter()
    stretches: dict[int, list[int]] = {}
    events: list[tuple[object, ...]] = []
    leaves: list[tuple[int, int]] = []
    for one in known:
        entry, index = one.entry, first + one.entry.idx
        # An actor's name may be told only by a later entry with the same tag.
        actor = actors.get(entry.actor) or _actor(connection, entry.actor, one.actor)
        if one.actor.name:
            actors[entry.actor] = actor
        key = (entry.type, actor, one.actor.role, entry.purpose, entry.outcome, entry.node)
        combination = combinations.get(key)
        if combination is None:
            combination = combinations[key] = _combination(connection, key, index, entry.time_us)
        of_combination = counted.setdefault(combination, _Counted())
        of_combination.events += 1
        of_combination.last = index
        of_combination.times.append(entry.time_us)
        for length in LEVELS:
            tallies[length, entry.time_us // length * length, combination] += 1
        stretches.setdefault(index // STRETCH, []).append(entry.time_us)
        events.append(
            (
                *(index, combination, entry.time_us, entry.study, entry.leaf, entry.sequence, entry.records or 0),
                *(one.actor.address, one.actor.how, entry.epoch or b"", entry.batch or 0, one.block_time_us),
            )
        )
        leaves += [(leaf_start(leaf), index) for leaf in (entry.leaf, *one.leaves)]
    write = connection.executemany
    write(_ADD_EVENT, events)
    write(_ADD_LEAF, sorted(leaves))
    write(_ADD_TALLY, ((*key, number) for key, number in sorted(tallies.items())))
    write(_ADD_STRETCH, ((number, min(times), max(times)) for number, times in stretches.items()))
    write(
        _COUNT_COMBINATION,
        ((of.events, of.last, min(of.times), max(of.times), combination) for combination, of in counted.items()),
    )


def link(connection: sqlite3.Connection, known: Iterable[Known], first: int) -> None:
    """Add what was not known of entries when they were taken in: whose batch each is, its records. As `take_in`."""
    for one in known:
        entry, index = one.entry, first + one.entry.idx
        values = (one.actor.address, one.actor.how, entry.epoch, entry.batch, entry.records, index, entry.leaf)
        if connection.execute(_LINK_EVENT, values).rowcount:
            _actor(connection, entry.actor, one.actor)
            connection.executemany(_ADD_LEAF, sorted((leaf_start(leaf), index) for leaf in one.leaves))


def _actor(connection: sqlite3.Connection, tag: bytes, actor: Participant) -> int:
    """The row of an actor's tag; it gets the actor's name as soon as that is known."""
    found = connection.execute(_FIND_ACTOR, (tag,)).fetchone()
    if found is None:
        connection.execute(_ADD_ACTOR, (tag, actor.kind, actor.name or tag.hex()))
        found = connection.execute(_FIND_ACTOR, (tag,)).fetchone()
    elif actor.name and found[1] != actor.name:
        connection.execute(_NAME_ACTOR, (actor.kind, actor.name, tag))
    return int(found[0])


def _combination(connection: sqlite3.Connection, key: tuple[object, ...], index: int, moment: int) -> int:
    """The row of a combination of values, made by its first event."""
    found = connection.execute(_FIND_COMBINATION, key).fetchone()
    if found is None:
        connection.execute(_ADD_COMBINATION, (*key, index, index, moment, moment))
        found = connection.execute(_FIND_COMBINATION, key).fetchone()
    return int(found[0])
