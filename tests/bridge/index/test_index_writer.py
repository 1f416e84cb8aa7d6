"""The writer: what a group costs, what it refuses, how a full or failing database is told."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bridge.content.manifest import InstanceBlock
from bridge.content.sealed_metadata import SealedMetadata
from bridge.dicom.attributes import Level
from bridge.dicom.matching import ALL, Query
from bridge.errors import Busy, ConfigError, StorageFault, StorageFull
from bridge.index.index import SqlIndex
from bridge.index.rows import instance_rows
from bridge.index.sqlite import SqliteDatabase
from bridge.index.storing import store
from bridge.index.writer import Transaction, Writer
from bridge.model import BatchClosing, BlockPosition, Outcome
from tests.contract.index import asked, batch, tag_of, unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


@pytest.fixture
def traced(path: Path) -> Iterator[tuple[Writer, list[str], list[str]]]:
    """A writer, the statements that it ran, and the calls to make content durable."""
    statements: list[str] = []
    synced: list[str] = []
    database = SqliteDatabase(path, trace=statements.append)
    writer = Writer(database, lambda: synced.append("sync"))
    yield writer, statements, synced
    writer.close()
    database.close()


def test_an_instance_of_a_known_series_costs_few_statements_and_one_commit(
    traced: tuple[Writer, list[str], list[str]],
) -> None:
    writer, statements, synced = traced
    into = batch()
    for number in range(3):
        blocks = tuple(BlockPosition(bytes([number, place]) * 18, 1, place, 9) for place in range(3))
        one = unit(("1.2.3", "1.2.3.1", f"1.{number}"), into, blocks=blocks)
        rows = instance_rows(one, into.study_tag)
        statements.clear()
        work = partial(store, rows=rows, unit=one)
        writer.submit(work, needs_content=True).result()
    assert len([text for text in statements if text == "COMMIT"]) == 1
    assert len(statements) <= 14
    assert synced == ["sync"] * 3


def test_content_is_durable_after_the_statements_and_before_the_commit(path: Path) -> None:
    told: list[str] = []
    database = SqliteDatabase(path, trace=told.append)
    writer = Writer(database, lambda: told.append("sync"))
    writer.submit(lambda transaction: transaction.cursor.execute("SELECT 1"), needs_content=True).result()
    assert told[told.index("SELECT 1") :] == ["SELECT 1", "sync", "COMMIT"]
    writer.close()
    database.close()


def test_while_another_process_writes_the_content_is_synced(path: Path) -> None:
    database, other = SqliteDatabase(path), SqliteDatabase(path)
    synced = threading.Event()
    writer = Writer(database, synced.set)
    other.lock()
    waiting = asked(writer.submit(lambda transaction: transaction.one("SELECT 1", {}), needs_content=True))
    assert synced.wait(60)
    assert not waiting.done()
    other.unlock()
    assert waiting.result() == (1,)
    writer.close()
    other.close()
    database.close()


def test_content_that_cannot_be_made_durable_fails_those_who_need_it_alone(path: Path) -> None:
    database = SqliteDatabase(path)
    taken, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        raise StorageFull("the disk is full")

    def hold(transaction: Transaction) -> None:
        taken.set()
        go_on.wait(60)

    writer = Writer(database, fail)
    first = asked(writer.submit(hold))
    taken.wait(60)  # the two below are one group
    needs = writer.submit(lambda transaction: transaction.cursor.execute("CREATE TABLE lost (id)"), needs_content=True)
    other = writer.submit(lambda transaction: transaction.cursor.execute("CREATE TABLE kept (id)") and None)
    go_on.set()
    first.result()
    with pytest.raises(StorageFull):
        needs.result()
    other.result()
    names = [name for (name,) in database.rows("SELECT name FROM sqlite_schema WHERE name IN ('lost', 'kept')", {})]
    assert names == ["kept"]
    writer.close()
    database.close()


def test_what_waits_together_is_committed_together(path: Path) -> None:
    held = threading.Event()
    entered = threading.Event()
    synced: list[int] = []

    def before_commit() -> None:
        synced.append(len(synced))
        entered.set()
        held.wait()

    index = SqlIndex(path, "test", before_commit)
    first = asked(index.commit(unit(("1.2.3", "1.2.3.1", "1.0"))))
    entered.wait()
    rest = [index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"))) for number in range(1, 50)]
    held.set()
    assert {future.result().outcome for future in (first, *rest)} == {Outcome.NEW}
    assert synced == [0, 1]
    index.close()


def test_who_waits_for_a_job_writes_all_that_stand_in_the_queue(path: Path) -> None:
    synced: list[int] = []
    index = SqlIndex(path, "test", lambda: synced.append(threading.get_ident()))
    first, second = (index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"))) for number in range(2))
    assert not first.done()
    assert second.result().outcome is Outcome.NEW
    assert first.done()
    assert first.result().outcome is Outcome.NEW
    assert synced == [threading.get_ident()]
    index.close()


def test_when_who_writes_is_interrupted_the_others_are_told_and_writing_goes_on(path: Path) -> None:
    def interrupted(transaction: Transaction) -> None:
        raise KeyboardInterrupt

    index = SqlIndex(path, "test", lambda: None)
    other = index.commit(unit(("1.2.3", "1.2.3.1", "1.0")))
    with pytest.raises(KeyboardInterrupt):
        index.run(interrupted).result()
    with pytest.raises(StorageFault):
        other.result()
    assert index.commit(unit(("1.2.3", "1.2.3.1", "1.1"))).result().outcome is Outcome.NEW
    assert [stored.key.sop for stored in index.locate("1.2.3")] == ["1.1"]
    index.close()


def test_of_many_threads_that_wait_each_gets_its_own_outcome(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)

    def store_some(sender: int) -> list[Outcome]:
        names = [f"1.{sender}.{number}" for number in range(25)]
        return [index.commit(unit(("1.2.3", "1.2.3.1", name))).result().outcome for name in names]

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(store_some, range(16)))
    assert outcomes == [[Outcome.NEW] * 25] * 16
    assert len(index.locate("1.2.3")) == 400
    index.close()


def test_a_full_queue_is_busy_and_takes_nothing(path: Path) -> None:
    held = threading.Event()
    entered = threading.Event()

    def before_commit() -> None:
        entered.set()
        held.wait()

    index = SqlIndex(path, "test", before_commit, most_waiting=2)
    futures = [asked(index.commit(unit(("1.2.3", "1.2.3.1", "1.0"))))]
    entered.wait()
    futures += [index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"))) for number in (1, 2)]
    with pytest.raises(Busy):
        index.commit(unit(("1.2.3", "1.2.3.1", "1.3")))
    held.set()
    assert [future.result().outcome for future in futures] == [Outcome.NEW] * 3
    assert len(index.locate("1.2.3")) == 3
    index.close()


def test_closing_writes_what_waits_and_then_refuses(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    futures = [index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"))) for number in range(20)]
    index.close()
    assert {future.result().outcome for future in futures} == {Outcome.NEW}
    with pytest.raises(StorageFault):
        index.commit(unit())


def test_a_full_disk_is_told_as_such_and_passes(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    index.commit(unit(("1.2.3", "1.2.3.1", "1.0"))).result()

    def limit(transaction: Transaction, pages: int) -> None:
        transaction.cursor.execute(f"PRAGMA max_page_count={pages}").fetchall()

    # SQLite refuses a limit below the present size and takes that size instead: the database can then not grow.
    index.run(lambda transaction: limit(transaction, 1)).result()
    large = unit(("1.2.3", "1.2.3.1", "1.1"), data=b"x" * 200_000)
    with pytest.raises(StorageFull):
        index.commit(large).result()
    assert len(index.locate("1.2.3")) == 1
    index.run(lambda transaction: limit(transaction, 1_000_000)).result()
    assert index.commit(large).result().outcome is Outcome.NEW
    index.close()


def test_a_failing_statement_is_a_storage_fault_of_its_job_alone(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)

    def work(transaction: Transaction) -> None:
        transaction.cursor.execute("SELECT * FROM nothing")

    with pytest.raises(StorageFault):
        index.run(work).result()
    assert index.commit(unit()).result().outcome is Outcome.NEW
    index.close()


def test_a_broken_constraint_is_a_bug_and_not_renamed(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)

    def work(transaction: Transaction) -> None:
        transaction.cursor.execute("INSERT INTO meta (name, value) VALUES ('epoch', x'00')")

    with pytest.raises(sqlite3.IntegrityError):
        index.run(work).result()
    index.close()


def test_a_cancelled_unit_is_not_written(path: Path) -> None:
    held = threading.Event()
    entered = threading.Event()

    def before_commit() -> None:
        entered.set()
        held.wait()

    index = SqlIndex(path, "test", before_commit)
    asked(index.commit(unit(("1.2.3", "1.2.3.1", "1.0"))))
    entered.wait()
    cancelled = index.commit(unit(("1.2.3", "1.2.3.1", "1.1")))
    assert cancelled.cancel()
    held.set()
    index.commit(unit(("1.2.3", "1.2.3.1", "1.2"))).result()
    assert [stored.key.sop for stored in index.locate("1.2.3")] == ["1.0", "1.2"]
    index.close()


def test_the_database_is_private_durable_and_wiped(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    assert {path.stat().st_mode & 0o777, Path(f"{path}.lock").stat().st_mode & 0o777} == {0o600}
    connection = index.database.connect()
    values = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")
    ]
    connection.close()
    assert values == ["wal", 2, 1]
    index.close()


def test_the_epoch_lasts_as_long_as_the_database(path: Path, tmp_path: Path) -> None:
    epochs = []
    for one in (path, path, tmp_path / "other.db"):
        database = SqliteDatabase(one)
        epochs.append(database.epoch)
        database.close()
    assert len(epochs[0]) == 16
    assert epochs[0] == epochs[1] != epochs[2]


def test_a_database_of_another_version_is_refused(path: Path) -> None:
    database = SqliteDatabase(path)
    database.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = x'39' WHERE name = 'schema version'")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError):
        SqliteDatabase(path)


def test_block_positions_are_found_and_listed_in_order(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    blocks = [BlockPosition(bytes([n // 256, n % 256]) * 18, n % 2, 1000 - n, 7) for n in range(1000)]
    index.commit(unit(blocks=tuple(blocks))).result()
    index.add_blocks([BlockPosition(b"later" * 7, 0, 5000, 10)])
    assert index.locate_block(blocks[3].cid) == blocks[3]
    assert index.locate_block(b"unknown") is None
    assert [index.committed_end(pack) for pack in (0, 1, 2)] == [5010, 1006, 0]
    assert list(index.positions(1)) == sorted(blocks[1::2], key=lambda position: position.offset)
    moved = blocks[3]._replace(pack=4, offset=1)
    index.add_blocks([moved])
    assert index.locate_block(moved.cid) == moved
    assert index.counts()["blocks"] == 1001
    assert index.packs() == [0, 1, 4]
    index.close()


def test_an_index_that_is_whole_is_walked_and_found_sound(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    into = batch()
    units = [
        unit(("1.2.3", "1.2.3.1", f"1.{number % 300}"), into, data=bytes([number // 300])) for number in range(450)
    ]
    for future in [index.commit(one) for one in units]:
        future.result()
    root = b"r" * 32
    index.close_batch(into, BatchClosing(2_000, 450, root)).result()
    assert [(found.key, found.digest, link) for found, link in index.instances()] == [
        (one.key, one.digest, one.link) for one in units
    ]
    assert list(index.closed_records()) == [(1, root, [one.record.leaf for one in units])]
    assert index.counts()["conflicts"] == 300
    assert index.check() == []
    index.close()


def test_a_damaged_database_is_found_out(path: Path) -> None:
    index = SqlIndex(path, "test", lambda: None)
    for number in range(50):
        index.commit(unit(("1.2.3", "1.2.3.1", f"1.{number}"), data=bytes(3000))).result()
    index.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 20 * 4096)
        file.write(bytes(range(256)) * 16 * 15)
    index = SqlIndex(path, "test", lambda: None)
    assert index.check() != []
    index.close()


def test_rows_made_again_from_sealed_metadata_are_those_of_the_unit(path: Path, tmp_path: Path) -> None:
    index, again = (SqlIndex(one, "test", lambda: None) for one in (path, tmp_path / "again.db"))
    one = unit(InstanceNumber=3)
    index.commit(one).result()
    for copy in (b"damaged copy", one.object.root):
        metadata = SealedMetadata(
            *(*one.key, one.sop_class, one.transfer_syntax, one.digest, one.json, one.frames, one.bulk, one.data_set),
            *(one.object.header, one.object.length, one.received, one.source),
        )
        block = InstanceBlock(one.batch.study_tag or b"", one.generation, one.tag, copy, b"metadata")
        again.add_instance(metadata, block, one.link, one.attributes, origin=None, replace=True)
    assert list(again.instances()) == list(index.instances())
    assert list(again.metadata("1.2.3")) == list(index.metadata("1.2.3"))
    assert again.study_tree(tag_of("1.2.3")) == index.study_tree(tag_of("1.2.3"))
    query = Query(Level.INSTANCE, include=ALL)
    assert again.search(query) == index.search(query)
    index.close()
    again.close()
