"""The engine of a consortium keeps the contract of engines, and more: its outbox outlives refusals, losses and deaths.

Here a chain of one validator stands for CometBFT: what it is handed it decides at once, or does not, as a test has it.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ledger import entry, genesis, keys, merkle, transaction
from ledger.abci.application import ConsortiumApplication, Signers
from ledger.abci.messages import CHUNK_ACCEPT, SNAPSHOT_ACCEPT, Block
from ledger.abci.snapshots import EVERY
from ledger.audit_shared import audit_shared
from ledger.block_store import BlockStore
from ledger.engine import Engine
from ledger.engine.cometbft import Closed, CometEngine, Membership
from ledger.engine.solo import SoloEngine
from ledger.sealer import Sealer
from ledger.source import ClosedBatch, Cursor
from ledger.state import Code
from ledger.store import LedgerStore
from tests.contract.engine import EngineContract, sealed
from tests.ledger.ledger_source import EPOCH, KEY, ORIGIN, Source, octets
from tests.ledger.shared_log import START_US, Hospital

PATIENCE_S = 30.0
NOTHING = Closed("none", 0, merkle.EMPTY_ROOT, Cursor(b"", 0))


class Chain:
    """One validator's order, and the engine and application of a home on it."""

    def __init__(self) -> None:
        hospital = Hospital("east")
        hospital.signer = KEY
        hospital.node = keys.node_id(KEY.public_key())
        hospital.card = hospital.card_of(KEY, hospital.cosigner)
        self.hospital = hospital
        self.genesis = genesis.make("test", START_US, [hospital.card])
        self.height = 0
        self.handed: list[bytes] = []
        self.decided: list[Block] = []
        self.answer: Callable[[bytes], tuple[int, str]] = self.decide

    def open(
        self, home: Path, closed: Closed = NOTHING, former: LedgerStore | None = None, resend_s: float = 0.1
    ) -> CometEngine:
        """The engine of a home, as after a start."""
        place = home / "shared"
        place.mkdir(parents=True, exist_ok=True)
        store = BlockStore(place / "ledger.db")
        one, engines = self.hospital, list[CometEngine]()
        self.application = ConsortiumApplication(
            store,
            self.genesis,
            Signers(one.node, one.signer, one.cosigner, one.name),
            lambda: 1_700_000_100,
            lambda: [engine.committed() for engine in engines].clear(),
            lambda: [engine.strayed() for engine in engines].clear(),
        )
        self.height = max(self.height, self.application.info().height)
        member = Membership(self.genesis.ledger, one.node, KEY, bytes(16))
        engine = CometEngine(store, place, member, self._handed, closed, former, resend_s)
        engines.append(engine)
        self.store = store
        engine.committed()
        return engine

    def _handed(self, tx: bytes) -> tuple[int, str]:
        self.handed.append(tx)
        return self.answer(tx)

    def decide(self, *txs: bytes) -> tuple[int, str]:
        """Make a block of transactions; the verdict on the first."""
        self.height += 1
        hash = hashlib.sha256(str(self.height).encode()).digest()
        decided = Block(txs, self.height, (START_US + self.height) * 1000, bytes(20), hash)
        self.decided.append(decided)
        verdict = self.application.finalize_block(decided).results[0]
        self.application.commit()
        return verdict.code, verdict.log

    def replay(self, home: Path) -> None:
        """Have the application execute every block again, as CometBFT does where its own disk was lost."""
        execute(self.application, self.decided)

    def take_over(self, home: Path) -> None:
        """Have it take over the state of another member, who executed the same blocks."""
        other = Hospital("west")
        other.open(home / "west", self.genesis)
        execute(other.application, self.decided)
        other.application.height += 2  # only what the light client can verify is offered
        offer = other.application.list_snapshots()[0]
        stored = other.store.block_at(offer.height)
        assert stored is not None and stored.size == 4
        assert self.application.offer_snapshot(offer, stored.hash) == SNAPSHOT_ACCEPT
        for at in range(offer.chunks):
            chunk = other.application.load_snapshot_chunk(offer.height, offer.format, at)
            assert self.application.apply_snapshot_chunk(at, chunk, "west") == CHUNK_ACCEPT
        other.store.close()

    def until(self, holds: Callable[[], object]) -> None:
        over = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < over, "it did not come true in time"
            time.sleep(0.005)


@pytest.fixture
def chain() -> Chain:
    return Chain()


class TestCometEngine(EngineContract):
    @pytest.fixture(autouse=True)
    def _chain(self) -> Iterator[None]:
        self.chain = Chain()
        yield

    def make(self, home: Path) -> CometEngine:
        return self.chain.open(home)

    def log(self, home: Path) -> Path:
        return home / "shared"

    def settled(self, engine: Engine) -> None:
        self.chain.until(lambda: self.chain.store.waiting() == 0)


