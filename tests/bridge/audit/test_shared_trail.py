"""A node that joined a consortium: its trail is its own log and then the shared one, each event with its hospital."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bridge.audit.following import Followed
from bridge.audit.trail import LedgerTrail
from bridge.ledger_reading import ledger_home, opener, record_source
from ledger import entry
from ledger.engine import Position
from ledger.engine.solo import DATABASE
from ledger.event import EventQuery
from ledger.sealer import entry_of
from ledger.source import Cursor
from tests.bridge.audit.sealed_facts import Archive
from tests.contract.audit_trail import day
from tests.ledger.shared_log import START_US, Network

BEFORE = len(day())


class Joined:
    """East: an archive with a log of its own, and the shared log of four members."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(folder / "home")
        self.archive.seal(day())
        self.network = Network(folder / "members", copies=1)
        self.names = {one.node: name for name, one in self.network.hospitals.items()}
        self.trail = self.opened()
        self.trail.follow()
        self.network.join()

    def opened(self, *shared: str) -> LedgerTrail:
        archive, store = self.archive, self.network["east"].home / DATABASE
        logs = [Followed(ledger_home(archive.settings) / DATABASE), Followed(store, True)]
        return LedgerTrail(
            archive.home / "audit.db",
            logs,
            archive.source,
            archive.keys,
            opener(archive.keys, archive.keystore),
            lambda node: self.names.get(node, ""),
        )

    def close(self) -> None:
        self.trail.close()
        with suppress(Exception):
            self.network.close()
        self.archive.close()


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[Joined]:
    with closing(Joined(tmp_path)) as made:
        yield made


def test_the_shared_log_follows_behind_the_own_one(joined: Joined) -> None:
    assert joined.trail.follow() == 4
    joined.network.decide([[joined.network.sign("west", at_s=7)]], at_s=8)
    assert joined.trail.follow() == 1 and joined.trail.follow() == 0
    newest = joined.trail.search(EventQuery(limit=6))
    assert [event.index for event in newest] == [BEFORE + 4 - at for at in range(6)]
    assert [event.place for event in newest] == [4, 3, 2, 1, 0, BEFORE - 1]
    assert [event.shared for event in newest] == [True] * 5 + [False]
    assert newest[0].hospital == "west" and newest[0].actor.name == "00" * 16
    assert (newest[0].time_us, newest[0].block_time_us) == (START_US + 7_000_000, START_US + 8_000_000)
    assert newest[5].block_time_us is None


def test_hospitals_are_counted_and_searched_by_their_names(joined: Joined) -> None:
    joined.trail.follow()
    counted = joined.trail.facets(EventQuery())["hospital"]
    assert dict(counted) == {"": BEFORE, "east": 1, "north": 1, "south": 1, "west": 1}
    assert [event.hospital for event in joined.trail.search(EventQuery(hospitals=("west", "north")))] == [
        "west",
        "north",
    ]
    assert joined.trail.search(EventQuery(hospitals=("nobody",))) == []
    assert sum(number for _, number in joined.trail.histogram(EventQuery(hospitals=("west",)), 10)) == 1
    assert dict(joined.trail.facets(EventQuery(hospitals=("west",)))["type"]) == {"ledger.join": 1}
    west = joined.network["west"].node
    assert joined.trail.search(EventQuery(hospitals=("north",), nodes=(west,))) == []


def test_a_trail_made_again_is_the_same(joined: Joined) -> None:
    joined.trail.follow()
    before = joined.trail.search(EventQuery(limit=100))
    assert joined.trail.rebuild() == BEFORE + 4
    assert joined.trail.search(EventQuery(limit=100)) == before


def test_leaves_are_found_in_the_log_that_they_are_of(joined: Joined) -> None:
    joined.trail.follow()
    west = joined.trail.search(EventQuery(hospitals=("west",)))[0]
    assert joined.trail.places(west.id, 1) == ([west.place], 3)
    assert joined.trail.places(west.id, 0) == ([], BEFORE - 1)
    assert joined.trail.event(west.id) == west
    assert joined.trail.details(west.id) == []


def test_another_shared_log_than_was_followed_makes_the_trail_anew(joined: Joined, tmp_path: Path) -> None:
    joined.trail.follow()
    other = Network(tmp_path / "other", ("east", "north"), copies=1)
    other.join()
    joined.trail.close()
    joined.network.close()
    joined.network = other
    joined.names = {one.node: name for name, one in other.hospitals.items()}
    joined.trail = joined.opened()
    assert joined.trail.follow() == BEFORE + 2
    assert dict(joined.trail.facets(EventQuery())["hospital"]) == {"": BEFORE, "east": 1, "north": 1}


def test_entries_that_get_their_batches_again_show_who_and_what(joined: Joined) -> None:
    east, (fact, *_) = joined.network["east"], day()
    joined.archive.record(fact)
    with closing(record_source(joined.archive.settings, joined.archive.keys, joined.archive.keystore)) as source:
        (batch,) = source.closed_batches(BEFORE, 9)
        position = Position(joined.network.ledger, east.node, east.sequence, east.previous, Cursor(b"", 0))
        said = entry_of(batch, position, east.sequence, east.previous)
        assert joined.network.decide([[entry.sign(entry.encode(said), east.signer)]]) == [0]
        assert joined.trail.follow() == 5
        restored = joined.trail.search(EventQuery(limit=1))[0]
        assert (restored.type, restored.records, restored.actor.address) == (fact.type, 0, "")
        assert joined.trail.details(restored.id) == []
        with east.store.writing():
            assert east.store.link([batch], source.epoch(), east.node) == 1
            assert east.store.link([batch], source.epoch(), east.node) == 0
    assert joined.trail.follow() == 1 and joined.trail.follow() == 0
    linked = joined.trail.search(EventQuery(limit=1))[0]
    assert (linked.id, linked.records, linked.actor) == (restored.id, batch.records, fact.actor)
    details = joined.trail.details(linked.id)
    assert len(details) == batch.records and all(detail.body is not None for detail in details)
    assert joined.trail.event(details[0].leaf).id == linked.id
    before = joined.trail.search(EventQuery(limit=100))
    joined.trail.rebuild()
    assert joined.trail.search(EventQuery(limit=100)) == before
