"""What every Engine must do: subclass `EngineContract` in a test file and give it an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from ledger import checkpoint, entry, merkle
from ledger.engine import Engine, Sealed
from ledger.errors import ChainBroken
from ledger.sealer import Sealer
from ledger.source import Cursor
from ledger.store import LedgerStore
from tests.ledger.ledger_source import EPOCH, KEY, Source, octets


class EngineContract:
    """The suite.

    `make(home)` opens the engine of a home, whose entries `KEY` signs; `log(home)` is the directory that it publishes.
    `settled(engine)` returns when everything that was appended is in the log.
    """

    def make(self, home: Path) -> Engine:
        raise NotImplementedError

    def log(self, home: Path) -> Path:
        raise NotImplementedError

    def settled(self, engine: Engine) -> None:
        """At once, unless others decide."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def engine(self, home: Path) -> Iterator[Engine]:
        made = self.make(home)
        yield made
        made.close()

    def own(self, home: Path) -> list[bytes]:
        """The envelopes of the log, but the first that an engine may have made itself."""
        store = LedgerStore(self.log(home) / "ledger.db", readonly=True)
        try:
            return [item.envelope for item in store.all_entries() if item.type != "ledger.join"]
        finally:
            store.close()

    def test_a_chain_begins_where_the_engine_says(self, engine: Engine) -> None:
        position = engine.position()
        assert (len(position.ledger), len(position.node), len(position.previous)) == (8, 16, 32)
        assert position == engine.position()

    def test_what_is_appended_moves_the_position_and_the_cursor(self, engine: Engine) -> None:
        before = engine.position()
        taken = sealed(engine, "one", "two")
        engine.append(taken, Cursor(EPOCH, 2))
        after = engine.position()
        assert (after.sequence, after.cursor) == (before.sequence + 2, Cursor(EPOCH, 2))
        assert after.previous == entry.envelope_hash(taken[-1].envelope)

    def test_what_was_appended_is_there_after_closing_and_opening(self, home: Path) -> None:
        engine = self.make(home)
        engine.append(sealed(engine, "one", "two"), Cursor(EPOCH, 2))
        position = engine.position()
        engine.close()
        again = self.make(home)
        assert again.position() == position
        again.close()

    def test_entries_come_into_the_log_in_order_and_once(self, home: Path, engine: Engine) -> None:
        wanted = []
        for number in range(5):
            taken = sealed(engine, f"{number} a", f"{number} b")
            wanted += [item.envelope for item in taken]
            engine.append(taken, Cursor(EPOCH, 2 * number + 2))
        self.settled(engine)
        engine.publish()
        assert self.own(home) == wanted

    def test_what_does_not_continue_the_chain_is_refused_and_leaves_nothing(self, engine: Engine) -> None:
        taken = sealed(engine, "one", "two", "three")
        before = engine.position()
        for wrong in (taken[1:], [taken[0], taken[2]]):
            with pytest.raises(ChainBroken):
                engine.append(wrong, Cursor(EPOCH, 3))
            assert engine.position() == before
        engine.append(taken, Cursor(EPOCH, 3))

    def test_a_cursor_alone_may_move(self, home: Path, engine: Engine) -> None:
        before = engine.position()
        engine.append([], Cursor(EPOCH, 4))
        assert engine.position() == before._replace(cursor=Cursor(EPOCH, 4))

    def test_roots_are_held_under_another_epoch_alone(self, engine: Engine) -> None:
        taken = sealed(engine, "one", "two")
        engine.append(taken, Cursor(EPOCH, 2))
        roots = [item.entry.records_root for item in taken]
        strange = octets("another root", 32)
        assert engine.held([*roots, strange], EPOCH) == set()
        assert engine.held([*roots, strange], octets("another epoch")) == set(roots)
        self.settled(engine)
        engine.publish()
        assert engine.held([*roots, strange], octets("another epoch")) == set(roots)

    def test_the_published_checkpoint_is_of_all_that_is_in_the_log(self, home: Path, engine: Engine) -> None:
        engine.append(sealed(engine, "one", "two", "three"), Cursor(EPOCH, 3))
        self.settled(engine)
        engine.publish()
        head = checkpoint.parse(checkpoint.split_note((self.log(home) / "checkpoint").read_text())[0])
        store = LedgerStore(self.log(home) / "ledger.db", readonly=True)
        leaves = store.leaves(0, head.size)
        assert (head.size, head.root) == (store.size(), merkle.root(leaves))
        store.close()

    def test_settling_empties_the_write_ahead_log(self, home: Path, engine: Engine) -> None:
        engine.append(sealed(engine, "one"), Cursor(EPOCH, 1))
        self.settled(engine)
        assert engine.settle()
        assert (self.log(home) / "ledger.db-wal").stat().st_size == 0

    def test_a_sealer_seals_each_batch_once_through_restarts_and_a_new_epoch(self, home: Path) -> None:
        source = Source()
        for turn in range(3):
            source.close()
            source.close()
            engine = self.make(home)
            assert Sealer(source, engine, KEY).step() == 2
            assert Sealer(source, engine, KEY).step() == 0
            if turn == 1:
                self.settled(engine)
            engine.close()
        restored = Source(epoch=octets("another epoch"))
        restored.batches, restored.leaves = list(source.batches), dict(source.leaves)
        restored.close()
        engine = self.make(home)
        assert Sealer(restored, engine, KEY).step() == 1
        self.settled(engine)
        engine.publish()
        engine.close()
        assert len(self.own(home)) == 7


def sealed(engine: Engine, *labels: str) -> Sequence[Sealed]:
    """A run of entries that continues the engine's chain; a root for each label."""
    position = engine.position()
    sequence, previous, made = position.sequence, position.previous, []
    for number, label in enumerate(labels, position.cursor.id + 1):
        root = octets(label, 32)
        said = entry.Entry(
            *(position.node, sequence, previous, "study.store", position.ledger, 1_700_000_000_000_000, "TREAT", 0),
            *(entry.Who(0, bytes(16)), octets("study"), None, root),
        )
        made.append(Sealed(said, entry.encode(said), Cursor(EPOCH, number), 1, partial(entry.sign, private_key=KEY)))
        sequence, previous = sequence + 1, entry.envelope_hash(made[-1].envelope)
    return made