def test_the_first_entry_states_the_log_that_was_kept_before(chain: Chain, tmp_path: Path) -> None:
    source = Source()
    source.close()
    solo = SoloEngine(tmp_path / "solo", KEY, ORIGIN)
    Sealer(source, solo, KEY).step()
    solo.close()
    former = LedgerStore(tmp_path / "solo" / "ledger.db", readonly=True)
    engine = chain.open(tmp_path, Closed.of(former), former)
    assert engine.position().cursor == Cursor(EPOCH, 1)
    source.close()
    assert Sealer(source, engine, KEY).step() == 1
    chain.until(lambda: chain.store.size() == 2)
    first = entry.read(chain.store.envelopes(0, 1)[0])
    assert (first.type, first.sequence) == ("ledger.join", 0)
    assert first.terms == {"o": ORIGIN, "s": 1, "r": former.state().frontier.root()}
    restored = Source(epoch=octets("another epoch"))
    restored.batches = list(source.batches)
    assert Sealer(restored, engine, KEY).step() == 0  # one is in the closed log, the other in the shared one
    engine.close()


def test_what_is_appended_while_nobody_answers_waits_and_nothing_is_lost(chain: Chain, tmp_path: Path) -> None:
    chain.answer = nobody
    engine = chain.open(tmp_path)
    for number in range(3):
        engine.append(sealed(engine, str(number)), Cursor(EPOCH, number + 1))
    chain.until(lambda: chain.handed)
    engine.close()
    again = chain.open(tmp_path)
    assert chain.store.waiting() == 4
    chain.answer = chain.decide
    chain.until(lambda: chain.store.waiting() == 0)
    assert chain.store.size() == 4
    again.close()


