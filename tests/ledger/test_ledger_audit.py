"""The audit finds what was changed, wherever it was changed, and says where."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_source import KEY, ORIGIN, START, Source, octets

from ledger import checkpoint, entry, merkle, run_reader, wal
from ledger.audit import audit
from ledger.engine.solo import DATABASE, SoloEngine
from ledger.errors import RecordUnreadable
from ledger.finding import Finding
from ledger.page_digests import PageDigests
from ledger.sealer import Sealer
from ledger.source import RecordLeaf
from ledger.store import LedgerStore, digests_path, wal_path

PUBLIC = KEY.public_key()


def filled() -> Source:
    source = Source()
    for number in range(12):
        source.close(type="study.access" if number % 3 else "study.store", study=f"study {number % 4}")
    return source


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of 12 entries, closed in order."""
    home = tmp_path_factory.mktemp("sealed")
    source = filled()
    engine = SoloEngine(home, KEY, ORIGIN)
    while Sealer(source, engine, KEY, 5).step():
        engine.publish()  # so that each step is a transaction
    engine.close()
    return home


@pytest.fixture
def home(sealed: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(sealed, tmp_path / "ledger")


def find(home: Path, source: Source | None = None, now_us: int = START) -> list[Finding]:
    return audit(home, PUBLIC, ORIGIN, source, now_us=now_us)


def flip(path: Path, at: int, mask: int = 0x01) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def test_an_untouched_ledger_has_no_findings(home: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert audit(home, PUBLIC, ORIGIN, filled(), lambda done, total: seen.append((done, total))) == []
    assert seen == [(number, 12) for number in range(1, 13)]
    of_records: list[tuple[int, int]] = []
    audit(home, PUBLIC, ORIGIN, filled(), progress_of_records=lambda done, total: of_records.append((done, total)))
    assert of_records == seen


def test_a_flip_anywhere_in_the_database_is_found_and_its_page_named(home: Path) -> None:
    database = home / DATABASE
    size = database.stat().st_size
    # Every byte of the file header and of each page's header, and a walk with a stride prime to the page size.
    places = {*range(100), *(page + at for page in range(0, size, 4096) for at in range(12)), *range(0, size, 199)}
    for number, at in enumerate(sorted(places)):
        mask = 1 << number % 8
        flip(database, at, mask)
        findings = find(home)
        assert Finding(DATABASE, f"page {at // 4096 + 1} is not as the ledger wrote it") in findings, at
        flip(database, at, mask)
    assert find(home) == []


def test_every_byte_of_the_checkpoint_file_counts(home: Path) -> None:
    path = home / "checkpoint"
    for at in range(path.stat().st_size):
        flip(path, at, 1 << at % 8)
        assert [finding.place for finding in find(home)] == ["checkpoint"], at
        flip(path, at, 1 << at % 8)


def test_every_tile_byte_counts(home: Path) -> None:
    for path in sorted((home / "tile").rglob("*")):
        if path.is_file():
            for at in range(0, path.stat().st_size, 97):
                flip(path, at)
                assert find(home) == [
                    Finding(path.relative_to(home).as_posix(), "it does not hold what the log says")
                ], at
                flip(path, at)


def test_flipped_page_digests_are_found(home: Path) -> None:
    path = digests_path(home / DATABASE)
    for at in range(0, path.stat().st_size, 23):
        flip(path, at)
        assert [finding.place for finding in find(home)] == [DATABASE], at
        flip(path, at)


@pytest.mark.parametrize("change", ["cut", "longer", "empty", "gone", "other"])
def test_a_database_of_another_length_or_kind_is_found(home: Path, change: str) -> None:
    database = home / DATABASE
    if change == "cut":
        os.truncate(database, database.stat().st_size - 4096)
    elif change == "longer":
        with database.open("ab") as file:
            file.write(bytes(4096))
    elif change == "empty":
        os.truncate(database, 0)
    elif change == "gone":
        database.unlink()
    else:
        database.write_bytes(b"not a database" * 1000)
    assert any(finding.place == DATABASE for finding in find(home))


def test_missing_and_foreign_files_are_found(home: Path) -> None:
    tile = home / "tile/0/000.p/12"
    content = tile.read_bytes()
    tile.unlink()
    assert Finding("tile/0/000.p/12", "it is missing") in find(home)
    tile.write_bytes(content)
    (home / "tile/0/000.p/13").write_bytes(bytes(13 * 32))
    (home / "tile/notes.txt").write_bytes(b"")
    assert {finding.place for finding in find(home)} == {"tile/0/000.p/13", "tile/notes.txt"}


def test_a_checkpoint_file_of_an_older_tree_or_none_is_found(home: Path) -> None:
    path = home / "checkpoint"
    store = LedgerStore(home / DATABASE, readonly=True)
    oldest = store.checkpoint(5)
    store.close()
    assert oldest is not None
    path.write_text(oldest)
    assert find(home) == [Finding("checkpoint", "it is not the checkpoint that the log ends with")]
    path.unlink()
    assert find(home) == [Finding("checkpoint", "it is missing")]


def tamper(home: Path, *statements: str) -> None:
    """Change the database as someone would who knows SQL and how the page digests are made."""
    database = home / DATABASE
    connection = sqlite3.connect(database, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    store = LedgerStore(database, readonly=True)
    state = store.state_digest()
    store.close()
    PageDigests(digests_path(database)).rebuild(database, state)


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE entries SET type = 'study.query' WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET study = x'00' WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET study = NULL WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET actor = zeroblob(16) WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET time = time + 1 WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET leaf = zeroblob(32) WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET seq = 99 WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET outcome = 8 WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET purpose = 'HRESCH' WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET envelope = zeroblob(400) WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET envelope = 'text' WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET idx = 99 WHERE idx = 11", "entry 11"),
        ("UPDATE entries SET batch = 99 WHERE idx = 11", "cursor"),
        ("DELETE FROM entries WHERE idx = 11", "checkpoint 12"),
        ("DELETE FROM entries WHERE idx = 3", "entry 3"),
        ("UPDATE state SET frontier = zeroblob(64)", "frontier"),
        ("UPDATE state SET frontier = zeroblob(31)", DATABASE),
        ("UPDATE state SET size = 11", DATABASE),
        ("UPDATE checkpoints SET note = replace(note, 'node', 'nodf') WHERE size = 5", "checkpoint 5"),
        ("UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 10) WHERE size = 5", "checkpoint 5"),
        ("DELETE FROM checkpoints WHERE size = 12", "checkpoint"),
        ("DROP INDEX entries_leaf", DATABASE),
        ("CREATE TABLE extra (x)", DATABASE),
    ],
)
def test_what_sql_changes_is_found_without_help_of_the_page_digests(home: Path, statement: str, place: str) -> None:
    tamper(home, statement)
    assert place in {finding.place for finding in find(home)}


def test_all_faults_are_collected(home: Path) -> None:
    tamper(home, "UPDATE entries SET time = 0 WHERE idx IN (2, 5, 9)")
    assert [finding.place for finding in find(home)] == ["entry 2", "entry 5", "entry 9"]


class AtOnce(Executor):
    """Does what it is given at once, in this process."""

    def __init__(self, processes: int, context: object, start: Callable[..., None], arguments: tuple[object, ...]):
        start(*arguments)

    def submit(self, work: Callable[..., object], /, *arguments: object, **named: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


COLUMNS = st.sampled_from(["leaf", "envelope", "type", "study", "time", "root", "epoch", "batch", "seq"])
PLACES, SIZES = st.integers(0, 11), st.sampled_from([0, 5, 10, 12])
DAMAGE = st.one_of(
    st.builds("UPDATE OR IGNORE entries SET {} = zeroblob({}) WHERE idx = {}".format, COLUMNS, PLACES, PLACES),
    st.builds("UPDATE OR IGNORE entries SET idx = {} WHERE idx = {}".format, st.integers(-5, 20), PLACES),
    st.builds("DELETE FROM entries WHERE idx = {}".format, PLACES),
    st.builds("UPDATE checkpoints SET note = replace(note, 'a', 'b') WHERE size = {}".format, SIZES),
    st.builds("UPDATE OR IGNORE checkpoints SET size = {} WHERE size = {}".format, st.integers(-2, 20), SIZES),
    st.builds("DELETE FROM checkpoints WHERE size = {}".format, SIZES),
)


def find_in_runs(home: Path, processes: int, run: int, signatures: bool = True) -> tuple[list[Finding], list[int]]:
    """The findings, and the progress that was told."""
    seen: list[int] = []
    findings = audit(
        home,
        PUBLIC,
        ORIGIN,
        filled(),
        lambda done, total: seen.append(done),
        now_us=START,
        signatures=signatures,
        processes=processes,
        run=run,
    )
    return findings, seen


@given(st.lists(DAMAGE, max_size=3), st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_found_does_not_depend_on_who_reads_how_many_entries(
    sealed: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], signatures: bool
) -> None:
    monkeypatch.setattr(run_reader, "ProcessPoolExecutor", AtOnce)
    with tempfile.TemporaryDirectory() as folder:
        home = shutil.copytree(sealed, Path(folder) / "ledger")
        tamper(home, *changes)
        with monkeypatch.context() as patched:
            patched.setattr(run_reader.Reader, "read", lambda *run: None)  # entry by entry
            alone = find_in_runs(home, 1, 2048, signatures)
        assert changes or alone == ([], list(range(1, 13)))
        for run in (1, 2, 4, 8, 64):
            assert find_in_runs(home, 2, run, signatures) == alone
            assert find_in_runs(home, 1, run, signatures) == alone


def test_a_damaged_envelope_behind_a_missing_entry_is_a_finding_and_no_end(home: Path) -> None:
    tamper(home, "DELETE FROM entries WHERE idx = 0", "UPDATE entries SET envelope = zeroblob(1) WHERE idx = 1")
    findings, _ = find_in_runs(home, 1, 2048)
    assert findings
    assert find_in_runs(home, 2, 4)[0] == findings


def test_processes_of_their_own_find_the_same(home: Path) -> None:
    assert find_in_runs(home, 2, 4) == ([], list(range(1, 13)))
    tamper(home, "UPDATE entries SET time = 0 WHERE idx IN (2, 9)", "DELETE FROM checkpoints WHERE size = 12")
    alone = find_in_runs(home, 1, 2048)
    assert {finding.place for finding in alone[0]} == {"entry 2", "entry 9", "checkpoint"}
    assert find_in_runs(home, 2, 4) == alone


def test_processes_that_die_are_done_without(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_reader, "_read", dying)
    assert find_in_runs(home, 2, 1) == ([], list(range(1, 13)))


def dying(of: object) -> None:
    """Ends its process, as the system does that is short of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("UPDATE entries SET leaf = zeroblob(32) WHERE idx = 3", "entry 3"),
        ("UPDATE entries SET envelope = zeroblob(400) WHERE idx = 3", "checkpoint 5"),
        ("DELETE FROM entries WHERE idx = 3", "checkpoint 12"),
        ("UPDATE checkpoints SET note = replace(note, 'node', 'nodf') WHERE size = 5", "checkpoint 5"),
        ("UPDATE state SET frontier = zeroblob(64)", "frontier"),
    ],
)
def test_hashes_alone_find_every_change_of_the_log(home: Path, statement: str, place: str) -> None:
    assert audit(home, PUBLIC, ORIGIN, signatures=False) == []
    tamper(home, statement)
    assert place in {finding.place for finding in audit(home, PUBLIC, ORIGIN, signatures=False)}


def test_a_history_signed_anew_by_the_node_is_found_in_older_checkpoints(home: Path, tmp_path: Path) -> None:
    forged = filled()
    forged.change(2, outcome=8)
    other = tmp_path / "forged"
    engine = SoloEngine(other, KEY, ORIGIN)
    while Sealer(forged, engine, KEY, 12).step():
        engine.publish()  # so that each step is a transaction
    engine.close()
    store = LedgerStore(other / DATABASE, readonly=True)
    stored = [row.envelope for row in store.all_entries()]
    store.close()
    quoted = [f"UPDATE entries SET envelope = x'{item.hex()}' WHERE idx = {at}" for at, item in enumerate(stored)]
    tamper(home, *quoted)
    places = {finding.place for finding in find(home)}
    assert {"checkpoint 5", "checkpoint 10", "checkpoint 12"} <= places


def crashed(home: Path) -> Source:
    """Seal in a child that is killed with its write-ahead log full; the source it sealed from."""
    source = filled()
    child = os.fork()
    if child == 0:
        engine = SoloEngine(home, KEY, ORIGIN)
        while Sealer(source, engine, KEY, 4).step():
            engine.publish()  # so that each step is a transaction
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    return source


def test_a_flip_in_the_write_ahead_log_of_a_killed_node_is_found(tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    source = crashed(home)
    log = wal_path(home / DATABASE)
    content = log.read_bytes()
    assert len(content) > 4096 and find(home, source) == []
    frame = 24 + 4096
    heads = {start + at for start in range(32, len(content), frame) for at in range(24)}
    for at in sorted({*range(32), *heads}):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        assert wal.read(bytes(damaged)).fault, at
    for at in range(0, len(content), 2999):
        flip(log, at, 1 << at % 8)
        assert any(finding.place == log.name for finding in find(home)), at
        log.write_bytes(content)
    assert find(home, source) == []


def test_a_flip_in_a_page_that_the_log_will_replace_is_found(tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    crashed(home)
    database = home / DATABASE
    assert set(wal.read(wal_path(database).read_bytes()).pages) & {1, 2, 3}
    for at in range(0, database.stat().st_size, 401):
        flip(database, at)
        assert any(finding.place == DATABASE for finding in find(home)), at
        flip(database, at)


def test_a_torn_tail_of_the_log_is_no_finding_and_the_node_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    source = crashed(home)
    log = wal_path(home / DATABASE)
    with log.open("ab") as file:
        file.write(bytes(3000))
    assert find(home, source) == []
    SoloEngine(home, KEY, ORIGIN).close()
    assert find(home, source) == []


def test_a_node_does_not_start_over_a_log_with_damaged_commits(tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    crashed(home)
    flip(wal_path(home / DATABASE), 32 + 24 + 100)
    before = (home / DATABASE).read_bytes(), wal_path(home / DATABASE).read_bytes()
    with pytest.raises(Exception, match="does not match its checksum"):
        SoloEngine(home, KEY, ORIGIN)
    assert ((home / DATABASE).read_bytes(), wal_path(home / DATABASE).read_bytes()) == before


def test_a_database_closed_by_other_hands_is_digested_anew_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "ledger"
    source = crashed(home)
    other = sqlite3.connect(home / DATABASE)
    other.execute("SELECT count(*) FROM entries").fetchone()
    other.close()
    assert find(home) != []
    SoloEngine(home, KEY, ORIGIN).close()
    assert find(home, source) == []


def test_an_audit_beside_a_running_node_is_clean(tmp_path: Path) -> None:
    source = filled()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    sealer = Sealer(source, engine, KEY, 3)
    while sealer.step():
        program = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from ledger_source import KEY, ORIGIN
from ledger.audit import audit
sys.exit(len(audit(Path({str(tmp_path)!r}), KEY.public_key(), ORIGIN)))"""
        assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
    engine.close()
    assert find(tmp_path, source) == []


def test_a_reader_holds_settling_up_and_nothing_is_lost_by_it(tmp_path: Path) -> None:
    source = Source()
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    sealer = Sealer(source, engine, KEY)
    for _ in range(4):
        source.close()
        reader = LedgerStore(tmp_path / DATABASE, readonly=True)
        with reader.snapshot():
            size = reader.size()
            assert sealer.step() == 1
            engine.publish()
            assert not engine.settle()
            assert reader.size() == size
            assert find(tmp_path, source) == []
        reader.close()
        source.close()
        assert sealer.step() == 1
        assert find(tmp_path, source) == []
        assert engine.settle()
        assert find(tmp_path, source) == []
    engine.close()
    assert find(tmp_path, source) == []


def record_faults(home: Path, damage: Callable[[Source], object], now_us: int = START) -> list[str]:
    source = filled()
    damage(source)
    return [str(finding) for finding in find(home, source, now_us)]


def test_damaged_records_are_found(home: Path) -> None:
    def other_bytes(source: Source) -> None:
        leaf = source.leaves[4][1]
        source.leaves[4][1] = RecordLeaf(leaf.leaf, b"other")

    def other_leaf(source: Source) -> None:
        source.leaves[4][1] = RecordLeaf(merkle.leaf_hash(b"other"), b"other")

    def unreadable(source: Source) -> None:
        def refuse(batch: int) -> list[RecordLeaf]:
            raise RecordUnreadable("its seal does not open")

        source.records = refuse  # type: ignore[method-assign]

    assert record_faults(home, unreadable)[0] == "batch 1: its records cannot be read: its seal does not open"
    assert record_faults(home, other_bytes)[0] == "batch 4 record 1: it does not hash to its leaf"
    assert record_faults(home, other_leaf)[0] == "batch 4: the root over its records is not that of entry 3"
    assert record_faults(home, lambda source: source.leaves[4].pop())[0] == "batch 4: 1 records are held of 2"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"type": "study.query"}, "type"),
        ({"time_us": 1}, "time"),
        ({"purpose": "HRESCH"}, "purpose"),
        ({"outcome": 4}, "outcome"),
        ({"actor_kind": 1}, "actor"),
        ({"actor_tag": bytes(16)}, "actor"),
        ({"role": "admin"}, "actor"),
        ({"address_tag": None}, "actor"),
        ({"study_tag": None}, "study"),
        ({"commitment": bytes(32)}, "commitment"),
    ],
)
def test_batches_that_differ_from_their_entry_are_found(home: Path, change: dict[str, object], name: str) -> None:
    assert record_faults(home, lambda source: source.change(7, **change)) == [
        f"entry 6: its {name} is not that of batch 7"
    ]


