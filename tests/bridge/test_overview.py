"""How a node stands, in figures: what waits for the ledger, what is stored, and when it came."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import sealing_process
from bridge.audit_forwarding.position import Position, PositionFile
from bridge.config import Audit, Content, Settings
from bridge.crypto.keystore import open_keystore
from bridge.errors import DatabaseDamaged, StorageFault
from bridge.index.index import SqlIndex
from bridge.index.overview import stored_between
from bridge.ledger_reading import ledger_home
from bridge.model import OPERATOR
from bridge.node import Node
from bridge.services.scrub import Scrub
from ledger.errors import LedgerError
from tests.bridge.services.conftest import CHEAP, instance, part10
from tests.bridge.services.test_store import store
from tests.contract.index import batch, unit

DAY = 86_400_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", content=Content(reserve_bytes=0))


@pytest.fixture
def open_node(settings: Settings) -> Iterator[Callable[[Settings], Node]]:
    opened: list[Node] = []

    def open_(given: Settings) -> Node:
        opened.append(Node(given, open_keystore(given.home, cost=CHEAP), "command"))
        return opened[-1]

    yield open_
    for node in opened:
        node.close()


@pytest.fixture
def node(open_node: Callable[[Settings], Node], settings: Settings) -> Node:
    return open_node(settings)


def seal(settings: Settings, node: Node) -> None:
    ended = threading.Event()
    ended.set()
    sealing_process.run(settings, node.keystore, ended, lambda opened: None)


def test_the_ledgers_process_accepts_when_the_ledger_is_open(settings: Settings, node: Node) -> None:
    told, ended = list[bool](), threading.Event()

    def beat(opened: bool) -> None:
        told.append(opened)
        if opened:
            ended.set()

    sealing_process.run(settings, node.keystore, ended, beat)
    assert told[0] is False and told[-1] is True
    database = ledger_home(settings) / "ledger.db"
    database.write_bytes(b"x" * 5000)
    told.clear()
    with pytest.raises(LedgerError):
        sealing_process.run(settings, node.keystore, threading.Event(), beat)
    assert set(told) == {False}


def administer(node: Node) -> None:
    node.access.administered("admin.token", OPERATOR, {"did": "created"})


def test_closed_batches_wait_until_the_ledger_has_sealed_them(settings: Settings, node: Node) -> None:
    administer(node)
    administer(node)
    before = node.overview.ledger()
    assert (before.size, before.last_sequence, before.checkpoint) == (0, None, None)
    assert (before.waiting_batches, before.waiting_records) == (2, 2)
    assert before.waiting_since is not None
    seal(settings, node)
    after = node.overview.ledger()
    assert (after.size, after.last_sequence) == (2, 1)
    assert (after.waiting_batches, after.waiting_records, after.waiting_since) == (0, 0, None)
    assert after.checkpoint is not None and after.checkpoint >= before.waiting_since
    assert after.stepped_back_us == 0
    administer(node)
    assert node.overview.ledger().waiting_batches == 1


def test_sessions_that_are_not_over_are_open(node: Node) -> None:
    node.access.audited(replace(OPERATOR, name="reader"), "timeline")
    node.access.flush()
    health = node.overview.ledger()
    assert health.open_batches == 1
    assert health.open_since is not None


def test_forwarding_is_known_where_there_is_a_repository(
    settings: Settings, open_node: Callable[[Settings], Node], tmp_path: Path
) -> None:
    assert open_node(settings).overview.ledger().forwarded is None
    other = replace(settings, home=tmp_path / "other", audit=Audit(repository_host="audit.example"))
    node = open_node(other)
    assert node.overview.ledger().forwarded == 0
    PositionFile(other.home / "audit-spool").save(Position(7, bytes(32)))
    assert node.overview.ledger().forwarded == 7


def test_storage_counts_rows_packs_and_the_disk(node: Node) -> None:
    storage = node.overview.storage()
    assert storage.counts["instances"] == 0
    assert (storage.packs, storage.pack_bytes) == (0, 0)  # nothing was stored so far
    assert storage.disk_size == shutil.disk_usage(node.settings.home).total
    assert node.overview.storage().at == storage.at  # counting is not done anew for each who asks


def test_packs_that_cannot_be_looked_at_are_a_storage_fault(node: Node) -> None:
    packs = node.settings.home / "packs"
    assert node.overview.storage().packs == 0
    packs.mkdir(exist_ok=True)
    (packs / "000000.pack").write_bytes(bytes(100))
    assert (node.overview.storage().packs, node.overview.storage().pack_bytes) == (1, 100)
    (packs / "000001.pack").symlink_to(packs / "nothing")
    with pytest.raises(StorageFault, match="the packs cannot be looked at"):
        node.overview.storage()


def test_a_ledger_whose_file_is_no_database_is_told_as_damaged(settings: Settings, node: Node) -> None:
    administer(node)
    seal(settings, node)
    database = ledger_home(settings) / "ledger.db"
    for file in database.parent.glob("ledger.db*"):
        file.unlink()
    database.write_bytes(os.urandom(8192))
    with pytest.raises(DatabaseDamaged, match=r"the ledger is damaged: ledger\.db"):
        node.overview.ledger()


def test_instances_are_counted_by_when_they_came(tmp_path: Path) -> None:
    start = 1_700_000_000_000_000
    index = SqlIndex(tmp_path / "index.db", "test", lambda: None)
    into = batch()
    came = [start + day * DAY + offset for day, many in enumerate((3, 0, 1, 5)) for offset in range(many)]
    for number, received in enumerate(came):
        index.commit(replace(unit(("1.2.3", "1.2.3.1", f"1.2.3.1.{number}"), into), received=received)).result()
    try:
        moments = [start + day * DAY for day in range(-2, 7)]
        assert stored_between(index.database, moments) == [0, 0, 3, 0, 1, 5, 0, 0]
        assert stored_between(index.database, [start + 1, start + 2]) == [1]
    finally:
        index.close()


def test_an_empty_archive_has_stored_nothing(node: Node) -> None:
    assert node.overview.stored_between([0, DAY, 2 * DAY]) == [0, 0]


def test_an_archive_tells_how_it_stands_with_its_content_engine(node: Node) -> None:
    empty = node.overview.content()
    assert (empty.engine, empty.days, empty.begun, empty.share, empty.faults) == ("embedded", 30, None, 0.0, ())
    for _ in range(2):
        store(node, part10(instance()))
    scrub = Scrub(node, lambda: 1_700_000_000_000_000)
    assert scrub.step() == 0.0
    node.index.content_state.report({"engine": "Kubo does not answer"}, 7)
    half = node.overview.content()
    assert (half.begun, half.share, half.wrong) == (1_700_000_000_000_000, 0.5, 0)
    assert (half.pinned, half.verified, half.faults) == (1, 1, ((7, "Kubo does not answer"),))
    assert half.oldest is not None
