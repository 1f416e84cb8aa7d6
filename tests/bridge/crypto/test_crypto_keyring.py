"""The key database: its contract, and that a deleted key is gone for every process and from the file."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bridge.crypto.keyring import Keyring
from bridge.crypto.keystore import Cost, Keystore, open_keystore
from bridge.crypto.unlock import Protection
from bridge.errors import ContentMissing, KeyFileInvalid, StorageFault, StorageFull
from bridge.model import StudyKey
from tests.contract.key_store import KeyStoreContract

ROOT = Path(__file__).parents[3]
KEYS = Keystore(
    bytes(32), bytes(32), bytes(range(32)), bytes(32), bytes(32), bytes(16), bytes(16), Protection.UNPROTECTED
)


class TestKeyring(KeyStoreContract):
    def make(self, home):
        return Keyring(home / "keys" / "keys.db", KEYS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.db"


@pytest.fixture
def ring(path):
    ring = Keyring(path, KEYS)
    yield ring
    ring.close()


def contents(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def wrapped(path):
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute("SELECT wrapped FROM study_key ORDER BY generation")]
    db.close()
    return found


def test_no_key_lies_unwrapped_in_any_file(ring, path):
    keys = [ring.study_key(f"1.2.{number}") for number in range(10)]
    raw = contents(path)
    assert not any(key.secret in raw for key in keys)


def test_the_files_are_for_their_owner_alone(ring, path):
    ring.study_key("1.2.3")
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_key_deleted_by_another_process_is_not_used_any_more(ring, path):
    key = ring.study_key("1.2.3")
    assert ring.open(key.tag, key.generation) == key
    other = Keyring(path, KEYS)
    assert other.delete("1.2.3") == 1
    other.close()
    with pytest.raises(ContentMissing):
        ring.open(key.tag, key.generation)
    fresh = ring.study_key("1.2.3")
    assert fresh.tag != key.tag
    assert fresh.secret != key.secret


def test_a_generation_begun_by_another_process_is_the_one_used(ring, path):
    first = ring.study_key("1.2.3")
    other = Keyring(path, KEYS)
    second = other.next_generation("1.2.3")
    other.close()
    assert ring.study_key("1.2.3") == second
    assert (second.generation, second.tag) == (first.generation + 1, first.tag)
    assert second.secret != first.secret
    assert ring.open(first.tag, first.generation) == first


def test_a_deleted_key_leaves_no_byte_in_the_database_or_its_log(ring, path):
    ring.study_key("1.2.3")
    ring.next_generation("1.2.3")
    kept = ring.study_key("1.2.4")
    secrets = wrapped(path)
    assert ring.delete("1.2.3") == 2
    raw = contents(path)
    assert sum(secret in raw for secret in secrets) == 1
    assert ring.study_key("1.2.4") == kept
    assert ring.delete("1.2.3") == 0


def test_another_key_encryption_key_does_not_unwrap(ring, path):
    key = ring.study_key("1.2.3")
    stranger = Keyring(path, open_keystore(path.parent, None, {}, Cost(64, 1, 4)))
    with pytest.raises(StorageFault, match="unwrap"):
        stranger.open(key.tag, key.generation)
    stranger.close()


@pytest.mark.parametrize(
    "change", ["wrapped = zeroblob(60)", "tag = zeroblob(16)", "generation = 5", "wrapped = x'00'"]
)
def test_an_altered_row_does_not_unwrap(path, change):
    ring = Keyring(path, KEYS)
    ring.study_key("1.2.3")
    ring.close()
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE study_key SET {change}")
    db.close()
    again = Keyring(path, KEYS)
    with pytest.raises(StorageFault, match="unwrap"):
        again.study_key("1.2.3")
    again.close()


def test_patients_have_random_tags_that_stay(ring, path):
    tag = ring.patient_tag("PID")
    assert len(tag) == 16
    assert ring.patient_tag("OTHER") != tag
    other = Keyring(path, KEYS)
    assert other.patient_tag("PID") == tag
    other.close()


def test_processes_that_create_one_studys_key_at_once_agree(tmp_path, path):
    code = (
        "import sys; from pathlib import Path\n"
        "from bridge.crypto.keystore import *; from bridge.crypto.keyring import Keyring\n"
        "ring = Keyring(Path(sys.argv[1]) / 'keys.db', open_keystore(Path(sys.argv[1]), None, {}, Cost(64, 1, 4)))\n"
        "print([ring.study_key(f'1.2.{n}').secret.hex() for n in range(20)]); ring.close()"
    )

    def run(_):
        return subprocess.run(
            [sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
        )

    with ThreadPoolExecutor(4) as pool:
        assert len({done.stdout for done in pool.map(run, range(4))}) == 1


def test_a_file_that_is_no_database_is_a_storage_fault(path):
    path.write_bytes(os.urandom(8192))
    with pytest.raises(StorageFault):
        Keyring(path, KEYS)


def test_what_a_damaged_database_raises_is_a_storage_fault(path):
    ring = Keyring(path, KEYS)
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE study_key")
    db.close()
    with pytest.raises(StorageFault):
        ring.study_key("1.2.3")
    ring.close()


def test_a_database_that_cannot_grow_is_a_full_disk_and_not_a_fault(path):
    """The sender of an instance of a new study is told 507 or A700 with this cause, not 503."""
    ring = Keyring(path, KEYS)
    ring._db.execute(f"PRAGMA max_page_count = {ring._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StorageFull):
        for number in range(200):
            ring.study_key(f"1.2.{number}")
    ring.close()


def test_settings_of_the_database_are_those_of_the_design(ring):
    asked = {
        name: ring._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "secure_delete")
    }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}


THEIRS = StudyKey("1.2.3", 2, b"their study tag.", bytes(range(32)))
ORIGIN = b"their node's id."


def test_another_nodes_key_is_held_beside_our_own_and_ours_stays_the_current(ring, path):
    own = ring.study_key("1.2.3")
    ring.adopt(THEIRS, ORIGIN)
    ring.adopt(THEIRS, ORIGIN)
    assert ring.open(THEIRS.tag, 2) == THEIRS
    assert ring.study_key("1.2.3") == own
    assert (ring.origin_of(THEIRS.tag), ring.origin_of(own.tag)) == (ORIGIN, None)
    assert ring.study_of(THEIRS.tag) == "1.2.3"
    assert ring.next_generation("1.2.3").tag == own.tag
    assert THEIRS.secret not in contents(path)
    with pytest.raises(ContentMissing):
        ring.origin_of(bytes(16))


def test_a_nodes_own_key_comes_back(ring):
    back = StudyKey("1.2.4", 0, b"our own tag long", bytes(32))
    ring.adopt(back, KEYS.node_id)
    assert ring.study_key("1.2.4") == back
    assert ring.origin_of(back.tag) is None


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        (THEIRS._replace(secret=bytes(32)), ORIGIN),
        (THEIRS._replace(study="1.2.9"), ORIGIN),
        (THEIRS._replace(generation=3, study="1.2.9"), ORIGIN),
        (THEIRS._replace(generation=3, tag=b"another study tg"), ORIGIN),
        (THEIRS._replace(tag=b"another study tg"), ORIGIN),
        (THEIRS, b"another node's i"),
        (THEIRS._replace(generation=3), b"another node's i"),
    ],
)
def test_a_key_that_contradicts_one_that_is_held_is_refused(ring, key, origin):
    ring.adopt(THEIRS, ORIGIN)
    with pytest.raises(KeyFileInvalid):
        ring.adopt(key, origin)
    assert ring.open(THEIRS.tag, 2) == THEIRS
    assert [held.generation for held in ring.held("1.2.3")] == [2]
    assert ring.held("1.2.9") == []


def test_an_adopted_key_goes_with_the_study(ring):
    ring.study_key("1.2.3")
    ring.adopt(THEIRS, ORIGIN)
    assert ring.delete("1.2.3") == 2
    with pytest.raises(ContentMissing):
        ring.open(THEIRS.tag, 2)


def test_another_nodes_keys_are_given_up_by_their_tag_and_ours_of_the_study_stay(ring, path):
    own = ring.study_key("1.2.3")
    ring.adopt(THEIRS, ORIGIN)
    ring.adopt(THEIRS._replace(generation=3), ORIGIN)
    before = contents(path)
    assert ring.disown(THEIRS.tag) == 2
    assert (ring.disown(own.tag), ring.disown(THEIRS.tag)) == (0, 0)
    with pytest.raises(ContentMissing):
        ring.open(THEIRS.tag, 2)
    assert ring.held("1.2.3") == [own]
    assert THEIRS.tag in before
    # of which study it was is still told, until the study is erased
    assert (ring.study_of(THEIRS.tag), set(ring.tags_of("1.2.3"))) == ("1.2.3", {THEIRS.tag, own.tag})
    ring.delete("1.2.3")
    assert (ring.study_of(THEIRS.tag), ring.tags_of("1.2.3")) == (None, [])
    assert THEIRS.tag not in contents(path)