def test_missing_and_unsealed_batches_are_found(home: Path) -> None:
    def without_entry(source: Source) -> None:
        source.leaves[5] = [RecordLeaf(merkle.leaf_hash(b"x"), None)]
        source.change(5, records_root=merkle.leaf_hash(b"x"), records=1)

    assert record_faults(home, without_entry) == [
        "batch 5: it has no entry",
        "entry 4: its batch is not in the index",
    ]
    assert record_faults(home, lambda source: source.batches.pop()) == ["entry 11: its batch is not in the index"]


def test_a_record_that_waits_longer_than_a_minute_is_found(home: Path) -> None:
    def pending(source: Source) -> None:
        source.pending = START

    assert record_faults(home, pending, START + 60_000_000) == []
    assert record_faults(home, pending, START + 61_000_000) == [
        "records: one has been waiting for its entry for 61 s, more than 60"
    ]


def test_records_that_cannot_be_opened_are_accepted_only_under_an_erase_entry(tmp_path: Path) -> None:
    source = filled()
    source.leaves[1] = [RecordLeaf(item.leaf, None) for item in source.leaves[1]]
    engine = SoloEngine(tmp_path, KEY, ORIGIN)
    while Sealer(source, engine, KEY).step():
        pass
    what = "it cannot be opened, and there is no erase entry for its study"
    engine.settle()
    assert [finding.what for finding in find(tmp_path, source)] == [what, what]
    source.close(type="study.erase", study="study 0")
    Sealer(source, engine, KEY).step()
    engine.close()
    assert source.batches[0].study_tag == octets("study 0")
    assert find(tmp_path, source) == []


def test_another_key_or_origin_fails_everywhere(home: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    other = audit(home, Ed25519PrivateKey.generate().public_key(), ORIGIN)
    assert {f"entry {number}" for number in range(12)} <= {finding.place for finding in other}
    elsewhere = audit(home, PUBLIC, "other.example/ledger")
    assert any(finding.what == "it names another ledger" for finding in elsewhere)


def test_entries_are_those_of_the_node(home: Path) -> None:
    store = LedgerStore(home / DATABASE, readonly=True)
    head = checkpoint.verify(store.checkpoint() or "", ORIGIN, PUBLIC)
    assert head.root == merkle.root(entry.leaf_hash(row.envelope) for row in store.all_entries())
    store.close()
