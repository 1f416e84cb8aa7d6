"""What the ledger reads: closed batches in the order of closing, leaves in order, nothing that is still open."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bridge.index.database import Place
from bridge.index.index import SqlIndex
from bridge.index.record_source import SqlRecordSource
from bridge.model import Batch, BatchClosing, SealedRecord
from ledger.source import RecordLeaf, RecordSource
from tests.contract.index import batch, record, unit


def tag(what: str, text: str) -> bytes:
    return hashlib.sha256(f"{what} {text}".encode()).digest()[:16]


def opened(study: str | None, sealed: SealedRecord) -> bytes | None:
    return None if study == "1.gone" else b"opened " + sealed.sealed


@pytest.fixture
def index(place: Place) -> Iterator[SqlIndex]:
    index = SqlIndex(place, "test", lambda: None)
    yield index
    index.close()


@pytest.fixture
def source(place: Place, index: SqlIndex) -> Iterator[RecordSource]:
    source = SqlRecordSource(place, tag, opened)
    yield source
    source.close()


def close(index: SqlIndex, into: Batch, records: int, closed: int = 2_000) -> bytes:
    root = os.urandom(32)
    index.close_batch(into, BatchClosing(closed=closed, records=records, records_root=root)).result()
    return root


def test_only_closed_batches_are_read_in_the_order_of_closing(index: SqlIndex, source: RecordSource) -> None:
    batches = [batch(f"1.{number}", opened=number) for number in range(4)]
    for one in batches:
        index.append(one, [record()]).result()
    assert source.closed_batches(0, 10) == []
    roots = [close(index, one, 1) for one in (batches[2], batches[0], batches[1])]
    found = source.closed_batches(0, 10)
    assert [one.id for one in found] == [1, 2, 3]
    assert [one.records_root for one in found] == roots
    assert [one.study_tag for one in found] == [one.study_tag for one in (batches[2], batches[0], batches[1])]
    assert [one.id for one in source.closed_batches(1, 1)] == [2]
    assert source.closed_batches(3, 10) == []


def test_an_entry_is_told_who_what_and_when_without_names(index: SqlIndex, source: RecordSource) -> None:
    into = batch()
    index.commit(unit(into=into)).result()
    commitment = os.urandom(32)
    closing = BatchClosing(5_000, 1, os.urandom(32), b"root", (b"page",), 1, os.urandom(16), commitment)
    index.close_batch(into, closing).result()
    (found,) = source.closed_batches(0, 1)
    assert (found.type, found.time_us, found.purpose, found.outcome) == ("study.store", 5_000, "TREAT", 0)
    assert (found.actor_kind, found.role) == (2, "device")
    assert found.actor_tag == tag("actor", "device:CT1")
    assert found.address_tag == tag("address", "127.0.0.1")
    assert (found.study_tag, found.commitment, found.records) == (into.study_tag, commitment, 1)
    assert "CT1" not in repr(found)


def test_records_come_in_the_order_of_their_root_whoever_wrote_them(index: SqlIndex, source: RecordSource) -> None:
    into = batch()
    first = unit(into=into)
    more = [record(), record()]
    index.commit(first).result()
    index.append(into, more).result()
    close(index, into, 3)
    assert source.records(1) == [RecordLeaf(one.leaf, b"opened " + one.sealed) for one in (first.record, *more)]


def test_a_record_whose_key_is_gone_keeps_its_leaf(index: SqlIndex, source: RecordSource) -> None:
    into = batch("1.gone")
    one = record()
    index.append(into, [one]).result()
    close(index, into, 1)
    assert source.records(1) == [RecordLeaf(one.leaf, None)]


def test_an_open_batch_waits_from_when_it_should_have_closed_and_a_closed_one_from_its_closing(
    index: SqlIndex, source: RecordSource
) -> None:
    assert source.oldest_pending_us(0) is None
    stores, session = batch("1.1", opened=20), replace(batch("1.2", opened=10), type="study.access")
    index.append(session, [record()]).result()
    assert source.oldest_pending_us(0) == 10 + 660_000_000
    index.append(stores, [record()]).result()
    assert source.oldest_pending_us(0) == 20 + 30_000_000
    close(index, stores, 1)
    closed = source.closed_batches(0, 1)[0].time_us
    assert source.oldest_pending_us(0) == closed
    assert source.oldest_pending_us(1) == 10 + 660_000_000
    close(index, session, 1)
    assert source.oldest_pending_us(2) is None


def test_the_epoch_is_the_databases(index: SqlIndex, source: RecordSource) -> None:
    assert source.epoch() == index.database.epoch
