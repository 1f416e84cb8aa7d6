"""The journal: what it gave back after a crash, and that nothing else is taken from it."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_source import KEY, ORIGIN, Source

from ledger import entry, journal, keys
from ledger.audit import audit
from ledger.engine import solo
from ledger.engine.solo import DATABASE, JOURNAL, SoloEngine
from ledger.journal import Journal, Journaled
from ledger.sealer import Sealer
from ledger.source import Cursor
from ledger.store import LedgerStore

KEYED = bytes(32)
HEAD = 4 + 8 + 16 + 16  # bytes before a record's body: length, index, tag, hash
ENTRIES = [Journaled(bytes([number]) * (300 + number), Cursor(b"e" * 16, number + 1), number) for number in range(5)]


def stored(home: Path) -> list[bytes]:
    store = LedgerStore(home / DATABASE, readonly=True)
    try:
        return [row.envelope for row in store.all_entries()]
    finally:
        store.close()


def killed(home: Path, source: Source, batches: int) -> None:
    """Seal so many batches, one at a time, in a child that is killed before it has published the last three."""
    child = os.fork()
    if child == 0:
        engine = SoloEngine(home, KEY, ORIGIN)
        sealer = Sealer(source, engine, KEY)
        for number in range(batches):
            source.close()
            sealer.step()
            if number == batches - 4:
                engine.publish()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(batches):
        source.close()


def test_what_was_appended_is_read_again_from_its_index_on(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal", KEYED)
    assert first.append(7, ENTRIES[:2]) and first.append(9, ENTRIES[2:])
    again = Journal(tmp_path / "journal", KEYED)
    assert again.read(7) == ENTRIES and again.continues(7)
    assert again.read(6) == again.read(8) == [] and not again.continues(8)
    first.close()
    again.close()


def test_a_new_round_ends_where_it_was_written_to(tmp_path: Path) -> None:
    held = Journal(tmp_path / "journal", KEYED)
    held.append(0, ENTRIES)
    held.begin()
    held.append(5, ENTRIES[:1])
    assert held.read(5) == ENTRIES[:1] and held.read(0) == []
    held.close()


def test_a_full_journal_takes_nothing_and_keeps_its_size(tmp_path: Path) -> None:
    held = Journal(tmp_path / "journal", KEYED)
    taken = 0
    while held.append(taken, [Journaled(bytes(16_000), Cursor(b"e" * 16, taken), 1)]):
        taken += 1
    assert len(held.read(0)) == taken == journal.SIZE // (HEAD + 28 + 16_000)
    assert (tmp_path / "journal").stat().st_size == journal.SIZE
    held.close()


def test_every_flipped_byte_ends_the_journal_before_the_entry_that_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    held = Journal(path, KEYED)
    held.append(3, ENTRIES)
    ends = [0]
    for item in ENTRIES:
        ends.append(ends[-1] + HEAD + 28 + len(item.payload))
    whole = path.read_bytes()
    for at in range(ends[-1]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert held.read(3) == ENTRIES[: sum(end <= at for end in ends) - 1], at
    held.close()


def test_what_another_key_has_tagged_is_not_read_and_yet_no_fault(tmp_path: Path) -> None:
    other = Journal(tmp_path / "journal", bytes(31) + b"\1")
    other.append(0, ENTRIES)
    held = Journal(tmp_path / "journal", KEYED)
    assert held.read(0) == [] and other.read(0) == ENTRIES
    assert journal.fault(tmp_path / "journal") is None
    other.close()
    held.close()


def test_nothing_is_signed_that_somebody_else_wrote_into_the_journal(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    killed(home, source, 6)
    path = home / JOURNAL
    with_key = Journal(tmp_path / "again", solo._journal_key(KEY))
    forged = Journal(tmp_path / "forged", KEYED)
    before = Journal(path, solo._journal_key(KEY))
    left = before.read(3)
    before.close()
    assert len(left) == 3
    said = replace(entry.decode(left[0].payload), records_root=bytes(32))
    for made in (forged, with_key):
        made.append(3, [Journaled(entry.encode(said), left[0].batch, 1)])
        made.close()
    shutil.copyfile(tmp_path / "forged", path)
    SoloEngine(home, KEY, ORIGIN).close()
    assert len(stored(home)) == 3
    shutil.copyfile(tmp_path / "again", path)  # the same of one who can sign is taken in: what is tested is the tag
    SoloEngine(home, KEY, ORIGIN).close()
    assert len(stored(home)) == 4 and entry.read(stored(home)[3]) == said


def test_a_signer_that_fails_while_the_disk_writes_loses_nothing(tmp_path: Path) -> None:
    source, broken = Source(), [True]

    class Failing:
        def sign(self, data: bytes, /) -> bytes:
            if broken[0] and b"Signature1" in data:
                raise OSError("the key cannot be reached")
            return KEY.sign(data)

        def public_key(self) -> keys.PublicKey:
            return KEY.public_key()

    engine = SoloEngine(tmp_path, Failing(), ORIGIN)
    sealer = Sealer(source, engine, Failing())
    source.close()
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be reached"):
            sealer.step()
    broken[0] = False
    assert sealer.step() == 0  # it was durable, without its signature, and has that now
    assert len(stored(tmp_path)) == 1
    engine.close()
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []


def test_entries_that_were_only_in_the_journal_are_there_after_a_kill(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    killed(home, source, 10)
    assert len(stored(home)) == 7
    assert audit(home, KEY.public_key(), ORIGIN) == []
    SoloEngine(home, KEY, ORIGIN).close()
    assert len(stored(home)) == 10
    assert audit(home, KEY.public_key(), ORIGIN, source) == []


def test_entries_lost_with_the_journal_are_made_again_the_same(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    killed(home, source, 8)
    other = shutil.copytree(home, tmp_path / "other")
    SoloEngine(home, KEY, ORIGIN).close()
    (other / JOURNAL).unlink()
    engine = SoloEngine(other, KEY, ORIGIN)
    assert Sealer(source, engine, KEY).step() == 3
    engine.close()
    assert stored(other) == stored(home)


@pytest.mark.parametrize("foreign", ["another history", "another ledger"])
def test_a_journal_of_another_history_is_left_alone(tmp_path: Path, foreign: str) -> None:
    source, home = Source(), tmp_path / "ledger"
    killed(home, source, 8)
    kept = (home / JOURNAL).read_bytes()
    other, changed = tmp_path / "other", Source()
    for _ in range(5):
        changed.close(type="study.access", records=3)
    engine = SoloEngine(other, KEY, ORIGIN if foreign == "another history" else "another")
    Sealer(changed, engine, KEY).step()
    engine.close()
    (other / JOURNAL).write_bytes(kept)
    before = stored(other)
    engine = SoloEngine(other, KEY, ORIGIN if foreign == "another history" else "another")
    changed.close()
    assert Sealer(changed, engine, KEY).step() == 1
    engine.close()
    assert stored(other)[:5] == before and len(stored(other)) == 6


def test_what_an_engine_left_in_the_journal_another_takes_in_first(tmp_path: Path) -> None:
    source = Source()
    first, second = SoloEngine(tmp_path, KEY, ORIGIN), SoloEngine(tmp_path, KEY, ORIGIN)
    for engine in (first, second, second, first, first, second):
        source.close()
        assert Sealer(source, engine, KEY).step() == 1
    second.publish()
    assert len(stored(tmp_path)) == 6
    first.close()
    second.close()
    assert audit(tmp_path, KEY.public_key(), ORIGIN, source) == []


def test_every_flipped_bit_of_a_journal_is_found_and_the_next_start_makes_it_anew(tmp_path: Path) -> None:
    source, home = Source(), tmp_path / "ledger"
    killed(home, source, 6)
    path = home / JOURNAL
    whole = path.read_bytes()
    used = len(whole.rstrip(b"\0"))
    assert 0 < used < 3000 and journal.fault(path) is None
    for at in (*range(used), *range(used, len(whole), 997)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert journal.fault(path), at
    assert JOURNAL in {finding.place for finding in audit(home, KEY.public_key(), ORIGIN)}
    path.write_bytes(whole[:-1])
    assert journal.fault(path)
    SoloEngine(home, KEY, ORIGIN).close()
    assert path.read_bytes() == bytes(journal.SIZE)
    assert audit(home, KEY.public_key(), ORIGIN) == []
    path.unlink()
    assert journal.fault(path) is None