def test_what_was_taken_into_a_mempool_and_forgotten_is_handed_over_again(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (0, "")
    engine = chain.open(tmp_path)
    chain.until(lambda: len(chain.handed) > 1)
    assert len(set(chain.handed)) == 1
    chain.answer = chain.decide
    chain.until(lambda: chain.store.waiting() == 0)
    engine.close()


def test_one_transaction_is_in_flight_and_what_comes_meanwhile_goes_together(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (0, "")
    engine = chain.open(tmp_path)
    chain.until(lambda: chain.handed)
    first = chain.handed[0]
    for number in range(5):
        engine.append(sealed(engine, str(number)), Cursor(EPOCH, number + 1))
    assert transaction.decode(first) == (chain.store.outbox(1)[0].envelope,)
    chain.handed.clear()
    chain.answer = chain.decide
    chain.until(lambda: chain.store.waiting() == 0)
    assert chain.store.size() == 6
    assert max(len(transaction.decode(tx)) for tx in chain.handed) >= 5
    engine.close()


def test_where_much_waits_a_second_transaction_is_under_way(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (0, "")
    engine = chain.open(tmp_path, resend_s=PATIENCE_S)
    chain.until(lambda: len(chain.handed) == 1)
    engine.append(sealed(engine, *map(str, range(2000))), Cursor(EPOCH, 2000))
    chain.until(lambda: len(chain.handed) == 2)
    join, second = chain.handed
    assert len(transaction.decode(second)) >= 128
    assert chain.decide(join)[0] == 0
    decided = 1
    while chain.store.waiting():
        chain.until(lambda: len(chain.handed) > decided)  # noqa: B023
        assert chain.decide(chain.handed[decided])[0] == 0
        decided += 1
    assert decided == len(chain.handed) > 3
    assert chain.store.size() == 2001
    engine.close()


def test_what_overtook_the_one_before_it_is_sent_again_at_once(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (0, "")
    engine = chain.open(tmp_path, resend_s=PATIENCE_S)
    engine.append(sealed(engine, *map(str, range(600))), Cursor(EPOCH, 600))
    chain.until(lambda: len(chain.handed) == 2)
    assert chain.decide(chain.handed[1])[0] == Code.AHEAD
    chain.until(lambda: len(chain.handed) == 3)
    assert len(transaction.decode(chain.handed[2])) == 601  # all of them go together now
    engine.close()


def test_a_refusal_is_told_and_the_outbox_kept(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (2, "of a node that is no member")
    engine = chain.open(tmp_path)
    chain.until(lambda: engine.refused)
    assert engine.refused == "of a node that is no member"
    assert chain.store.waiting() == 1
    engine.close()


def test_a_transaction_that_comes_twice_is_taken_once(chain: Chain, tmp_path: Path) -> None:
    engine = chain.open(tmp_path)
    chain.until(lambda: chain.store.waiting() == 0)
    code, _ = chain.decide(chain.handed[0])
    assert code != 0
    assert chain.store.size() == 1
    engine.close()


def test_a_run_longer_than_a_transaction_goes_in_several(chain: Chain, tmp_path: Path) -> None:
    chain.answer = lambda tx: (0, "")
    engine = chain.open(tmp_path)
    count = 1500
    engine.append(sealed(engine, *map(str, range(count))), Cursor(EPOCH, count))
    chain.handed.clear()
    chain.answer = chain.decide
    chain.until(lambda: chain.store.waiting() == 0)
    assert chain.store.size() == count + 1
    assert all(len(tx) <= transaction.MAX_SIZE for tx in chain.handed)
    assert len(chain.handed) > 1
    engine.close()


def execute(application: ConsortiumApplication, blocks: Sequence[Block]) -> None:
    """Execute decided blocks."""
    for decided in blocks:
        application.finalize_block(decided)
        application.commit()


@pytest.mark.parametrize("sealed_before", [True, False])
@pytest.mark.parametrize("restore", [Chain.replay, Chain.take_over], ids=["by replay", "by state sync"])
def test_entries_get_their_batches_again_when_the_disk_was_lost(
    chain: Chain, tmp_path: Path, sealed_before: bool, restore: Callable[[Chain, Path], None]
) -> None:
    source = Source()
    engine = chain.open(tmp_path)
    for records in (2, 3, 1):
        chain.height += EVERY  # so that there is a snapshot of each block
        source.close(records=records)
        assert Sealer(source, engine, KEY).step() == 1
        chain.until(lambda: chain.store.waiting() == 0)
    engine.close()
    shutil.rmtree(tmp_path / "shared")
    chain.answer = nobody
    engine = chain.open(tmp_path)
    sealer = Sealer(source, engine, KEY)
    if sealed_before:  # before the first block is there
        assert sealer.step() == 3
    restore(chain, tmp_path)
    if not sealed_before:
        assert chain.store.unlinked(chain.hospital.node) == 3
    chain.answer = chain.decide
    chain.until(lambda: not any([sealer.step(), engine.unlinked(), chain.store.waiting()]))
    assert [(row.epoch, row.batch, row.records) for row in chain.store.all_entries()] == [
        (b"", 0, 0),
        *((EPOCH, number, records) for number, records in enumerate((2, 3, 1), 1)),
    ]
    assert len(chain.store.linked(0, 9)) == chain.store.newest_linked() <= 3
    assert engine.settle()
    trusted = audit_shared(tmp_path / "shared", chain.genesis, chain.hospital.node, source=source)
    assert trusted.findings == [] and trusted.entries == 4
    engine.close()


def test_what_was_linked_is_not_sealed_again_when_all_batches_are_looked_at_anew(chain: Chain, tmp_path: Path) -> None:
    source = Source()
    engine = chain.open(tmp_path)
    sealer = Sealer(source, engine, KEY, limit=2)
    for _ in range(5):
        source.close()
    while sealer.step():
        pass
    chain.until(lambda: chain.store.waiting() == 0)
    assert (chain.store.size(), chain.store.unlinked(chain.hospital.node)) == (6, 0)
    with chain.store.writing():
        chain.store.supersede()  # as when other entries than those in the outbox came
    source.close()
    steps = [sealer.step() for _ in range(4)]
    chain.until(lambda: chain.store.waiting() == 0)
    assert steps == [0, 0, 1, 0] and chain.store.size() == 7
    engine.close()


def test_entries_whose_batches_are_nowhere_are_looked_for_once(chain: Chain, tmp_path: Path) -> None:
    source = Source()
    engine = chain.open(tmp_path)
    for _ in range(2):
        source.close()
    Sealer(source, engine, KEY).step()
    chain.until(lambda: chain.store.waiting() == 0)
    engine.close()
    shutil.rmtree(tmp_path / "shared")
    chain.answer = nobody
    engine = chain.open(tmp_path)
    chain.replay(tmp_path)
    restored = Asked(epoch=octets("another epoch"))  # an index from before the second batch
    restored.batches = source.batches[:1]
    sealer = Sealer(restored, engine, KEY)
    while sealer.step() or restored.asked < 4:
        pass
    assert [row.batch for row in chain.store.all_entries()] == [0, 1, 0]
    asked = restored.asked
    for _ in range(5):
        assert sealer.step() == 0
    assert restored.asked == asked + 5  # for what is new, and no more
    engine.close()


class Asked(Source):
    """It counts how often it was asked for batches."""

    asked = 0

    def closed_batches(self, after: int, limit: int) -> Sequence[ClosedBatch]:
        self.asked += 1
        return super().closed_batches(after, limit)


def nobody(tx: bytes) -> tuple[int, str]:
    raise ConnectionRefusedError("no CometBFT")
