"""Sealing: each closed batch once, in order, through faults and kill -9 at every durable step."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ledger_source import EPOCH, KEY, ORIGIN, Source, octets

from ledger import checkpoint, entry
from ledger import store as store_module
from ledger.audit import audit
from ledger.engine import Sealed
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import ChainBroken, CodecError, SignatureInvalid
from ledger.sealer import Sealer
from ledger.source import Cursor
from ledger.store import LedgerStore


def seal(home: Path, source: Source, limit: int = 256) -> int:
    """Seal everything closed so far; how many entries were made."""
    engine = SoloEngine(home, KEY, ORIGIN)
    try:
        sealer = Sealer(source, engine, KEY, limit)
        made = 0
        while engine.position().cursor.id < len(source.batches) or engine.position().cursor.epoch != source.epoch():
            made += sealer.step()
        return made
    finally:
        engine.close()


def envelopes(home: Path) -> list[bytes]:
    store = LedgerStore(home / DATABASE, readonly=True)
    try:
        return [stored.envelope for stored in store.all_entries()]
    finally:
        store.close()


def test_batches_become_a_chain_of_entries_under_a_signed_checkpoint(tmp_path: Path) -> None:
    source = Source()
    for _ in range(5):
        source.close()
    assert seal(tmp_path, source, limit=2) == 5
    previous = entry.GENESIS
    for sequence, (envelope, batch) in enumerate(zip(envelopes(tmp_path), source.batches, strict=True)):
        said = entry.open(envelope, KEY.public_key())
        assert (said.sequence, said.previous, said.records_root) == (sequence, previous, batch.records_root)
        assert (said.type, said.time_us, said.study, said.commitment) == (
            batch.type,
            batch.time_us,
            batch.study_tag,
            batch.commitment,
        )
        previous = entry.envelope_hash(envelope)
    note = (tmp_path / "checkpoint").read_text()
    assert checkpoint.verify(note, ORIGIN, KEY.public_key()).size == 5
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []


def test_sealing_goes_on_after_a_restart_and_makes_nothing_twice(tmp_path: Path) -> None:
    source = Source()
    source.close()
    assert seal(tmp_path, source) == 1
    assert seal(tmp_path, source) == 0
    source.close()
    assert seal(tmp_path, source) == 1
    assert len(envelopes(tmp_path)) == 2


def test_an_empty_ledger_has_a_checkpoint_and_verifies(tmp_path: Path) -> None:
    assert seal(tmp_path, Source(epoch=b"")) == 0
    assert checkpoint.verify((tmp_path / "checkpoint").read_text(), ORIGIN, KEY.public_key()).size == 0
    assert audit(tmp_path, KEY.public_key(), ORIGIN) == []


def test_a_batch_without_records_moves_the_cursor_and_makes_no_entry(tmp_path: Path) -> None:
    source = Source()
    source.close(records=0)
    source.close()
    assert seal(tmp_path, source) == 1
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []


def test_under_a_new_epoch_what_was_sealed_before_is_not_sealed_again(tmp_path: Path) -> None:
    source = Source()
    for _ in range(3):
        source.close()
    seal(tmp_path, source)
    restored = Source()
    restored.batches, restored.leaves = list(source.batches), dict(source.leaves)
    restored.known_epoch = octets("another epoch")
    restored.close()
    assert seal(tmp_path, restored, limit=2) == 1
    assert len(envelopes(tmp_path)) == 4
    assert audit(tmp_path, KEY.public_key(), ORIGIN, restored) == []


def test_a_source_out_of_order_is_refused(tmp_path: Path) -> None:
    source = Source()
    source.close()
    source.close()
    source.batches.reverse()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    with pytest.raises(ChainBroken):
        Sealer(source, engine, KEY).step()
    engine.close()


def test_a_batch_that_cannot_be_an_entry_stops_the_sealer_and_leaves_nothing(tmp_path: Path) -> None:
    source = Source()
    source.close()
    source.change(1, actor_tag=b"short")
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    with pytest.raises(CodecError):
        Sealer(source, engine, KEY).step()
    assert engine.position().sequence == 0
    engine.close()


def test_the_engine_refuses_entries_that_do_not_continue_the_chain(tmp_path: Path) -> None:
    source = Source()
    batch = source.close()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    said = entry.Entry(
        engine.position().node,
        1,
        entry.GENESIS,
        batch.type,
        engine.ledger_id,
        0,
        "TREAT",
        0,
        entry.Who(0, bytes(16)),
        None,
        None,
        batch.records_root,
    )
    sign = partial(entry.sign, private_key=KEY)
    with pytest.raises(ChainBroken):
        engine.append([Sealed(said, entry.encode(said), Cursor(EPOCH, 1), 2, sign)], Cursor(EPOCH, 1))
    assert engine.position().cursor == Cursor(b"", 0)
    engine.close()


def test_another_key_cannot_continue_a_ledger(tmp_path: Path) -> None:
    seal(tmp_path, Source(epoch=b""))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    with pytest.raises(SignatureInvalid):
        SoloEngine(tmp_path, Ed25519PrivateKey.generate(), ORIGIN)


def test_the_loop_seals_when_woken_and_ends_when_told(tmp_path: Path) -> None:
    source = Source()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    stop, wake = threading.Event(), threading.Event()
    settled = threading.Event()
    settle = engine.settle

    def told() -> bool:
        done = settle()
        settled.set()
        return done

    engine.settle = told  # type: ignore[method-assign]
    loop = threading.Thread(target=Sealer(source, engine, KEY).run, args=(stop, wake))
    loop.start()
    assert settled.wait(60)
    settled.clear()
    source.close()
    wake.set()
    assert settled.wait(60)
    stop.set()
    wake.set()
    loop.join(60)
    assert not loop.is_alive()
    assert len(envelopes(tmp_path)) == 1
    engine.close()


def crash_at(event: int, work: Callable[[], object]) -> bool:
    """Run work in a child that is killed (SIGKILL) at its n-th durable step; whether it came to its end before."""
    child = os.fork()
    if child == 0:
        left = event

        def dying(real: Callable[..., object]) -> Callable[..., object]:
            def step(*args: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)

            return step

        os.fsync, os.fdatasync = dying(os.fsync), dying(os.fdatasync)  # type: ignore[assignment]
        Path.replace = dying(Path.replace)  # type: ignore[method-assign,assignment]
        LedgerStore.commit = dying(LedgerStore.commit)  # type: ignore[method-assign,assignment]
        LedgerStore.settle = dying(LedgerStore.settle)  # type: ignore[method-assign,assignment]
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status)


def test_kill_9_at_every_durable_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    source = Source()
    for _ in range(4):
        source.close(records=1)
    whole = tmp_path / "whole"
    seal(whole, source, limit=3)
    event, finished = 0, False
    while not finished:
        event += 1
        home = tmp_path / str(event)
        finished = crash_at(event, lambda: seal(home, source, limit=3))  # noqa: B023
        if (home / "checkpoint").exists():
            assert audit(home, KEY.public_key(), ORIGIN) == [], event
        seal(home, source, limit=3)
        assert envelopes(home) == envelopes(whole)
        assert audit(home, KEY.public_key(), ORIGIN, source) == [], event
        assert not list(home.rglob("*.tmp"))
    assert event > 25


def test_entries_are_listed_in_pages_both_ways_and_found_by_leaf_and_root(tmp_path: Path) -> None:
    source = Source()
    for number in range(10):
        source.close(type="study.access" if number % 2 else "study.store", study=f"study {number % 5}")
    seal(tmp_path, source)
    store = LedgerStore(tmp_path / DATABASE, readonly=True)
    assert store.size() == 10
    assert [row.idx for row in store.entries(limit=4)] == [0, 1, 2, 3]
    assert [row.idx for row in store.entries(after=3, limit=4)] == [4, 5, 6, 7]
    assert [row.idx for row in store.entries(after=3, limit=9, descending=True)] == [2, 1, 0]
    first = store.entry(0)
    assert first is not None and store.find(leaf=first.leaf) == first
    assert store.find(root=source.batches[0].records_root) == first
    assert store.find(leaf=bytes(32)) is None
    assert store.checkpoint() == (tmp_path / "checkpoint").read_text()
    assert replace(source.batches[0], records=first.records) == source.batches[0]
    store.close()


def test_what_another_engine_appended_is_seen_before_the_next_append(tmp_path: Path) -> None:
    source = Source()
    first, second = SoloEngine(tmp_path, KEY, ORIGIN), SoloEngine(tmp_path, KEY, ORIGIN)
    for engine in (first, second, second, first, first, second, first):
        source.close()
        assert Sealer(source, engine, KEY).step() == 1
    second.close()
    first.close()
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []


def test_the_writers_lock_tells_whether_another_had_it_meanwhile(tmp_path: Path) -> None:
    first, second = LedgerStore(tmp_path / DATABASE), LedgerStore(tmp_path / DATABASE)

    def asked(store: LedgerStore) -> bool:
        with store.writing():
            return store.others_held()

    assert [asked(first), asked(first), asked(second), asked(second), asked(first)] == [True, False, True, False, True]
    with second.writing():
        pass
    with first.writing():
        pass  # and not asked
    assert [asked(first), asked(first), asked(second)] == [True, False, True]
    first.close()
    second.close()


def test_files_that_a_loss_of_power_tore_are_written_anew(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    for _ in range(300):
        source.close(records=1)
    seal(home, source)
    for _ in range(250):
        source.close(records=1)
    child = os.fork()
    if child == 0:
        engine = SoloEngine(home, KEY, ORIGIN)
        while Sealer(source, engine, KEY, 100).step():
            engine.publish()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert audit(home, KEY.public_key(), ORIGIN, source) == []
    torn = (
        "checkpoint",
        "tile/0/001",
        "tile/0/002.p/38",
        "tile/entries/001",
        "tile/entries/002.p/38",
        "tile/1/000.p/2",
    )
    for name in torn:
        os.truncate(home / name, 0)
    assert {finding.place for finding in audit(home, KEY.public_key(), ORIGIN)} == set(torn)
    SoloEngine(home, KEY, ORIGIN).close()
    assert audit(home, KEY.public_key(), ORIGIN, source) == []


def test_after_a_lost_log_its_entries_are_made_again_over_files_that_were_torn(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    for _ in range(5):
        source.close()
    seal(home, source)
    source.close()
    child = os.fork()
    if child == 0:
        engine = SoloEngine(home, KEY, ORIGIN)
        Sealer(source, engine, KEY).step()
        engine.publish()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (home / f"{DATABASE}-wal").unlink()
    os.truncate(home / "tile/entries/000.p/6", 1)
    seal(home, source)
    assert audit(home, KEY.public_key(), ORIGIN, source) == []


def test_the_checkpoint_file_is_no_older_than_the_write_ahead_log(tmp_path: Path) -> None:
    source = Source()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    kept = []
    for _ in range(4):
        source.close()
        Sealer(source, engine, KEY).step()
        engine.publish()
        kept.append((tmp_path / "checkpoint").read_text())
        assert audit(tmp_path, KEY.public_key(), ORIGIN) == []
    assert engine.settle()
    (tmp_path / "checkpoint").write_text(kept[-2])
    wrong = [finding.place for finding in audit(tmp_path, KEY.public_key(), ORIGIN)]
    engine.close()
    assert wrong == ["checkpoint"]


def test_entries_are_found_in_every_segment_and_under_any_epoch_sealed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SCHEMA", tuple(text.replace("16384", "4") for text in store_module.SCHEMA))
    for name in ("SEGMENT", "SEGMENTS"):
        monkeypatch.setattr(store_module, name, getattr(store_module, name).replace("16384", "4"))
    source = Source()
    for _ in range(11):
        source.close()
    seal(tmp_path, source, limit=3)
    again = Source()
    again.batches, again.known_epoch = list(source.batches), octets("another epoch")
    again.close()
    assert seal(tmp_path, again, limit=5) == 1
    assert seal(tmp_path, source, limit=5) == 0
    store = LedgerStore(tmp_path / DATABASE, readonly=True)
    for stored in store.all_entries():
        assert store.find(leaf=stored.leaf) == store.find(root=stored.root) == stored
    store.close()


def test_indexes_of_former_versions_are_renewed(tmp_path: Path) -> None:
    source = Source()
    for _ in range(3):
        source.close()
    seal(tmp_path, source)
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as connection:
        for name in ("leaf", "root", "batch"):
            connection.execute(f"DROP INDEX entries_{name}")
        for name in ("leaf", "root", "study", "time"):
            connection.execute(f"CREATE INDEX entries_{name} ON entries ({name})")
        connection.execute("PRAGMA user_version = 1")
    source.close()
    assert seal(tmp_path, source) == 1
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []
